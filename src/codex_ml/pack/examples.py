"""Turn documents into token ids and a loss mask.

Plain text has a loss on all tokens, and may be divided between rows. A record (prompt and completion, or chat messages)
is never divided, because its completion would lose its prompt. `pack.too_long` says whether a record longer than a row
is cut at its ends, dropped or refused. A record without a target is dropped: its mean loss is undefined.
Used by: pack.pack_splits.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document
from codex_ml.pack.config import Pack
from codex_ml.tokens.borders import encode_after_text, is_changed_by_joining

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

log = logging.getLogger("codex_ml")
Ids = NDArray[np.uint32]
Bools = NDArray[np.bool_]
ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
EMPTY: Mapping[tuple[str, str], str] = MappingProxyType({})
MOST_BAD = 20  # the stage fails after this many bad chats, and names them
BadRecord = tuple[str, str, str]  # source, id, what is wrong


@dataclass(frozen=True, slots=True)
class Example:
    """One encoded document.

    Attributes:
        ids: (n,) uint32, the document without its BOS and END.
        trained: (n + 1,) bool, loss mask of the ids and of the END after them; None means all True.
        chat: True if the ids are complete, because a chat template writes its own begin and end tokens.
        canary: whether `codex_ml.pack.canaries` invented it.
    """

    ids: Ids
    trained: Bools | None = None
    chat: bool = False
    canary: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """A record that was cut or dropped. Listed in data/packed/records.ndjson.

    Attributes:
        row: number of the document in the split, from 0.
        source, path, id: as in `Document`.
        action: "cut" or "drop".
        reason: key of `records` in reports/pack/details.json.
        tokens: length of the record before it was cut.
    """

    row: int
    source: str
    path: str
    id: str
    action: str
    reason: str
    tokens: int


def texts_of(documents: Iterable[Document]) -> Iterator[str]:
    """The texts that are encoded as plain text: one per text document, two per prompt and completion, none per chat.

    Prompt and completion are encoded separately: generation encodes the prompt alone, and its ids must be a prefix.
    """
    return (text for document in documents for text in _texts(document))


def _texts(document: Document) -> tuple[str, ...]:
    if document.text is not None:
        return (document.text,)
    return () if document.messages is not None else (document.prompt or "", document.completion or "")


def encode_examples(
    documents: Iterable[Document],
    encoded: Iterator[Ids],
    tokenizer: TextTokenizer,
    settings: Pack,
    *,
    name: str,
    note: Callable[[Note], None],
) -> Iterator[Example]:
    """Yield the documents of a split as examples, in their order.

    Args:
        encoded: ids of `texts_of` the same documents. The caller reads the documents twice, so that the bulk encoder
            gets one stream and no document waits in memory for it.
        name: name of the split, for messages.
        note: called for every record that is cut or dropped; a dropped record gives no example.

    Raises:
        BadChats: for chats that the chat template cannot write unchanged, if `bad_chats` is fail.
        UserError: for a chat if there is no chat template; for a record longer than a row if `too_long` is fail.
    """
    apart = is_changed_by_joining(tokenizer)
    bad: list[BadRecord] = []
    for row, document in enumerate(documents):
        parts = [next(encoded) for _ in _texts(document)]
        if apart and len(parts) == 2 and len(parts[0]):
            found = encode_after_text(tokenizer, document.completion or "")
            parts[1] = np.array([number for number, _, _ in found], dtype=np.uint32)
        try:
            example, reason, tokens = _example(document, parts, tokenizer, settings, name)
        except BadChat as error:
            bad.append((document.source, document.id, str(error)))
            if settings.bad_chats == "fail" and len(bad) == MOST_BAD:
                break
            example, reason, tokens = None, "bad_chat", 0
        if reason:
            action = "cut" if example else "drop"
            note(Note(row, document.source, document.path, document.id, action, reason, tokens))
        if example:
            yield example
    if bad and settings.bad_chats == "fail":
        raise BadChats(name, bad)
    if bad:
        lines = "\n  ".join(_lines(bad, EMPTY))
        log.warning(
            "pack: %s: %d chats are dropped because pack.bad_chats is drop; the first are:\n  %s", name, len(bad), lines
        )


def _example(
    document: Document, parts: list[Ids], tokenizer: TextTokenizer, settings: Pack, name: str
) -> tuple[Example | None, str, int]:
    """(example, or None if the record is dropped; reason why it is cut or dropped, or ""; its tokens before a cut)."""
    if document.text is not None:
        return Example(parts[0]), "", len(parts[0])
    if document.messages is None:
        context, rest = parts
        ids, trained = np.concatenate([context, rest]), np.repeat([False, True], [len(context), len(rest)])
        room, chat = settings.seq_len - 1, False  # BOS or END is the first input
        if not len(ids):
            return None, "empty", 0
    else:
        ids, trained = _encode_chat(document, tokenizer, settings, name)
        room, chat = settings.seq_len + 1, True  # the first token is an input only, the last one a target only
        trained = trained & (np.arange(len(ids)) > 0)
        if not trained.any() and (settings.loss_on == "completions" or len(ids) < 2):
            return None, "untrained", len(ids)
    if too_long := len(ids) > room:
        if settings.too_long == "fail":
            raise UserError(
                f"{name}: the record {document.id} of {document.source} has {len(ids)} tokens, but a row holds at most "
                f"{room}; raise pack.seq_len, or set pack.too_long to cut or drop"
            )
        if settings.too_long == "drop":
            return None, "too_long", len(ids)
    context_end = int(np.argmax(trained)) if trained.any() else len(ids)
    kept, end_is_there, reason = _cut(context_end, len(ids), room) if too_long else (slice(None), True, "")
    tokens, ids, trained = len(ids), ids[kept], trained[kept]
    if settings.loss_on == "all":
        trained = np.ones(len(ids), dtype=bool)
    if chat:
        trained[:1] = False
    marked = np.append(trained, end_is_there and not chat)
    return Example(ids, None if marked.all() else marked, chat=chat), reason, tokens


def _cut(context: int, length: int, room: int) -> tuple[slice, bool, str]:
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


class BadChat(UserError):
    """A chat that cannot be used. Other chats may be usable."""


class BadChats(UserError):
    """Chats that cannot be used, with one line for each of the first `MOST_BAD`.

    Args:
        split: name of the split.
        bad: (source, id, what is wrong) per chat.
        places: (source, id) -> file and line, as far as they are known.
    """

    def __init__(self, split: str, bad: Sequence[BadRecord], places: Mapping[tuple[str, str], str] = EMPTY) -> None:
        self.split, self.bad = split, bad
        some = "at least " if len(bad) == MOST_BAD else ""
        head = f"{some}{len(bad)} chats cannot be used; change them, or set pack.bad_chats to drop:\n  "
        super().__init__(f"{split}: {head if len(bad) > 1 else ''}" + "\n  ".join(_lines(bad, places)))


def _lines(bad: Sequence[BadRecord], places: Mapping[tuple[str, str], str]) -> list[str]:
    at = {key: f" ({place})" for key, place in places.items()}
    return [f"the chat {id} of {source}{at.get((source, id), '')}: {why}" for source, id, why in bad[:MOST_BAD]]


def _encode_chat(document: Document, tokenizer: TextTokenizer, settings: Pack, name: str) -> tuple[Ids, Bools]:
    from codex_ml.tokens.chat import encode_chat
    from codex_ml.tokens.rendering import ChatRefused, UnstableTemplate

    messages: Any = json.loads(document.messages or "[]")
    tools: Any = json.loads(document.tools) if document.tools else None
    roles = (message.get("role") for message in messages)
    if (role := next((role for role in roles if role not in ROLES), None)) is not None:
        raise BadChat(f"the role {role[:40]!r} is not allowed; allowed: {', '.join(ROLES)}")
    try:
        return encode_chat(tokenizer, messages, tools)
    except UnstableTemplate as error:
        if settings.loss_on != "all":
            raise BadChat(str(error)) from None
        return _encode_whole(tokenizer, messages, tools)
    except ChatRefused as error:
        raise BadChat(str(error)) from None
    except UserError as error:
        raise UserError(f"{name}: the chat {document.id} of {document.source}: {error}") from None


def _encode_whole(tokenizer: TextTokenizer, messages: Any, tools: Any) -> tuple[Ids, Bools]:
    from codex_ml.tokens.chat import encode_whole
    from codex_ml.tokens.rendering import ChatRefused

    try:
        ids = encode_whole(tokenizer, messages, tools)
    except ChatRefused as error:
        raise BadChat(str(error)) from None
    return ids, np.ones(len(ids), dtype=bool)
