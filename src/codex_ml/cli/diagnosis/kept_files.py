"""What lies in the scratch folders, how large and how old it is, and which command removes it.

Used by: `codex-ml doctor`.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from codex_ml.cli.diagnosis.doctor_finding import DoctorFinding, ok, warn
from codex_ml.cli.scratch_folder import OWNER, PREFIX
from codex_ml.core.folders import scratch_place
from codex_ml.core.progress import duration
from codex_ml.core.tree import cache_folder
from codex_ml.modeling.process import PROCESS

MUCH, OLD = 5e9, 30 * 24 * 3600  # bytes, seconds
# What a removal costs.
COSTS = {
    "train": "an interrupted training run starts again from step 0",
    "wheels": "fetch downloads the wheels again",
    "models": "base models are unpacked again",
    "locks": "nothing, while no stage runs",
}


def kept_files() -> Iterator[DoctorFinding]:
    """One finding per folder of .cache, one per folder that a killed experiment or command left, one of DVC's cache."""
    folders = {path: COSTS.get(path.name, "what made it makes it again") for path in _folders(scratch_place())}
    copies = [path for parent in _folders(Path(".dvc/tmp/exps")) for path in _folders(parent)]
    folders |= {path: "it is the copy of a killed experiment" for path in copies if (path / "dvc.yaml").is_file()}
    folders |= dict.fromkeys(_abandoned(), "nothing; a killed command left it")
    for folder, cost in folders.items():
        yield _described(folder, cost)
    if not folders:
        yield ok("scratch", "empty")
    if (cache := Path(cache_folder() or ".dvc/cache")).is_dir():
        size, _ = size_and_age(cache)
        yield ok("DVC cache size", f"{_bytes(size)} in {cache}", "dvc gc --workspace --all-commits")


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*") if path.is_dir() and not path.is_symlink())


def _abandoned() -> Iterator[Path]:
    """Temporary folders of commands (see `cli.scratch_folder`) and of compilers whose process has ended."""
    import psutil

    for file in sorted(Path(tempfile.gettempdir()).glob(f"codex-ml-*/{PROCESS}")):
        with suppress(OSError, ValueError):  # removed meanwhile, or not a number
            if file.stat().st_uid == os.getuid() and not psutil.pid_exists(int(file.read_text(encoding="ascii"))):
                yield file.parent
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / OWNER).open() as owner:
                fcntl.flock(owner, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # held, or being made or removed
            continue
        yield folder


def _described(folder: Path, cost: str) -> DoctorFinding:
    size, age = size_and_age(folder)
    text = f"{folder}: {_bytes(size)}, last written {duration(age)} ago; without it: {cost}"
    mend = f"rm -r {shlex.quote(str(folder))}"
    return warn("scratch", text, mend) if size > MUCH and age > OLD else ok("scratch", text, mend)


def size_and_age(folder: Path) -> tuple[int, float]:
    """Bytes of the files below a folder, and seconds since the newest of them was written."""
    size, newest = 0, folder.lstat().st_mtime
    for file in folder.rglob("*"):
        try:
            status = file.lstat()
        except OSError:  # removed meanwhile
            continue
        if not file.is_dir() or file.is_symlink():
            size += status.st_size
        newest = max(newest, status.st_mtime)
    return size, max(0.0, time.time() - newest)


def _bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
