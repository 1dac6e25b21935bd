"""Where a stop string cuts a text, and where one may have begun.

Used by: growing_text.py.
"""

from __future__ import annotations

from collections.abc import Sequence


def cut_at_stop(text: str, stops: Sequence[str]) -> str | None:
    """Return the text before the first stop string; None if it holds none."""
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(found)] if found else None


class BegunStop:
    """Where the longest beginning of one stop string begins that a growing text ends with.

    What begins at a place now began there at each step before. So the place only moves on, and a text costs one
    comparison per step and one per place, of at most the length of the stop string.
    """

    def __init__(self, stop: str) -> None:
        self._stop, self._place = stop, 0

    def place(self, text: str) -> int:
        """The place in `text`, which begins with the text of the call before; its length for none."""
        while (found := text.find(self._stop[0], self._place)) >= 0:
            if len(text) - found < len(self._stop) and self._stop.startswith(text[found:]):
                self._place = found
                return found
            self._place = found + 1
        self._place = len(text)
        return self._place
