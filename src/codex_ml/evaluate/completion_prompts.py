"""Turn held-out documents into prompts, each with the text that a perfect model would write after it.

A text is split at a token, at the end of a line, or after the signature of a Python function. The ids of the prompt
are always the first ids of the whole document: the model sees them as in training, and a person who gives the model
the same prompt gets the same ids. A record is split after its prompt, and a chat before the last answer.

Used by: the completions task.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError, one_line
from codex_ml.documents.document import Document
from codex_ml.evaluate.config import Completions
from codex_ml.evaluate.documents import document_texts
from codex_ml.evaluate.function_bodies import function_bodies

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

LONGEST = 1 << 16  # characters of a text that are looked at
TRIES = 32  # places of one document that are tried


@dataclass(frozen=True)
class Completion:
    """A prompt and its true continuation.

    Attributes:
        key: name of the document, which decides the random numbers of the text.
        texts: the columns of a table that say which document it is.
        kind: "token", "line", "function", "record" or "chat": where the document was split.
        ids: (n,) int64, the prompt with its begin token.
        prompt, reference: as texts.
        weight: of the record, for weighted accuracy.
        cut_reference: whether the reference lost its end, because the model may not write as many tokens.
        cut: reduces what the model wrote to as much text as the reference has, such as whole lines.
    """

    key: str
    texts: dict[str, str]
    kind: str
    ids: NDArray[np.int64]
    prompt: str
    reference: str
    weight: float
    cut_reference: bool
    cut: Callable[[str], str] = field(default=str, repr=False)


class NotCompleted(Exception):
    """A document that cannot be split; the message is the reason."""


def document_key(source: str, path: str, id: str) -> str:
    """The name of a document in its split; it decides the random numbers of its text."""
    return f"{source}\0{path}\0{id}"


def key_of(document: Document) -> str:
    """`document_key` of a document."""
    return document_key(document.source, document.path, document.id)


def rank(key: str) -> str:
    """A hexadecimal number that depends on the name of a document only; it orders the sample.

    It does not depend on the seed: models that were trained with different seeds complete the same documents.
    """
    return hashlib.sha256(f"completions\0{key}".encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class PromptMaker:
    """Makes prompts of documents of any form."""

    tokenizer: TextTokenizer
    settings: Completions

    def make(self, document: Document) -> Completion:
        """Split one document.

        Raises:
            NotCompleted: when it has no place to split.
            UserError: when its weight is not a number, or for a chat without a template.
        """
        if document.messages is not None:
            return self._chat(document)
        if document.text is None:
            return self._record(document)
        split = {"token": self._token, "line": self._line, "function": self._function}[self.settings.split_at]
        return split(document, document.text[:LONGEST])

    def _completion(self, document: Document, kind: str, split: _Split) -> Completion:
        return Completion(
            key=key_of(document),
            texts=document_texts(document),
            kind=kind,
            ids=split.ids,
            prompt=split.prompt,
            reference=split.reference,
            weight=weight_of(document),
            cut_reference=split.cut_reference,
            cut=split.cut,
        )

    def _token(self, document: Document, text: str) -> Completion:
        ids = self.tokenizer.encode(text)
        for place in self._shuffled(document, np.arange(1, len(ids))):
            prompt = self.tokenizer.decode(ids[:place])
            reference, cut = self._limited(ids[place:], ids[:place])
            if not prompt.endswith("\ufffd") and reference:  # half a character is not text
                return self._completion(document, "token", _Split(self._begun(ids[:place]), prompt, reference, cut))
        raise NotCompleted("has too few tokens to be split")

    def _line(self, document: Document, text: str) -> Completion:
        ids = self.tokenizer.encode(text)
        breaks = np.array([place for place, character in enumerate(text) if character == "\n"], dtype=np.int64)
        for place in self._shuffled(document, breaks):
            if not text[:place].strip() or not text[place:].strip():
                continue
            for border in (place + 1, place):
                if (prompt := self._prompt(text[:border], ids)) is None:
                    continue
                reference, cut = self._limited(ids[len(prompt) :], prompt)
                if cut and not reference.endswith("\n") and "\n" in reference.lstrip("\n"):
                    reference = reference[: reference.rindex("\n")]  # the last line is not whole
                reference = reference.rstrip("\n")
                if reference.strip():
                    lines = reference.count("\n") + 1
                    split = _Split(self._begun(prompt), text[:border], reference, cut, _FirstLines(lines))
                    return self._completion(document, "line", split)
        raise NotCompleted("has no line break between two tokens with text on both sides")

    def _function(self, document: Document, text: str) -> Completion:
        if document.language.lower() != "python":
            raise NotCompleted("is not Python, and functions are found in Python only")
        if len(document.text or "") > LONGEST:
            raise NotCompleted(f"is longer than {LONGEST} characters")
        bodies = function_bodies(text)
        if bodies is None:
            raise NotCompleted("is not valid Python")
        if not bodies:
            raise NotCompleted("has no function with a body of its own lines")
        ids = self.tokenizer.encode(text)
        for number in self._shuffled(document, np.arange(len(bodies))):
            body = bodies[number]
            for border in (body.start, body.start - 1):
                reference = text[border : body.stop]
                if body.cut(reference) != reference or len(self.tokenizer.encode(reference)) > self.settings.max_tokens:
                    continue
                if (prompt := self._prompt(text[:border], ids)) is not None:
                    split = _Split(self._begun(prompt), text[:border], reference, False, body.cut)
                    return self._completion(document, "function", split)
        raise NotCompleted(
            f"has no function with a body of at most {self.settings.max_tokens} tokens that begins between two tokens "
            "of the document"
        )

    def _record(self, document: Document) -> Completion:
        prompt, reference = document.prompt or "", document.completion or ""
        if not reference:
            raise NotCompleted("has an empty completion")
        reference, cut = self._limited_text(reference)
        split = _Split(self._begun(self.tokenizer.encode(prompt)), prompt, reference, cut)
        return self._completion(document, "record", split)

    def _chat(self, document: Document) -> Completion:
        from codex_ml.tokens.chat import encode_prompt
        from codex_ml.tokens.rendering import ChatRefused

        messages: Any = json.loads(document.messages or "[]")
        tools: Any = json.loads(document.tools) if document.tools else None
        last = max((at for at, message in enumerate(messages) if message.get("role") == "assistant"), default=None)
        if last is None or not isinstance(messages[last].get("content"), str) or not messages[last]["content"].strip():
            raise NotCompleted("has no answer that is a text")
        try:
            ids = encode_prompt(self.tokenizer, messages[:last], tools)
        except ChatRefused as error:
            raise NotCompleted(f"cannot be written by the chat template: {one_line(error)}") from None
        reference, cut = self._limited_text(messages[last]["content"])
        split = _Split(ids.astype(np.int64), self.tokenizer.decode(ids), reference, cut)
        return self._completion(document, "chat", split)

    def _begun(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        return np.concatenate([[self.tokenizer.begin], ids]).astype(np.int64)

    def _prompt(self, text: str, ids: NDArray[Any]) -> NDArray[Any] | None:
        """Ids of the prompt, None where a token of the whole document crosses its end."""
        found = self.tokenizer.encode(text)
        return found if 0 < len(found) < len(ids) and np.array_equal(ids[: len(found)], found) else None

    def _limited(self, ids: NDArray[Any], before: NDArray[Any]) -> tuple[str, bool]:
        """Text of at most `max_tokens` ids that follow the ids `before`, and whether some were left out."""
        from codex_ml.tokens.borders import decode_after

        kept = ids[: self.settings.max_tokens].tolist()
        return decode_after(self.tokenizer, before.tolist(), kept), len(kept) < len(ids)

    def _limited_text(self, text: str) -> tuple[str, bool]:
        ids = self.tokenizer.encode(text)
        if len(ids) <= self.settings.max_tokens:
            return text, False
        return self.tokenizer.decode(ids[: self.settings.max_tokens]), True

    def _shuffled(self, document: Document, places: NDArray[np.int64]) -> Iterator[int]:
        """At most `TRIES` of these places in an order that depends on the name of the document only."""
        random = np.random.Generator(np.random.PCG64(int(rank(key_of(document))[:16], 16)))
        yield from random.permutation(places)[:TRIES].tolist()


@dataclass(frozen=True)
class _Split:
    """The two sides of a document; see `Completion`."""

    ids: NDArray[np.int64]
    prompt: str
    reference: str
    cut_reference: bool
    cut: Callable[[str], str] = str


@dataclass(frozen=True)
class _FirstLines:
    """Keeps the first lines of a text."""

    count: int

    def __call__(self, text: str) -> str:
        return "\n".join(text.split("\n")[: self.count])


def weight_of(document: Document) -> float:
    """The weight of a record: the number `weight` of its metadata, 1 without one.

    Raises:
        UserError: when it is not a number of at least 0.
    """
    given = json.loads(document.meta).get("weight") if document.meta else None
    if given is None:
        return 1.0
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < math.inf:
        raise UserError(
            f"the weight of the document {document.id} of {document.source} is {str(given)[:40]!r}; allowed: a number "
            "of at least 0"
        )
    return float(given)
