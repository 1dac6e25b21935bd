"""Who does the work of `split`, and who watches it. Used by: split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from codex_ml.core.progress import Advance

WORTH_WORKERS = 2  # tasks; the workers of the stage run already

Watch = Callable[[str, int, str], AbstractContextManager[Advance]]


@contextmanager
def unwatched(what: str, total: int, unit: str) -> Iterator[Advance]:
    """Progress that is not shown."""
    yield lambda _: None


@dataclass(frozen=True)
class Crew:
    """How the work is done; it decides no byte of a result.

    Attributes:
        workers: processes; 0 for none.
        watch: opens the progress of a loop, given a name, a total and a unit.
    """

    workers: int = 0
    watch: Watch = unwatched

    def for_tasks(self, count: int) -> int:
        """Worker processes for so many tasks."""
        return self.workers if count >= WORTH_WORKERS else 0
