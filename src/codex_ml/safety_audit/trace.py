"""Trace tokens of the train stream back to the document that they come from: its name, line, licence, and a command.

Used by: the parts of safety_audit whose findings name a training document.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from codex_ml.documents.document import Document, documents_of, opened
from codex_ml.modeling.rows import Rows
from codex_ml.modeling.stream_documents import StreamDocuments
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.decoded_document import BROKEN, DecodedDocument, DecodedDocuments
from codex_ml.safety_audit.evidence import shown_from, values_in
from codex_ml.safety_audit.window_places import rows_at

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

CANARY, UNKNOWN = "canary", "unknown"  # sources where no document is known


@dataclass(frozen=True)
class TextPlace:
    """Where tokens of the train stream come from.

    Attributes:
        source, path, licence: of the document, as in `Document` and `named_path`. Where no document is known, source is
            "canary" or "unknown", and the others are "".
        line, column: of the first character, from 1, where a line ends with LF; 0 if the text of the document is not
            what the tokens spell, such as that of a chat.
        evidence: the first characters, redacted; "" for a canary.
        content: SHA-256 of the whole text that the model read there, redacted. It is part of the id of a finding, so
            another text, or another value in it, is another finding. The placeholders have a key, so nobody can confirm
            a guess of a value with it.
        command: shows the row of the train stream that holds the first token; "" for a foreign model, because the
            command reads the train stream of this repository.
    """

    source: str
    path: str = ""
    licence: str = ""
    line: int = 0
    column: int = 0
    evidence: str = ""
    content: str = ""
    command: str = ""


def trace(job: AuditJob, positions: Sequence[int]) -> list[TextPlace]:
    """Find where tokens of the train stream come from. The documents are read one by one, in a pass over their file.

    Args:
        positions: offsets in the train stream.

    Returns:
        One place per position, in order; its texts are redacted.

    Raises:
        ValueError: if the train stream is not known.
    """
    rows, data = job.data.train_rows, job.data
    if rows is None:
        raise ValueError("the train stream is not known")
    if not positions:
        return []
    where = np.array(positions, dtype=np.int64)
    numbers, shown = rows.document_of(where).tolist(), rows_at(rows, where).tolist()
    stream = StreamDocuments.open(rows, data.packed) if data.packed else StreamDocuments(rows.canaries)
    row_of = {number: stream.row_of(number) for number in set(numbers)}
    in_row: dict[int, list[int]] = {}  # row of the split -> positions in it
    for position, number in zip(positions, numbers, strict=True):
        if (row := row_of[number]) is not None:
            in_row.setdefault(row, []).append(position)
    found: dict[int, TextPlace] = {}
    decoded, number_of = DecodedDocuments(job, rows), dict(zip(positions, numbers, strict=True))
    for row, document in [] if data.train is None else read_rows(data.train, in_row):
        source = _Source(job, document)
        for position in sorted(set(in_row[row])):
            found[position] = source.place(decoded.of(number_of[position]), position)
    contents = {number: _content(job, decoded.of(number)) for number in sorted(set(numbers))}
    unknown = {
        position: TextPlace(UNKNOWN, evidence=_shown(job, decoded.of(number), position))
        for position, number in sorted(number_of.items())
        if row_of[number] is not None and position not in found
    }
    places = []
    for position, number, row in zip(positions, numbers, shown, strict=True):
        command = f"codex-ml pack show --row {row}" if job.subject.training else ""
        place = TextPlace(CANARY) if row_of[number] is None else found.get(position) or unknown[position]
        places.append(replace(place, content=contents[number], command=command))
    return places


def named_path(document: Document) -> str:
    """The path of a document inside its source; a record of a table has none, and is named by its id."""
    return document.path or f"record {document.id}"


class _Source:
    """A training document, and where the text policy finds something in it."""

    def __init__(self, job: AuditJob, document: Document) -> None:
        self._job, self._content = job, document.content
        self._values = values_in(job, document.content)
        self._name = tuple(job.clean(text) for text in (document.source, named_path(document), document.licence))

    def place(self, decoded: DecodedDocument, position: int) -> TextPlace:
        (source, path, licence), content = self._name, self._content
        at = offset_of_token(decoded, position, content)
        if at is None:
            return TextPlace(source, path, licence, evidence=_shown(self._job, decoded, position))
        line, column = content.count("\n", 0, at) + 1, at - content.rfind("\n", 0, at)
        return TextPlace(source, path, licence, line, column, shown_from(self._job, content, at, self._values))


def _shown(job: AuditJob, document: DecodedDocument, position: int) -> str:
    """The first characters from a token on, where the text of the document is not what the tokens spell."""
    return shown_from(job, document.text, document.offset(position), document.values)


def _content(job: AuditJob, document: DecodedDocument) -> str:
    """SHA-256 of the redacted text of a document of the stream."""
    return hashlib.sha256(job.clean(document.text).encode("utf-8", "surrogatepass")).hexdigest()


def offset_of_token(document: DecodedDocument, position: int, content: str) -> int | None:
    """Return the offset of the first character of a token; None if `content` is not what the tokens before it spell.

    Args:
        position: offset of the token in the stream.
        content: text of the document that holds it.
    """
    at = document.offset(position)
    return at if content.startswith(document.text[:at]) else None


def token_at(rows: Rows, document: int, offset: int, content: str, tokenizer: TextTokenizer) -> int | None:
    """Return the offset in the stream of the token that holds a character; None if the tokens do not spell `content`.

    Args:
        document: its number in the stream.
        offset: of the character in `content`.
        content: text of the document.
    """
    start, stop = int(rows.starts[document]) + 1, int(rows.starts[document + 1])
    ids = rows.tokens[start:stop].astype(np.int64)
    begun = int(len(ids) > 0 and ids[0] == tokenizer.begin)

    def spelt(count: int) -> str:
        return tokenizer.decode(ids[begun : begun + count]).rstrip(BROKEN)

    # The first prefix that goes beyond the character ends with the token that holds it.
    count = bisect_right(range(len(ids) - begun + 1), offset, key=lambda count: len(spelt(count)))
    if count > len(ids) - begun or not content.startswith(spelt(count)):
        return None
    return start + begun + count - 1


def read_rows(path: Path, numbers: Collection[int]) -> Iterator[tuple[int, Document]]:
    """Read some documents of a Parquet file: row number and document. Row groups without one are not read.

    Raises:
        UserError: when the file is missing or damaged.
    """
    wanted, begin = np.array(sorted(numbers), dtype=np.int64), 0
    with opened(path) as file:
        for group in range(file.num_row_groups):
            end = begin + file.metadata.row_group(group).num_rows
            inside = wanted[(wanted >= begin) & (wanted < end)]
            if len(inside):
                table = file.read_row_group(group).take(inside - begin)
                yield from zip(inside.tolist(), documents_of(table), strict=True)
            begin = end
