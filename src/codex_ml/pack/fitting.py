"""Fit the documents of a split to rows: cut, drop or refuse records, and name chats that cannot be used.

Plain text may be divided between rows. A record (prompt and completion, or chat messages) is never divided, because its
completion would lose its prompt. `pack.too_long` says whether a record longer than a row is cut at its ends, dropped or
refused. A record without a target is dropped: its mean loss is undefined.
Used by: pack.pack_splits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document
from codex_ml.modeling.examples import (
    BadChat,
    Bools,
    DocumentEncoder,
    EncodedDocument,
    Ids,
    cut_record,
    texts_of,
)
from codex_ml.pack.config import Pack
from codex_ml.tokens.confined_tokenizer import naming_document

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

log = logging.getLogger("codex_ml")
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
    encoder = DocumentEncoder(tokenizer, settings.loss_on, name)
    bad: list[BadRecord] = []
    for row, document in enumerate(documents):
        try:
            with naming_document(name, document):
                parts = [next(encoded) for _ in texts_of([document])]
                example, reason, tokens = _fitted(document, encoder.encode(document, parts), settings, name)
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
        lines = "; ".join(_lines(bad, EMPTY))
        log.warning(
            "pack: %s: %d chats are dropped because pack.bad_chats is drop; the first are: %s", name, len(bad), lines
        )


def _fitted(document: Document, whole: EncodedDocument, settings: Pack, name: str) -> tuple[Example | None, str, int]:
    """(example, or None if the record is dropped; reason why it is cut or dropped, or ""; its tokens before a cut)."""
    ids, chat = whole.ids, whole.chat is not None
    if document.text is not None:
        return Example(ids), "", len(ids)
    if reason := whole.without_target(settings.loss_on):
        return None, reason, len(ids)
    # BOS or END is the first input of a row; of a chat, the first token is an input only, the last one a target only
    room = settings.seq_len + 1 if chat else settings.seq_len - 1
    marked, kept = whole.loss_mask(settings.loss_on), slice(None)
    if len(ids) > room:
        if settings.too_long == "fail":
            raise UserError(
                f"{name}: the record {document.id} of {document.source} has {len(ids)} tokens, but a row holds at most "
                f"{room}; raise pack.seq_len, or set pack.too_long to cut or drop"
            )
        if settings.too_long == "drop":
            return None, "too_long", len(ids)
        kept, end_is_there, reason = cut_record(whole.context, len(ids), room)
        marked = np.append(marked[:-1][kept], marked[-1] and end_is_there)
        if chat:
            marked[:1] = False
    return Example(ids[kept], None if marked.all() else marked, chat=chat), reason, len(ids)


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
