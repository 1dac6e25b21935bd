"""Find the text that ends a generated text, across the borders of tokens and inside characters of several bytes.

Used by: generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

SLACK = 8  # tokens: the first tokens of a tail can decode to another text, such as half a character


class Decodes(Protocol):
    """What turns token ids into text, such as a `TextTokenizer`."""

    def decode(self, ids: Sequence[int], /) -> str:
        """Text of ids."""
        ...


def cut_at_stop(text: str, stops: Sequence[str]) -> str | None:
    """Return the text before the first stop string; None if it holds none."""
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(found)] if found else None


class StopStrings:
    """Looks for stop strings after each new token.

    A token adds at least one byte, so a stop string of n bytes that a new token completes lies in the last n tokens.
    Only this tail is decoded, so the cost of a token does not grow with the text.
    """

    def __init__(self, tokenizer: Decodes, stops: Sequence[str]) -> None:
        self.tokenizer, self.stops = tokenizer, stops
        self.tail = max((len(stop.encode("utf-8")) for stop in stops), default=0) + SLACK

    def in_tail(self, ids: Sequence[int]) -> bool:
        """Whether the last tokens hold a stop string; `cut_at_stop` must then confirm it on the whole text."""
        return bool(self.stops) and cut_at_stop(self.tokenizer.decode(ids[-self.tail :]), self.stops) is not None
