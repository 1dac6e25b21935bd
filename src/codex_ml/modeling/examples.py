"""Turn documents into token ids and a loss mask: the same code for training and for scoring.

Plain text has a loss on all tokens. A record (prompt and completion, or chat messages) has one only on what the model
is to write: the completion and its END, or what the chat template marks as the model's.
Used by: pack, evaluate.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError
from codex_ml.documents.document import FORMS, Document, opened
from codex_ml.modeling.pack_files import LossOn
from codex_ml.tokens.borders import encode_after_text, is_changed_by_joining
from codex_ml.tokens.confined_tokenizer import naming_document

if TYPE_CHECKING:
    from codex_ml.tokens.chat import EncodedChat
    from codex_ml.tokens.text_tokenizer import TextTokenizer

Ids = NDArray[np.uint32]
Bools = NDArray[np.bool_]
ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
BYTES_PER_TOKEN = 4
WHY = {"empty": "the document has no token", "untrained": "the chat has no answer of the model"}


class BadChat(UserError):
    """A chat that cannot be used. Other chats may be usable."""


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """A whole document as tokens, before it is fitted to a row.

    Attributes:
        ids: (n,) uint32, without BOS and END; a chat is complete, because its template writes its own.
        answer: (n,) bool, what the model is to write: all of a text, the completion of a record, the answers of a chat.
        chat: the conversation, for a chat.
    """

    ids: Ids
    answer: Bools
    chat: EncodedChat | None = None

    @property
    def context(self) -> int:
        """Number of tokens before the first one of an answer."""
        return int(np.argmax(self.answer)) if self.answer.any() else len(self.ids)

    def loss_mask(self, loss_on: LossOn) -> Bools:
        """Loss mask of the ids and of the END after them: (n + 1,) bool. The first token of a chat is an input only."""
        mask = np.append(self.answer if loss_on == "completions" else np.ones_like(self.answer), self.chat is None)
        mask[:1] &= self.chat is None
        return mask

    def without_target(self, loss_on: LossOn) -> str:
        """Why nothing of the document can be trained or scored, a key of `WHY`; "" if something can."""
        if self.chat is None:
            return "" if len(self.ids) else "empty"
        return "" if self.loss_mask(loss_on).any() else "untrained"


@dataclass(frozen=True, slots=True)
class Scorable:
    """A document as a sequence of tokens to score.

    Attributes:
        tokens: (n,) int64, as the model sees them; BOS and END are included, or what the chat template writes.
        scored: (n,) bool, the tokens that count as targets; never the first one.
        text: what the scored tokens spell. Control tokens (END, those of a chat template) spell nothing.
        lossless: whether the scored tokens decode to `text`.
    """

    tokens: NDArray[np.int64]
    scored: Bools
    text: str
    lossless: bool


@dataclass(frozen=True, slots=True)
class Unscored:
    """A document that has nothing to score.

    Attributes:
        reason: "empty", "untrained" or "bad_chat", as in data/packed/records.ndjson.
        why: the reason in words.
    """

    reason: str
    why: str


def texts_of(documents: Iterable[Document]) -> Iterator[str]:
    """The texts that are encoded as plain text: one per text document, two per prompt and completion, none per chat.

    Prompt and completion are encoded separately: generation encodes the prompt alone, and its ids must be a prefix.
    """
    return (text for document in documents for text in _texts(document))


def _texts(document: Document) -> tuple[str, ...]:
    if document.text is not None:
        return (document.text,)
    return () if document.messages is not None else (document.prompt or "", document.completion or "")


@dataclass(frozen=True)
class DocumentEncoder:
    """Makes documents of any form into tokens.

    Attributes:
        name: name of the split, for messages.
    """

    tokenizer: TextTokenizer
    loss_on: LossOn
    name: str

    @cached_property
    def _apart(self) -> bool:
        return is_changed_by_joining(self.tokenizer)

    def encode(self, document: Document, parts: list[Ids]) -> EncodedDocument:
        """Return a document as tokens.

        Args:
            parts: ids of `texts_of` this document; not read for a chat.

        Raises:
            BadChat: for a chat that the chat template cannot write unchanged.
            UserError: for a chat if there is no chat template.
        """
        if document.messages is not None:
            chat = _encode_chat(document, self)
            return EncodedDocument(chat.ids, chat.trained & (np.arange(len(chat.ids)) > 0), chat)
        if len(parts) == 2 and len(parts[0]) and self._apart:
            found = encode_after_text(self.tokenizer, document.completion or "")
            parts = [parts[0], np.array([number for number, _, _ in found], dtype=np.uint32)]
        answer = np.repeat([len(parts) == 1, True], [len(parts[0]), sum(map(len, parts[1:]))])
        return EncodedDocument(np.concatenate(parts), answer)


def cut_record(context: int, length: int, room: int) -> tuple[slice, bool, str]:
    """Which tokens of a record are kept.

    First the context loses tokens on its left, but at most until it fills half a row. Then the rest loses tokens on its
    right. So some trained token always stays. END after a cut rest is not trained, because the text does not end there.

    Args:
        context: number of tokens before the first trained one.
        length: number of tokens of the record.
        room: number of tokens that fit into a row.

    Returns:
        (slice of the kept tokens, whether the end of the record is kept, reason)
    """
    rest = length - context
    keep = min(context, max(room - rest, room // 2))
    kept_rest = min(rest, room - keep)
    reason = "cut_prompt" if kept_rest == rest else "cut_completion" if keep == context else "cut_both"
    return slice(context - keep, context + kept_rest), kept_rest == rest, reason


def _encode_chat(document: Document, encoder: DocumentEncoder) -> EncodedChat:
    from codex_ml.tokens.chat import encode_conversation
    from codex_ml.tokens.rendering import ChatRefused, UnstableTemplate

    messages: Any = json.loads(document.messages or "[]")
    tools: Any = json.loads(document.tools) if document.tools else None
    roles = (message.get("role") for message in messages)
    if (role := next((role for role in roles if role not in ROLES), None)) is not None:
        raise BadChat(f"the role {role[:40]!r} is not allowed; allowed: {', '.join(ROLES)}")
    try:
        try:
            return encode_conversation(encoder.tokenizer, messages, tools)
        except UnstableTemplate:
            if encoder.loss_on != "all":
                raise
            return encode_conversation(encoder.tokenizer, messages, tools, answers=False)
    except ChatRefused as error:
        raise BadChat(str(error)) from None
    except UserError as error:
        raise UserError(f"{encoder.name}: the chat {document.id} of {document.source}: {error}") from None


def scorables(
    documents: Iterable[Document], tokenizer: TextTokenizer, *, loss_on: LossOn, length: int
) -> Iterator[Scorable | Unscored]:
    """Yield each document as what is scored of it, in order: the tokens that `pack` trains, by the same code.

    Of a record that is longer than a window, the context is cut on its left as `pack` cuts it, so that the first window
    has the inputs of the row that `pack` would build; the completion stays whole. With `loss_on` all, every token is
    scored, so nothing is cut. Memory does not grow with the number of documents.

    Args:
        loss_on: `pack.loss_on` of the model; "completions" for a model that was trained elsewhere.
        length: targets per window.

    Raises:
        UserError: for a chat if there is no chat template.

    >>> list(scorables(read_documents(test), tokenizer, loss_on="completions", length=256))  # doctest: +SKIP
    """
    encoder = DocumentEncoder(tokenizer, loss_on, "evaluate")
    ahead, behind = tee(documents)
    encoded = tokenizer.encode_documents(text for document in ahead for text in _bulk_texts(document))
    for document in behind:
        try:
            with naming_document("evaluate", document):
                parts = [next(encoded) for _ in _bulk_texts(document)]
                found = encoder.encode(document, parts)
        except BadChat as error:
            yield Unscored("bad_chat", str(error))
            continue
        reason = found.without_target(loss_on)
        yield Unscored(reason, WHY[reason]) if reason else _scorable(document, found, encoder, length)


def rough_tokens(path: Path) -> int:
    """About how many tokens the texts of a Parquet file have, from their size in its footer.

    Raises:
        UserError: when the file is missing or damaged.
    """
    with opened(path) as file:
        groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
        columns = (group.column(number) for group in groups for number in range(group.num_columns))
        return sum(int(c.total_uncompressed_size) for c in columns if c.path_in_schema in FORMS) // BYTES_PER_TOKEN


def _bulk_texts(document: Document) -> tuple[str, ...]:
    """The texts of a document, and for a chat its JSON, whose ids are dropped.

    The bulk encoder reads ahead until it has enough text: through chats without text it would read to the last one.
    """
    return _texts(document) or (document.messages or "",)


def _scorable(document: Document, found: EncodedDocument, encoder: DocumentEncoder, length: int) -> Scorable:
    tokenizer, ids, mask = encoder.tokenizer, found.ids.astype(np.int64), found.loss_mask(encoder.loss_on)
    if found.chat is not None:
        runs = list(found.chat.runs(mask[:-1]))
        lossless = all(_reproduces(tokenizer, ids[:first], ids[first:last], text) for first, last, text in runs)
        text, room, tokens, scored = "".join(run for _, _, run in runs), length + 1, ids, mask[:-1]
    else:
        scored_from = found.context if encoder.loss_on == "completions" else 0
        text = (document.completion or "") if scored_from else document.content
        lossless = _reproduces(tokenizer, ids[:scored_from], ids[scored_from:], text)
        room, tokens = length - 1, np.concatenate([[tokenizer.begin], ids, [tokenizer.end]])
        scored = np.append(False, mask)
    cut = 0
    if encoder.loss_on == "completions" and len(ids) > room:
        cut = cut_record(found.context, len(ids), room)[0].start
    if cut:
        kept = np.ones(len(tokens), dtype=bool)
        begin = int(found.chat is None)  # BOS stays
        kept[begin : begin + cut] = False
        tokens, scored = tokens[kept], scored[kept]
    return Scorable(tokens, scored, text, lossless)


def _reproduces(tokenizer: TextTokenizer, before: NDArray[np.int64], ids: NDArray[np.int64], text: str) -> bool:
    """Whether `ids` decode to `text`, as the beginning of a text or after the last token before them."""
    if tokenizer.decode(ids) == text:
        return True
    last = before[-1:]
    return len(last) > 0 and tokenizer.decode(np.append(last, ids)) == tokenizer.decode(last) + text
