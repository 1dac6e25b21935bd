"""Use a tokenizer whose rules may take any time and memory on some text: in a child process with limits.

A tokenizer whose rules are known to be harmless (tokens.bounded_rules) is used in this process, several times as fast.
The ids are the same.

Used by: tokens.text_tokenizer, tokenizer.added_pieces.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from codex_ml.core.child import LimitedChild
from codex_ml.core.errors import UserError
from codex_ml.tokens.bounded_rules import is_bounded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MEMORY = 4 << 30  # bytes, for the tokenizer and one text
SECONDS = 60  # of processor time per text; GPT-2's rules take one for 2 MB

HALF = "a text holds a lone surrogate (half a character), so no token can stand for it"


class TextRefused(UserError):
    """The tokenizer needs more memory or time for a text than its limit, or fails on it."""


class NamedDocument(Protocol):
    """What a message needs of a document."""

    @property
    def source(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def id(self) -> str: ...


@contextmanager
def naming_document(split: str, document: NamedDocument) -> Iterator[None]:
    """Add the place of a document to an error about its text."""
    try:
        yield
    except TextRefused as error:
        place = " ".join(filter(None, (split, document.id, document.source, document.path)))
        raise UserError(f"{place}: {error}; leave the document out, or use another tokenizer") from None


@dataclass(frozen=True)
class ChildEncoding:
    """The parts of an `Encoding` of tokenizers that this project reads."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    word_ids: list[int | None]


class ConfinedTokenizer:
    """A `tokenizers.Tokenizer` that encodes and decodes in a limited child; its vocabulary is read in this process.

    Raises:
        TextRefused: `encode`, `encode_batch_fast` and `decode`, when a text exceeds the limits or the rules fail on it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._child = LimitedChild(tokenizer_in_child, memory=MEMORY, seconds=SECONDS)
        self._ready = False  # whether the child holds the tokenizer
        self._lock = Lock()
        self.encode_special_tokens = bool(tokenizer.encode_special_tokens)
        weakref.finalize(self, self._child.close)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode(self, text: str, *, add_special_tokens: bool = False) -> ChildEncoding:
        """Ids, offsets in characters, and numbers of the words of a text."""
        assert not add_special_tokens
        ids, offsets, words = self._ask({"text": text, "places": True})
        return ChildEncoding(ids, [(begin, end) for begin, end in offsets], words)

    def encode_batch_fast(self, texts: Sequence[str], *, add_special_tokens: bool = False) -> Iterator[ChildEncoding]:
        """Ids of each text, one at a time, so that an error belongs to the text that is due."""
        assert not add_special_tokens
        for text in texts:
            yield ChildEncoding(self._ask({"text": text})[0], [], [])

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of ids."""
        return str(self._ask({"ids": list(ids), "skip": skip_special_tokens}))

    def _ask(self, request: dict[str, Any]) -> Any:
        with self._lock:
            try:
                request.get("text", "").encode("utf-8")
                if not self._ready:
                    self._child.ask({"tokenizer": self._tokenizer.to_str()})
                    self._ready = True
                return self._child.ask({**request, "data": self.encode_special_tokens})
            except UnicodeEncodeError:
                raise TextRefused(HALF) from None
            except UserError as error:
                self._ready = False
                raise TextRefused(f"the tokenizer's rules cannot be applied to a text: {error}") from None


def confined(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer itself if its rules are bounded for every text; else one that uses it in a limited child."""
    made: Any = tokenizer if is_bounded(tokenizer) else ConfinedTokenizer(tokenizer)
    return made


def tokenizer_in_child() -> Callable[[dict[str, Any]], Any]:
    """Import tokenizers, in the child, and return what answers the requests of `ConfinedTokenizer`."""
    from tokenizers import Tokenizer

    loaded: Any = None

    def answer(request: dict[str, Any]) -> Any:
        nonlocal loaded
        if "tokenizer" in request:
            loaded = Tokenizer.from_str(request["tokenizer"])
            return None
        if "ids" in request:
            return loaded.decode(request["ids"], skip_special_tokens=request["skip"])
        loaded.encode_special_tokens = request["data"]
        if request.get("places"):
            encoding = loaded.encode(request["text"], add_special_tokens=False)
            return encoding.ids, encoding.offsets, encoding.word_ids
        [encoding] = loaded.encode_batch_fast([request["text"]], add_special_tokens=False)
        return [encoding.ids]

    return answer
