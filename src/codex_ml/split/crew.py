"""Worker processes and progress of the stage `split`. Used by: split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from codex_ml.core.progress import Advance

WORTH_WORKERS = 2  # tasks; the workers of the stage are already running, so two tasks are worth it

Watch = Callable[[str, int, str], AbstractContextManager[Advance]]


@contextmanager
def unwatched(what: str, total: int, unit: str) -> Iterator[Advance]:
    """A `Watch` that shows no progress."""
    yield lambda _: None


@dataclass(frozen=True)
class Crew:
    """How the work is done. It does not change any byte of a result.

    Attributes:
        workers: number of worker processes; 0 runs everything in this process.
        watch: opens the progress of a loop, given a name, a total and a unit.
    """

    workers: int = 0
    watch: Watch = unwatched

    def for_tasks(self, count: int) -> int:
        """Number of worker processes for `count` tasks."""
        return self.workers if count >= WORTH_WORKERS else 0
