"""What the engine reports about one request, until the request's own task takes it.

Used by: own_model.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from codex_ml.serve.engine_rows import EngineRow, Progress


class UnreadOverflow(Exception):
    """The client reads more slowly than the model writes, and the buffer of its request is full."""


class Arrivals:
    """Reports of one request, in order. The engine never waits for a reader.

    Args:
        most: reports that may wait; with one more the request is dropped.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: deque[tuple[int, Progress]] = deque()
        self._changed = asyncio.Event()
        self._rows: Sequence[EngineRow] = ()
        self.overflow = asyncio.Event()

    def follow(self, rows: Sequence[EngineRow]) -> None:
        """The rows that `cancel` ends."""
        self._rows = rows

    def add(self, number: int, progress: Progress) -> None:
        """Called in the loop's thread."""
        if len(self._waiting) >= self._most:
            self.overflow.set()
            self.cancel()
        elif not self.overflow.is_set():
            self._waiting.append((number, progress))
        self._changed.set()

    async def take(self) -> list[tuple[int, Progress]]:
        """Wait for reports and return all that are there: (number of the text, report).

        Raises:
            UnreadOverflow: after more than `most` reports were not taken.
        """
        await self._changed.wait()
        self._changed.clear()
        if self.overflow.is_set():
            raise UnreadOverflow
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def cancel(self) -> None:
        """Free the places of the texts in the engine at its next step."""
        for row in self._rows:
            row.cancel()

    def cancel_one(self, number: int) -> None:
        """Free the place of one text."""
        self._rows[number].cancel()
