"""CSV and TSV by RFC 4180, with the physical line at which each record begins.

The grammar of `csv_records` decides where the file is cut. Counting quotes does not work: after one stray quote it cuts
inside cells and reads their text as records. Used by: ingest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from codex_ml.core.conflicts import MARKERS, starts_with_marker
from codex_ml.core.errors import Reason
from codex_ml.core.strict_json import parse_json
from codex_ml.documents.document import Document, Refused
from codex_ml.ingest.readers import names_seen
from codex_ml.ingest.readers.csv_records import end_of_first, end_of_whole, has_open_quote, records_in, too_long
from codex_ml.ingest.readers.json_lines import not_json
from codex_ml.ingest.readers.records import record_document, repeated
from codex_ml.ingest.readers.tasks import Context, RecordsTask

BOM = b"\xef\xbb\xbf"
BLANKS = re.compile(rb"(?:\r?\n)*")


@dataclass(frozen=True)
class TableTask(RecordsTask):
    """Whole records of a table."""

    header: tuple[str, ...]
    delimiter: str

    def read(self) -> Iterator[Document | Refused]:
        """One document per record."""
        names_seen.here.see_fields(self.header, self.context.fields_looked_for)  # records leave out their empty cells
        for line, found in records_in(self.data, self.first_line, self.delimiter, self.limit):
            if isinstance(found, str):
                yield self.context.refused(line, found)
            elif found and starts_with_marker(found[0], headings=len(self.header) == 1):
                yield self.context.refused(line, MARKERS)
            elif len(found) != len(self.header):
                cells = "{} cell" if len(found) == 1 else "{} cells"
                yield self.context.refused(line, Reason(cells + ", the header has {}", len(found), len(self.header)))
            else:
                yield self._document(dict(zip(self.header, found, strict=True)), line)

    def _document(self, row: dict[str, str], line: int) -> Document | Refused:
        names = self.context.source.fields
        forms = (names.text, names.prompt, names.completion)
        record: dict[str, object] = {key: value for key, value in row.items() if value or key in forms}
        for name in (names.messages, names.tools):
            if name in record:
                try:
                    record[name] = parse_json(str(record[name]))
                except ValueError as error:
                    return self.context.refused(line, not_json(error, f"{name} is not JSON"))
        return record_document(self.context, record, line)


def plan_table(
    blocks: Iterator[bytes], context: Context, *, delimiter: str, limit: int
) -> Iterator[TableTask | Refused]:
    """Cut blocks into tasks at the ends of records. The size of the blocks does not change the result.

    Memory holds at most `limit` bytes and one block.

    Args:
        limit: bytes per record. A longer record is refused. If it has an open quote at the limit, so is the rest of the
            file.
    """
    header: tuple[str, ...] | None = None
    found = False
    for line, item in _pieces(_without_mark(blocks), delimiter, limit):
        if isinstance(item, str):
            found = True
            yield context.refused(line, item if header else Reason("the header: {}", Reason(item)))
            if not header:
                return
            continue
        first_line, data = line, item
        if header is None:
            start = _end_of_blanks(data)
            if start == len(data):
                continue
            end = end_of_first(data, start, delimiter)
            first_line += data.count(b"\n", 0, start)
            names = _header(data[start:end], delimiter, limit)
            if isinstance(names, str):
                yield context.refused(first_line, names)
                return
            header = names
            first_line += data.count(b"\n", start, end)
            data = data[end:]
        if _end_of_blanks(data) < len(data):
            found = True
            yield TableTask(context, len(data), first_line, data, limit, header, delimiter)
    if not found:
        yield context.refused(None, "has no records", bad=False)


def _end_of_blanks(data: bytes) -> int:
    match = BLANKS.match(data)
    assert match is not None
    return match.end()


def _without_mark(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same blocks without a byte order mark at the start."""
    start: bytes | None = b""
    for data in blocks:
        if start is None:
            yield data
        elif len(start) + len(data) >= len(BOM):
            yield (start + data).removeprefix(BOM)
            start = None
        else:
            start += data
    if start:
        yield start


def _pieces(blocks: Iterable[bytes], delimiter: str, limit: int) -> Iterator[tuple[int, bytes | str]]:
    """(line at which it begins, whole records, or the reason why a record is refused that exceeds the limit)."""
    held, line, skipping = b"", 1, False
    waiting: list[bytes] = []
    size = 0  # bytes of `waiting`
    for data in chain(blocks, (b"",)):
        waiting.append(data)
        size += len(data)
        # matching a long record once per block would be quadratic: wait until it has doubled or exceeds the limit
        if not size or (data and size < min(len(held), limit + 1 - len(held))):
            continue
        held, waiting, size = b"".join((held, *waiting)), [], 0
        while held:
            if skipping:
                end = held.find(b"\n") + 1
                held, line, skipping = held[end:] if end else b"", line + bool(end), not end
                continue
            if end := end_of_whole(held.decode("latin-1"), delimiter, limit):
                yield line, held[:end]
                line += held.count(b"\n", 0, end)
                held = held[end:]
            if len(held) <= limit:
                break
            begun = held[:limit]
            if has_open_quote(begun.decode("latin-1"), delimiter):
                yield line, Reason("a quote opened here is not closed within {} bytes; the rest is not read", limit)
                return
            yield line, too_long(limit)
            line += begun.count(b"\n")
            held, skipping = held[limit:], True
    if held:
        yield line, held


def _header(data: bytes, delimiter: str, limit: int) -> tuple[str, ...] | str:
    """The names of the columns, or the reason why the header is refused."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:4]:
        return "looks like UTF-16 (or binary); expected UTF-8"
    _, names = next(records_in(data, 1, delimiter, limit))
    if isinstance(names, str):
        return Reason("the header: {}", Reason(names))
    if "" in names:
        return "the header has an empty name"
    if (twice := repeated(names)) is not None:
        return Reason("the header has the name {!r} twice", twice)
    return tuple(names)
