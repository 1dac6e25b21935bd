"""Locks that one process at a time holds. The others wait, and report for whom and how long, or are refused.

Experiments in temporary copies, and clones with one CODEX_ML_SCRATCH, share a scratch folder. The kernel holds the lock
(flock), so the lock ends with its process, even if the process is killed.

filelock 4.2 (a dependency of torch and huggingface-hub) does not replace this: its kernel lock has no shared mode, by
which the holder sees whether others wait, and it reports neither who holds the lock nor how far that process is.

Used by: core.stage (a stage runs once per checkout), fetch (downloads), train (checkpoints of one recipe, MLflow's
store).
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from codex_ml.core.errors import CheckFailed, naming
from codex_ml.core.progress import duration

log = logging.getLogger("codex_ml")
HOLDER = re.compile(r"process ([0-9]{1,9}) on (.+) \(.*\)", re.DOTALL)  # what `_own_name` gives
POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 30.0


class ProcessLock:
    """A lock file that one process at a time holds, and the queue of those that wait for it.

    Args:
        file: the lock file. It stays: a process that waits for a deleted file would not see who locks a new one.
        stage: begins each message.
        work: what the process that holds the lock does, for messages: "trains the same recipe".
        state: returns how far that process is, for messages; may return "".
    """

    def __init__(self, file: Path, stage: str, work: str, *, state: Callable[[], str] = str) -> None:
        self._file, self._stage, self._work, self._state = file, stage, work, state
        self._started = self._reported = 0.0
        file.parent.mkdir(parents=True, exist_ok=True)
        with naming(file):
            self._lock: IO[str] = file.open("a+", encoding="utf-8")
            self._queue: IO[str] = file.with_suffix(".queue").open("a+", encoding="utf-8")

    def try_acquire(self) -> bool:
        """Take the lock and return True, or return False at once when another process holds it."""
        # the queue first, so that a process that ends sees all processes that wait for its lock
        if not (_locked(self._queue, fcntl.LOCK_SH) and _locked(self._lock, fcntl.LOCK_EX)):
            return False
        fcntl.flock(self._queue, fcntl.LOCK_UN)
        with naming(self._file):
            self._lock.truncate(0)
            self._lock.write(_own_name())
            self._lock.flush()
        if self._started:
            waited = duration(time.monotonic() - self._started)
            log.info("%s: waited %s for another process; continuing from what it left", self._stage, waited)
        return True

    def wait(self) -> None:
        """Sleep until it makes sense to try again; say now and then who holds the lock."""
        now = time.monotonic()
        if not self._started:
            self._started = self._reported = now
            log.info("%s: %s %s; waiting until it ends", self._stage, self.holder(), self._work)
        elif now - self._reported >= HEARTBEAT_SECONDS:
            self._reported = now
            waited, state = duration(now - self._started), self._state()
            line = f"still waiting for {self.holder()}, {waited} so far" + (f"; {state}" if state else "")
            log.info("%s: %s", self._stage, line)
        time.sleep(POLL_SECONDS)

    @contextmanager
    def nobody_waits(self) -> Iterator[bool]:
        """Yield True if no other process waits for this lock. During the block, none can start to wait."""
        alone = _locked(self._queue, fcntl.LOCK_EX)
        try:
            yield alone
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the lock, or the place in the queue, to the others."""
        self._lock.close()
        self._queue.close()

    def holder(self) -> str:
        """The process that holds the lock, for messages."""
        self._lock.seek(0)
        return self._lock.read().strip() or "another process"


@contextmanager
def one_at_a_time(file: Path, stage: str, work: str) -> Iterator[None]:
    """A block that one process at a time runs; others wait. See `ProcessLock` for the arguments."""
    with closing(ProcessLock(file, stage, work)) as lock:
        while not lock.try_acquire():
            lock.wait()
        yield


@contextmanager
def only_one(file: Path, stage: str) -> Iterator[None]:
    """A block that one process at a time runs; others are refused.

    Raises:
        CheckFailed: naming the process that runs it.
    """
    with closing(ProcessLock(file, stage, "runs it")) as lock:
        if not lock.try_acquire():
            raise CheckFailed(f"{stage} is already running in this folder, in {lock.holder()}; wait until it ends")
        yield


def _locked(handle: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def last_holder(file: Path) -> int | None:
    """The number of the process that took the lock last, if it was a process of this machine; it may have ended."""
    match = HOLDER.fullmatch(file.read_text(encoding="utf-8", errors="replace")) if file.is_file() else None
    return int(match[1]) if match and match[2] == socket.gethostname() else None


def _own_name() -> str:
    experiment = os.environ.get("DVC_EXP_NAME")
    where = f"experiment {experiment}" if experiment else Path.cwd()
    return f"process {os.getpid()} on {socket.gethostname()} ({where})"
