"""CSV and TSV by RFC 4180, with the physical line at which each record begins.

One expression matches each record, at 130 MB/s. The readers of others take what the RFC calls an error for text:
`csv.reader` with `strict` (140 MB/s) reads `1,say "hi"` and makes two records of `1,a<CR>b`. `pyarrow.csv` reads
`1,"a"b` as `ab`, takes all that follows an open quote for one cell, and fails at the first byte that is not UTF-8.
The same expression finds where the file may be cut: counting quotes would, after one stray quote, cut inside of cells
and read their text as records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from codex_ml.core.conflicts import MARKERS, starts_with_marker
from codex_ml.core.errors import Reason
from codex_ml.core.io import parse_json
from codex_ml.documents.document import Document, Refused
from codex_ml.ingest.readers import named
from codex_ml.ingest.readers.json_lines import not_json
from codex_ml.ingest.readers.records import Context, repeated

BOM = b"\xef\xbb\xbf"
INSIDE = r'[^"]*+(?:""[^"]*+)*+'  # of a quoted cell; runs, as one character a step is ten times slower
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of such a byte
BLANKS = re.compile(rb"(?:\r?\n)*")
UNCLOSED = "a quote opened here is never closed"


@dataclass(frozen=True)
class TableTask:
    """Whole records of a file, the first of which begins at this line.

    Attributes:
        limit: bytes of a record.
    """

    context: Context
    header: tuple[str, ...]
    delimiter: str
    first_line: int
    data: bytes
    limit: int

    @property
    def file(self) -> str:
        return self.context.file

    @property
    def decoded(self) -> int:
        return len(self.data)

    @property
    def bytes(self) -> int:
        return len(self.data)

    def read(self) -> Iterator[Document | Refused]:
        """One document a record."""
        named.here.see_fields(self.header, self.context.looked_for)  # a record leaves out its empty cells
        for line, found in _records(self.data, self.first_line, self.delimiter, self.limit):
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
        return self.context.document(record, line)


def plan_table(
    blocks: Iterator[bytes], context: Context, *, delimiter: str, limit: int
) -> Iterator[TableTask | Refused]:
    """Cut blocks at the ends of records; where the blocks end makes no difference. Holds `limit` and a block at most.

    Args:
        limit: bytes of a record. A longer one is refused, and with a quote that is open by then all that follows, too.
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
            end = _end_of_first(data, start, delimiter)
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
            yield TableTask(context, header, delimiter, first_line, data, limit)
    if not found:
        yield context.refused(None, "holds no record", bad=False)


def _end_of_blanks(data: bytes) -> int:
    match = BLANKS.match(data)
    assert match is not None
    return match.end()


def _without_mark(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same without a byte order mark at the start."""
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
    """(line at which it begins, whole records or what is wrong with one that is longer than the limit)."""
    held, line, skipping = b"", 1, False
    waiting: list[bytes] = []
    size = 0  # of these
    for data in chain(blocks, (b"",)):
        waiting.append(data)
        size += len(data)
        # to match a long record again for each block would be quadratic, so it has to double, or to exceed the limit
        if not size or (data and size < min(len(held), limit + 1 - len(held))):
            continue
        held, waiting, size = b"".join((held, *waiting)), [], 0
        while held:
            if skipping:
                end = held.find(b"\n") + 1
                held, line, skipping = held[end:] if end else b"", line + bool(end), not end
                continue
            if end := _end_of_whole(held.decode("latin-1"), delimiter, limit):
                yield line, held[:end]
                line += held.count(b"\n", 0, end)
                held = held[end:]
            if len(held) <= limit:
                break
            begun = held[:limit]
            match = _patterns(delimiter)[0].match(begun.decode("latin-1"))
            if not match and _mistake(begun.decode("latin-1"), 0, delimiter)[0] == UNCLOSED:
                yield line, Reason("a quote opened here is not closed within {} bytes; the rest is not read", limit)
                return
            yield line, _too_long(limit)
            line += begun.count(b"\n")
            held, skipping = held[limit:], True
    if held:
        yield line, held


def _too_long(limit: int) -> Reason:
    return Reason("the record is longer than {} bytes", limit)


def _end_of_whole(text: str, delimiter: str, limit: int) -> int:
    """Where the first record begins of which it is not known where it ends, or that is too long and has a quote."""
    record, _ = _patterns(delimiter)
    start = 0
    while (quote := text.find('"', start)) >= 0:
        start = max(start, text.rfind("\n", start, quote) + 1)  # lines without a quote are no matter here
        if match := record.match(text, start):
            end = match.end() if text[match.end() - 1] == "\n" else 0  # else the next byte may be one more quote
        else:
            end = _mistake(text, start, delimiter)[1]
        if not end or end - start > limit:
            return start
        start = end
    return text.rfind("\n", start) + 1 or start


def _end_of_first(data: bytes, start: int, delimiter: str) -> int:
    """Where the record ends that begins at `start`, a blank line excluded."""
    text = data.decode("latin-1")
    match = _patterns(delimiter)[0].match(text, start)
    return (match.end() if match else _mistake(text, start, delimiter)[1]) or len(data)


def _header(data: bytes, delimiter: str, limit: int) -> tuple[str, ...] | str:
    """The names of the columns, or what is wrong with them."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:4]:
        return "looks like UTF-16 (or binary); UTF-8 is wanted"
    _, names = next(_records(data, 1, delimiter, limit))
    if isinstance(names, str):
        return Reason("the header: {}", Reason(names))
    if "" in names:
        return "the header has an empty name"
    if (twice := repeated(names)) is not None:
        return Reason("the header has the name {!r} twice", twice)
    return tuple(names)


def _records(data: bytes, line: int, delimiter: str, limit: int) -> Iterator[tuple[int, list[str] | str]]:
    """(line at which it begins, its cells or what is wrong with it) of every record that is not blank."""
    try:
        text, sound = data.decode("utf-8"), b"\0" not in data
    except UnicodeDecodeError:
        text, sound = data.decode("utf-8", "surrogateescape"), False
    record, cell = _patterns(delimiter)
    start = 0
    while start < len(text):
        quote = text.find('"', start)
        end = text.rfind("\n", start, quote) + 1 if quote >= 0 else len(text)
        if end > start:  # nine of ten lines have no quote
            for row in text[start:end].replace("\r\n", "\n").removesuffix("\n").split("\n"):
                if row:
                    yield (
                        line,
                        (sound and len(row) * 4 <= limit and "\r" not in row and row.split(delimiter))
                        or (_plain_cells(row, delimiter, limit)),
                    )
                line += 1
            start = end
            continue
        if match := record.match(text, start):
            end = match.end()
            problem = "" if sound else _not_text(match[0])
            cells = [quoted or plain for quoted, plain in cell.findall(match[1])]
            if '""' in match[1]:  # in a quoted cell: of an empty one nothing is left that could be replaced
                cells = [one.replace('""', '"') for one in cells]
            yield line, problem or cells
        else:
            problem, end = _mistake(text, start, delimiter)
            end = end or len(text)
            yield line, problem
        line += text.count("\n", start, end)
        start = end


def _plain_cells(row: str, delimiter: str, limit: int) -> list[str] | str:
    """Cells of a line without quotes, or what is wrong with it."""
    if len(row) * 4 > limit and len(row.encode("utf-8", "surrogateescape")) >= limit:  # more with its LF
        return _too_long(limit)
    return "a carriage return outside of quotes" if "\r" in row else _not_text(row) or row.split(delimiter)


def _not_text(record: str) -> str:
    if NOT_UTF8.search(record):
        try:
            record.encode("utf-8", "surrogateescape").decode("utf-8")
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            return Reason("byte 0x{:02X} at offset {} of the record is not UTF-8", byte, error.start)
    return "NUL characters, not text" if "\0" in record else ""


@lru_cache(maxsize=4)
def _patterns(delimiter: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A whole record (without its line end as group 1), and one cell of it (quoted as group 1, plain as group 2)."""
    d = re.escape(delimiter)
    quoted, plain = '"' + INSIDE + '"', r'[^"\r\n' + d + "]*+"
    record = f"((?:{quoted}|{plain})(?:{d}(?:{quoted}|{plain}))*+)(?:\r?\n|\\Z)"
    return re.compile(record), re.compile(f'(?:\\A|{d})(?:"({INSIDE})"|({plain}))')


def _mistake(text: str, start: int, delimiter: str) -> tuple[str, int]:
    """(the first mistake of a record that does not match, just behind the LF that follows or 0)."""
    d = re.escape(delimiter)
    cell = re.compile(f'(?:"{INSIDE}"|[^"\\r\\n{d}]*+)')
    place = start
    while True:
        match = cell.match(text, place)
        assert match is not None
        place = match.end()
        if text[place : place + 1] != delimiter:
            break
        place += 1
    rest = text[place : place + 1]
    if rest == '"' and match.group() == "":
        return UNCLOSED, 0
    reason = "a carriage return outside of quotes" if rest == "\r" else "a quote inside a cell that is not quoted"
    if match.group().startswith('"'):
        reason = "text after a closing quote"
    return reason, text.find("\n", place) + 1
