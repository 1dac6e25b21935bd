"""What a killed DVC leaves in .dvc/tmp that stops every later DVC.

DVC recovers from most of it: the kernel frees its file lock, and DVC drops from .dvc/tmp/rwlock the processes that have
ended. It does not recover from a rwlock that was cut while it was written, from a process number that another program
has got since, and, with core.hardlink_lock, from the lock itself, which is valid for a year.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from codex_ml.core.lock import last_holder

if TYPE_CHECKING:
    import psutil

TMP = Path(".dvc/tmp")
LOCK, GUARD = TMP / "lock", TMP / "rwlock.lock"
RWLOCKS = (TMP / "rwlock", TMP / "exps/rwlock")  # of the workspace, and of experiments in temporary copies
STAGE_LOCKS = Path(".cache/locks")


def leftovers() -> Iterator[str]:
    """One line per leftover that stops DVC although no running process holds it, with the command that fixes it."""
    for rwlock in RWLOCKS:
        yield from _read_write_lock(rwlock)
    yield from _hard_links()
    yield from _orphans()


def _read_write_lock(rwlock: Path) -> Iterator[str]:
    if not rwlock.is_file():
        return
    holders = _holders(rwlock)
    if holders is None:
        if not (running := _running_dvc()):
            yield f"{rwlock} was cut when DVC was killed, and no DVC runs here; `rm {rwlock}` fixes it"
        else:  # it may be writing at this moment
            yield f"{rwlock} cannot be read while DVC is running ({_name(running[0])}); wait for it, then check again"
        return
    alive = {pid: process for pid in holders if (process := _process(pid))}
    if alive and not any(map(_may_be_dvc, alive.values())):
        pid, process = next(iter(alive.items()))
        yield (
            f"{rwlock} names process {pid} ({holders[pid][:50]}), which was killed: another program has its number "
            f"({_name(process)}), so DVC would not start; `rm {rwlock}` fixes it"
        )


def _holders(rwlock: Path) -> dict[int, str] | None:
    """Process number -> command of the DVCs that rwlock names; None when it is not what DVC writes."""
    try:
        document = json.loads(rwlock.read_bytes())
        infos = [
            *document.get("write", {}).values(),
            *(i for infos in document.get("read", {}).values() for i in infos),
        ]
        return {int(info["pid"]): str(info["cmd"]) for info in infos}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _hard_links() -> Iterator[str]:
    """With core.hardlink_lock a lock is a hard link to a claim file beside it, and holds the path of that file."""
    for lock in (LOCK, GUARD):
        if not lock.is_file() or lock.stat().st_size > 4096:
            continue
        claim = Path(os.fsdecode(lock.read_bytes().strip()))
        if claim.suffix == ".lock" and claim.parent.name == TMP.name and not _running_dvc():
            files = " ".join(str(file) for file in (lock, TMP / claim.name) if file.exists())
            yield (
                f"{lock} belongs to a DVC that was killed: on this machine no DVC runs here; `rm {files}` fixes it, "
                "unless another machine works in this folder"
            )


def _orphans() -> Iterator[str]:
    """Stages that run on without the DVC that started them: the next DVC would delete what they write."""
    for lock in sorted(STAGE_LOCKS.glob("*")):
        number = last_holder(lock)
        process = None if number is None else _process(number)
        if process is None or not _is_stage(process, lock.name) or any(map(_may_be_dvc, process.parents())):
            continue
        yield (
            f"stage {lock.name} is still running without DVC (process {number}); wait for it, or end it with `kill "
            f"{number}`: DVC would delete what it writes"
        )


def _process(pid: int) -> psutil.Process | None:
    """The process of that number, if there is one."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:  # it is another user's, and psutil tells more
        pass
    import psutil  # here, because usually there is no such process

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.NoSuchProcess:
        return None


def _words(process: psutil.Process) -> list[str] | None:
    """The command line; None when it cannot be read."""
    import psutil

    try:
        return process.cmdline()
    except psutil.Error:
        return None


def _may_be_dvc(process: psutil.Process) -> bool:
    """Whether a process is DVC, or could be: Python in this folder, or a process that cannot be looked at."""
    words = _words(process)
    if words is None or any(Path(word).name == "dvc" for word in words):
        return True
    return "python" in Path((words or [""])[0]).name and _is_here(process)


def _is_here(process: psutil.Process) -> bool:
    import psutil

    try:
        return Path(process.cwd()).is_relative_to(Path.cwd())
    except psutil.Error:
        return True


def _is_stage(process: psutil.Process, name: str) -> bool:
    return any(word.endswith(f"stages/{name}.py") for word in _words(process) or ()) and _is_here(process)


def _running_dvc() -> list[psutil.Process]:
    """Processes of DVC in this folder."""
    import psutil

    own = os.getpid()
    return [
        process
        for process in psutil.process_iter()
        if process.pid != own and any(Path(word).name == "dvc" for word in _words(process) or ()) and _is_here(process)
    ]


def _name(process: psutil.Process) -> str:
    words = _words(process) or ["unknown"]
    return f"process {process.pid}: {' '.join(words)[:60]}"
