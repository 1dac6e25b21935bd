"""kill -9 at any moment of ingest and split: the next run gives the same bytes, and leaves no other file."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from codex_ml.core.hashing import hash_file

from .brute_force import everything

pytestmark = pytest.mark.costly
MOMENTS = Path(__file__).with_name("moments")
# Every path of the code that large data take: spill files cut again and again, many row groups, worker processes.
LOWERED = {
    "core/parallel.py": {"SMALL": "0"},
    "ingest/corpus_writer.py": {"ROW_GROUP_ROWS": "50"},
    "ingest/spill_sort.py": {"SPILL_BYTES": "1 << 13", "RUNS": "3"},
    "documents/document.py": {"ROW_GROUP_BYTES": "1 << 15"},
    "ingest/readers/compression.py": {"BLOCK": "1 << 15"},
}
LEFT_OUT = ("src/", "logs/", ".cache/locks/")
OUT = {"ingest": "data/corpus", "split": "data/splits"}


def lower(root: Path) -> None:
    """Set the sizes from which on data count as large to what a test has."""
    for name, constants in LOWERED.items():
        file = root / "src/codex_ml" / name
        text = file.read_text(encoding="utf-8")
        for constant, value in constants.items():
            text, found = re.subn(rf"(?m)^({constant} = )[^#\n]*", rf"\g<1>{value}  ", text)
            assert found == 1, f"{name} has {found} lines that begin with {constant} ="
        file.write_text(text, encoding="utf-8")


def write_data(raw: Path) -> None:
    """Texts of all kinds, one of them two hundred times, in three forms of source."""
    texts = [text for text in everything(3, 350) if len(text) < 9000]
    lines = [{"id": i, "text": text, "licence": "MIT", "repo": f"r{i % 90}"} for i, text in enumerate(texts)]
    lines += [{"id": f"same{i}", "text": "one text that is everywhere " * 9, "licence": "MIT"} for i in range(200)]
    raw.mkdir(parents=True)
    (raw / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with (raw / "b.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["id", "text", "licence"])
        table.writeheader()
        table.writerows({"id": i, "text": f"row {i} has\nwords {i} of its own", "licence": "MIT"} for i in range(200))
    for number in range(40):
        file = raw / f"code/{number % 7}/f{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"def f{number}(x):\n    return x + {number}\n\nclass C{number}:\n    pass\n", encoding="utf-8")


@dataclass
class Checkout:
    """The code with lowered sizes, and every file of an undisturbed run."""

    root: Path
    expected: dict[str, str]
    moments: dict[str, dict[str, int]]

    def start(self, stage: str, **environment: str) -> subprocess.Popen[str]:
        extra = {"PYTHONPATH": str(MOMENTS), "TMPDIR": str(self.root / "tmp"), "PYTHONDONTWRITEBYTECODE": ""}
        return subprocess.Popen(
            [sys.executable, f"stages/{stage}.py"], cwd=self.root, env={**os.environ, **extra, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip

    def run(self, stage: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(stage, **environment)
        out, errors = process.communicate(timeout=120)  # ends when the last worker has closed its end of the pipes
        return subprocess.CompletedProcess([stage], process.returncode, out, errors)

    def files(self) -> dict[str, str]:
        """Every file below the checkout with its hash, except the code, the logs and process ids."""
        found = (path for path in self.root.rglob("*") if path.is_file())
        names = {path.relative_to(self.root).as_posix(): path for path in found}
        return {name: hash_file(path).sha256 for name, path in names.items() if not name.startswith(LEFT_OUT)}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, repository, project):
    root = tmp_path_factory.mktemp("killed")
    shutil.copytree(project, root, dirs_exist_ok=True)
    for name in ("src", "stages"):
        shutil.copytree(repository / name, root / name)
    for name in ("dvc.yaml", ".dvcignore", "pyproject.toml"):  # .dvcignore: byte code is no part of a stage
        shutil.copyfile(repository / name, root / name)
    lower(root)
    write_data(root / "data/raw")
    (root / "tmp").mkdir()
    sources = [
        {"kind": "jsonl", "path": "data/raw/*.jsonl", "fields": {"group": "repo"}},
        {"kind": "csv", "path": "data/raw/*.csv"},
        {"kind": "files", "path": "data/raw/code", "licence": "MIT"},
    ]
    quality = {"min_alphanumeric_share": None, "min_compression_ratio": None}
    params = {
        "ingest": {"sources": sources},
        "split": {"licences": ["MIT"], "quality": quality},
        "runtime": {"workers": 2, "progress": "off"},
    }
    (root / "params.yaml").write_text(json.dumps(params), encoding="utf-8")
    made = Checkout(root, {}, {"stage": {}, "worker": {}})
    for stage in ("ingest", "split"):
        done = made.run(stage, CODEX_TEST_COUNT=str(root / "tmp/count"))
        assert done.returncode == 0, done.stderr
        for who, counted in made.moments.items():
            counts = root / f"tmp/count.{who}"
            counted[stage] = max(map(int, counts.read_text(encoding="utf-8").split()))
            counts.unlink()
    made.expected = made.files()
    return made


def test_the_lowered_sizes_reach_the_paths_of_large_data(checkout):
    assert pq.ParquetFile(checkout.root / "data/corpus/documents.parquet").num_row_groups > 5
    assert min(min(counted.values()) for counted in checkout.moments.values()) > 20, checkout.moments


@pytest.mark.parametrize(
    ("kills", "seed"), [(3, 1), *(pytest.param(50, seed, marks=pytest.mark.slow) for seed in (2, 3))]
)
@pytest.mark.parametrize("stage", ["ingest", "split"])
def test_a_stage_killed_again_and_again_ends_with_the_same_bytes(checkout, stage, kills, seed):
    """Odd seeds kill the stage, whose workers must end by themselves. Even seeds kill its workers."""
    dice = random.Random(f"{stage} {seed}")
    who = "stage" if seed % 2 else "worker"
    if stage == "ingest" or seed > 1:  # else the outputs of a run before are there
        shutil.rmtree(checkout.root / OUT[stage])
    before = checkout.files()
    killed = 0
    for number in range(kills):
        moment = dice.randint(1, checkout.moments[who][stage])
        done = checkout.run(stage, CODEX_TEST_KILL=f"{who} {moment}")
        after = checkout.files()
        if who == "stage" and done.returncode == -signal.SIGKILL:
            whole = {name: value for name, value in after.items() if ".tmp-" not in name}
            assert whole.items() >= before.items(), "a file that was there is gone"
            assert whole.items() <= checkout.expected.items(), "half an output has its name"
            killed, before = killed + 1, whole
        elif who == "worker" and done.returncode == 1:
            assert done.stderr.splitlines()[-1].startswith("error: a worker process died"), done.stderr
            assert "Traceback" not in done.stderr
            assert after == before, "something half is left"
            killed += 1
        else:  # the moment did not come in this run
            assert done.returncode == 0, done.stderr
            assert after == checkout.expected
            before = after
        if number % 5 == 4 or number == kills - 1:
            again = checkout.run(stage)
            assert again.returncode == 0, again.stderr
            assert checkout.files() == checkout.expected
            before = checkout.expected
    assert killed > kills / 2
