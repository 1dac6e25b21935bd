"""The text of one answer while its tokens arrive: what is final of it, and where it ends.

Used by: batch_engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from codex_ml.inference.stop_strings import cut_at_stop
from codex_ml.tokens.borders import decode_after

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

HALF = "\ufffd"  # what the bytes of an unfinished character decode to
WINDOW = 16  # tokens that are decoded again with each new one
Finished = Literal["end", "stop", "length"]


@dataclass(frozen=True)
class Ending:
    """What ends a text.

    Attributes:
        ends: ids, END among them.
        stops: stop strings.
        most: the largest number of tokens.
    """

    ends: frozenset[int]
    stops: tuple[str, ...]
    most: int


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


class RowText:
    """Text of the tokens that a model wrote after a prompt.

    Attributes:
        tokens: the new ids except what ended the text, those of a stop string included.
        text: of all of them, as far as characters are complete; the stop string and what follows it are cut.
        finished: what ended the text; None while it goes on.
    """

    def __init__(self, tokenizer: TextTokenizer, prompt: list[int], ending: Ending) -> None:
        self._tokenizer, self._prompt, self._ending = tokenizer, prompt, ending
        self._begun = [BegunStop(stop) for stop in ending.stops]
        self._shown: list[int] = []
        self._fixed, self._fixed_tokens = "", 0  # text that further tokens cannot change, and the number of its tokens
        self.tokens: list[int] = []
        self.text = ""
        self.finished: Finished | None = None

    def add(self, token: int) -> None:
        """Add a token. PAD is not text, also where the model chooses it."""
        if token in self._ending.ends:
            return self._end(None, "end")
        self.tokens.append(token)
        if token != self._tokenizer.pad:
            self._shown.append(token)
            read = len(self.text)
            self._read()
            if self._stopped(read) and (before := cut_at_stop(self._whole(), self._ending.stops)) is not None:
                return self._end(before, "stop")
        if len(self.tokens) >= self._ending.most:
            self._end(None, "length")
        return None

    def final(self) -> int:
        """Number of first characters of `text` that will not be cut: no stop string can have begun in them."""
        if self.finished:
            return len(self.text)
        return min((begun.place(self.text) for begun in self._begun), default=len(self.text))

    def _stopped(self, read: int) -> bool:
        """Whether a stop string ends after the first `read` characters."""
        return any(self.text.find(stop, max(0, read - len(stop) + 1)) >= 0 for stop in self._ending.stops)

    def _read(self) -> None:
        before = [*self._prompt[-WINDOW:], *self._shown[: self._fixed_tokens]][-WINDOW:]
        new = decode_after(self._tokenizer, before, self._shown[self._fixed_tokens :])
        self.text = self._fixed + new.rstrip(HALF)
        if not new.endswith(HALF) and len(self._shown) - self._fixed_tokens >= WINDOW:
            self._fixed, self._fixed_tokens = self._fixed + new, len(self._shown)

    def _whole(self) -> str:
        return decode_after(self._tokenizer, self._prompt, self._shown)

    def _end(self, text: str | None, finished: Finished) -> None:
        self.text, self.finished = self._whole() if text is None else text, finished
