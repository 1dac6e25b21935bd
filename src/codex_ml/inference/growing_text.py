"""The text of tokens that a model writes, while they arrive: where it ends, and which characters are certain.

A token is not a text: a character can have bytes of several tokens, SentencePiece decodes a run of byte tokens as a
whole, and a stop string can begin in one token and end in another. `GrowingText` holds back what may still change; the
pieces that it gives, joined, are its text at the end.

>>> growing = GrowingText(tokenizer, prompt, Ending(frozenset({tokenizer.end}), ("stop",), 64))  # doctest: +SKIP
>>> for token in tokens: growing.add(token); print(growing.take(), end="")  # doctest: +SKIP

Used by: generation.py, text_stream.py, serve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from codex_ml.core.errors import CheckFailed
from codex_ml.inference.stop_strings import BegunStop, cut_at_stop
from codex_ml.tokens.borders import decode_after

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

HALF = "\ufffd"  # what the bytes of an unfinished character decode to
REST = 16  # tokens after which a text is settled; as many before it are decoded again with what follows
Finished = Literal["end", "stop", "length"]


@dataclass(frozen=True)
class Ending:
    """What ends a text.

    Attributes:
        ends: ids, END among them.
        stops: stop strings, none of them empty.
        most: the largest number of tokens.
    """

    ends: frozenset[int]
    stops: tuple[str, ...]
    most: int


class GrowingText:
    """Text of the tokens that a model wrote after a prompt.

    A step decodes at most about 50 tokens, however long the text is.

    Args:
        prompt: ids that the text follows.

    Attributes:
        tokens: the new ids except what ended the text, those of a stop string included.
        finished: what ended the text; None while it goes on.
    """

    def __init__(self, tokenizer: TextTokenizer, prompt: Sequence[int], ending: Ending) -> None:
        self._tokenizer, self._prompt, self._ending = tokenizer, prompt, ending
        self._begun = [BegunStop(stop) for stop in ending.stops]
        self._shown, self._read = list[int](), 0  # the tokens that are text, and how many of them `_text` has seen
        self._run = bytearray()  # of the byte tokens at the end of these
        self._settled, self._lead, self._base = "", "", 0  # see `_settle`
        self._text, self._taken = "", ""
        self.tokens: list[int] = []
        self.finished: Finished | None = None

    def add(self, token: int) -> None:
        """Add a token. PAD is not text, also where the model chooses it."""
        if token in self._ending.ends:
            return self._end(self._whole(), "end")
        self.tokens.append(token)
        if token != self._tokenizer.pad:
            self._shown.append(token)
            if self._ending.stops and (before := self._before_stop()) is not None:
                return self._end(before, "stop")
        if len(self.tokens) >= self._ending.most:
            self._end(self._whole(), "length")
        return None

    @property
    def text(self) -> str:
        """The characters that no further token changes, also those that a stop string may still cut; at the end all."""
        if self.finished is None and self._read < len(self._shown):
            for token in self._shown[self._read :]:
                if token in self._bytes:
                    self._run.append(self._bytes[token])
                else:
                    self._run.clear()
            self._read = len(self._shown)
            last = self._read - len(self._run)
            found = self._decoded(last)
            self._text = found.rstrip(HALF)
            if self._text == found and last - self._base >= REST:
                self._settle(found, last)
        return self._text

    def take(self) -> str:
        """The characters that have become certain since the last call; at the end the rest.

        Raises:
            CheckFailed: when the tokenizer gives other characters for the whole text than for its beginning.
        """
        text = self.text
        if self.finished is None:
            text = text[: min((begun.place(text) for begun in self._begun), default=len(text))]
        if not text.startswith(self._taken):
            if self.finished is None:  # more tokens will tell
                return ""
            raise CheckFailed("the tokenizer decodes the whole text to other characters than its beginning")
        new, self._taken = text[len(self._taken) :], text
        return new

    @cached_property
    def _bytes(self) -> dict[int, int]:
        """Id of each byte token -> its byte. SentencePiece decodes a run of them as a whole: its last one decides."""
        names = [f"<0x{number:02X}>" for number in range(256)]
        found = {token: byte for byte, name in enumerate(names) if (token := self._token(name)) is not None}
        spelt = any(self._tokenizer.decode([token]) == names[byte] for token, byte in [*found.items()][:1])
        return {} if spelt else found

    def _token(self, name: str) -> int | None:
        number: int | None = self._tokenizer.backend.token_to_id(name)
        return number

    def _before_stop(self) -> str | None:
        """The text before the first stop string, if the text with the newest token holds one."""
        stops, certain = self._ending.stops, len(self._text)  # no stop string ends in these characters
        text = self.text
        if self._run:
            found = any(map(self._ends_run, stops))
        else:
            found = any(text.find(stop, max(0, certain - len(stop) + 1)) >= 0 for stop in stops)
        return cut_at_stop(self._whole(), stops) if found else None

    def _ends_run(self, stop: str) -> bool:
        """Whether the text would end with a stop string if the run of byte tokens were characters."""
        wanted = stop.encode("utf-8", "surrogatepass")
        before = self._text[-len(stop) :].encode("utf-8", "surrogatepass") if len(self._run) < len(wanted) else b""
        return (before + self._run[-len(wanted) :]).endswith(wanted)

    def _decoded(self, last: int) -> str:
        """Text of the first `last` tokens, which are not fewer than those that are settled."""
        if self._base:
            again = self._tokenizer.decode(self._shown[self._base - REST : last])
            if again.startswith(self._lead):
                return self._settled + again[len(self._lead) :]
        return decode_after(self._tokenizer, self._prompt, self._shown[:last])

    def _settle(self, text: str, last: int) -> None:
        """Decode the first `last` tokens no more: only what follows them, after the `REST` tokens before it."""
        if lead := self._tokenizer.decode(self._shown[last - REST : last]):  # else a first space could be lost
            self._settled, self._lead, self._base = text, lead, last

    def _whole(self) -> str:
        return decode_after(self._tokenizer, self._prompt, self._shown)

    def _end(self, text: str, finished: Finished) -> None:
        self._text, self.finished = text, finished
