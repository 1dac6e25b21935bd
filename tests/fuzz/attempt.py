"""Read one mutated input and judge what happened: success, a refusal in one line, or a fault.

Faults are: an exception that a user would see as an internal error, a message of several lines, too much memory, too
much time, a file that is left over. `python -m tests.fuzz.attempt` is the process that the driver starts for each kind:
it reads `first seconds` lines and answers each with one JSON line.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from codex_ml.core.errors import CheckFailed, UserError

from .kind import Kind
from .kinds import kind_named

MEMORY = 1 << 30  # bytes that reading one input may add; pages of Parquet may decode to half of it
SECONDS = 60  # per input; a template may use 2 s of CPU time for each of its prefixes
LONGEST_MESSAGE = 2000  # characters


@dataclass
class Fault:
    """What went wrong with input `number`."""

    number: int
    what: str
    detail: str


@dataclass
class Tally:
    """Results of some inputs.

    Attributes:
        memory: the largest number of bytes that reading one input added.
        slowest: the longest time for one input, in seconds.
    """

    accepted: int = 0
    refused: int = 0
    memory: int = 0
    slowest: float = 0.0
    faults: list[Fault] = field(default_factory=list)

    @property
    def done(self) -> int:
        return self.accepted + self.refused + len(self.faults)

    def add(self, other: Tally) -> None:
        """Add the results of other inputs."""
        self.accepted += other.accepted
        self.refused += other.refused
        self.memory, self.slowest = max(self.memory, other.memory), max(self.slowest, other.slowest)
        self.faults += other.faults


def data_of(kind: Kind, name: str, seed: int, number: int) -> bytes:
    """Input `number` of a kind."""
    return kind.make(Random(f"{seed}/{name}/{number}"))


def attempt(kind: Kind, data: bytes, number: int, folder: Path, tally: Tally) -> None:
    """Read `data` as a file in the folder, which has nothing else in it, and count the result."""
    file = folder / kind.name
    file.write_bytes(data)
    before, begin = _reset_peak(), time.monotonic()
    what = ""
    detail = ""
    try:
        with _at_most(SECONDS):
            accepted = kind.read(file)
    except (UserError, CheckFailed) as error:
        accepted = False
        if len(str(error)) > LONGEST_MESSAGE or "\n" in str(error):
            what, detail = "a message that is no line", str(error)[:LONGEST_MESSAGE]
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        what, detail, accepted = type(error).__name__, traceback.format_exc(), False
    seconds, memory = time.monotonic() - begin, _peak() - before
    file.unlink(missing_ok=True)
    if not what and memory > MEMORY:
        what, detail = "memory", f"{memory:,} bytes"
    if not what and (left := sorted(path.name for path in folder.iterdir())):
        what, detail = "left over", " ".join(left)
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    tally.memory, tally.slowest = max(tally.memory, memory), max(tally.slowest, seconds)
    if what:
        tally.faults.append(Fault(number, what, detail))
    elif accepted:
        tally.accepted += 1
    else:
        tally.refused += 1


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def _reset_peak() -> int:
    """Bytes that this process holds; from now on `_peak` gives the largest number of them."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    """A number of bytes that Linux gives of this process; 0 on other systems."""
    if not Path("/proc/self/status").exists():
        return 0
    with Path("/proc/self/status").open() as lines:
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith(name + ":")), 0)


def main() -> None:
    """Answer requests `first seconds`: read inputs from number `first` on, for so many seconds, and at least one."""
    name, seed, progress = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    root = Path(tempfile.mkdtemp(dir=progress.parent))
    seeds, folder = root / "seeds", root / "input"
    seeds.mkdir()
    folder.mkdir()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(root / "torch")
    kind = kind_named(name, seeds)
    tempfile.tempdir = str(folder)  # what the library leaves there is found
    tally = Tally()
    attempt(kind, kind.valid, 0, folder, tally)  # imports what is needed
    if not tally.accepted:
        sys.exit(f"{name}: the input without a change is not accepted: {tally.faults}")
    if size := _status("VmSize"):
        resource.setrlimit(resource.RLIMIT_AS, (size + 3 * MEMORY,) * 2)
    print("ready", file=out, flush=True)
    with progress.open("wb", buffering=0) as where:
        for line in sys.stdin:
            number, end = int(line.split()[0]), time.monotonic() + float(line.split()[1])
            tally = Tally()
            while not tally.done or time.monotonic() < end:
                os.pwrite(where.fileno(), number.to_bytes(8, "little"), 0)
                attempt(kind, data_of(kind, name, seed, number), number, folder, tally)
                number += 1
            print(json.dumps(asdict(tally)), file=out, flush=True)


if __name__ == "__main__":
    main()
