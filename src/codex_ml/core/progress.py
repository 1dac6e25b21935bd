"""Progress with rate and time left: a bar on a terminal, elsewhere a plain line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from codex_ml.core.errors import safe_words

PLAIN_SECONDS = 10.0
Advance = Callable[[int], None]
Item = TypeVar("Item")


@contextmanager
def progress(
    what: str, total: int, unit: str, *, style: str = "auto", done: int = 0, first_apart: bool = False
) -> Iterator[Advance]:
    """Show the progress of a loop.

    Args:
        what: short name of the work.
        total: number of units when it is complete.
        style: "auto", "plain" or "off" (params.yaml, runtime.progress).
        done: units that were done before, by an interrupted run.
        first_apart: whether the first unit is slower than the others, for example because it compiles; rate and time
            left then count from its end. A first unit that takes ten seconds is taken for such a one. A bar never
            counts the first unit.

    Yields:
        a function to call with the number of units that were just done.
    """
    if style == "off":
        yield lambda _: None
    elif style == "auto" and sys.stderr.isatty():
        with _bar(what, total, unit, done) as advance:
            yield advance
    else:
        yield _Lines(what, total, unit, done, first_apart=first_apart).advance


@contextmanager
def _bar(what: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    rate = TextColumn("{task.fields[rate]}")
    with Progress(*columns, TaskProgressColumn(), rate, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(safe_words(what), total=total, completed=done, rate="")

        def advance(count: int) -> None:
            speed = bar.tasks[task].speed
            bar.update(task, advance=count, rate=f"{speed:.1f}/s" if speed else "")

        yield advance


class _Lines:
    def __init__(self, what: str, total: int, unit: str, done: int, *, first_apart: bool) -> None:
        self.what, self.total, self.unit, self.done, self.first_apart = what, total, unit, done, first_apart
        self.is_first = True
        # the rate covers the last few lines, so that it follows a slow-down
        self.marks = deque([(time.monotonic(), done)], maxlen=6)

    def advance(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        is_first, self.is_first = self.is_first, False
        is_late = now - self.marks[-1][0] >= PLAIN_SECONDS
        if is_first and (self.first_apart or is_late):  # it may have loaded or compiled what the others use
            self.marks[0] = (now, self.done)
            if not self.first_apart:
                print(safe_words(self._count()), file=sys.stderr, flush=True)
        elif is_late:
            start, done = self.marks[0]
            self.marks.append((now, self.done))
            rate = (self.done - done) / (now - start)
            left = f"{duration((self.total - self.done) / rate)} left" if rate else "?"
            speed = f"{rate:.1f}" if rate >= 1 or not rate else f"{rate:.2g}"
            print(safe_words(f"{self._count()}, {speed}/s, {left}"), file=sys.stderr, flush=True)

    def _count(self) -> str:
        return f"{self.what}: {self.done:,}/{self.total:,} {self.unit}"


def track(items: Iterable[Item], what: str, total: int, unit: str, *, style: str = "auto") -> Iterator[Item]:
    """Iterate over `items` and show the progress."""
    with progress(what, total, unit, style=style) as advance:
        for item in items:
            yield item
            advance(1)


def duration(seconds: float) -> str:
    """A duration for people: "45 s", "3 min 10 s", "2 h 5 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
