"""CSV and TSV by RFC 4180, with the physical line at which each record begins.

Python's csv module reads what the RFC calls an error, and tells the line where a record ends. So the file is cut at the
line ends that lie outside of quotes, and each record is matched by one expression.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from codex_ml.data.documents import Document, Refused
from codex_ml.data.readers.records import Context
from codex_ml.io import parse_json

BOM = b"\xef\xbb\xbf"
QUOTE = b'"'
INSIDE = rb'[^"]*+(?:""[^"]*+)*+'  # of a quoted cell; runs, as one character a step is ten times slower


@dataclass(frozen=True)
class TableTask:
    """Whole records of a file, the first of which begins at this line."""

    context: Context
    header: tuple[str, ...]
    delimiter: str
    first_line: int
    data: bytes

    @property
    def file(self) -> str:
        return self.context.file

    @property
    def bytes(self) -> int:
        return len(self.data)

    def read(self) -> Iterator[Document | Refused]:
        """One document a record."""
        for line, found in _records(self.data, self.first_line, self.delimiter):
            if isinstance(found, str):
                yield self.context.refused(line, found)
            elif len(found) != len(self.header):
                cells = "1 cell" if len(found) == 1 else f"{len(found)} cells"
                yield self.context.refused(line, f"{cells}, the header has {len(self.header)}")
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
                    return self.context.refused(line, f"{name} is not JSON: {error}")
        return self.context.document(record, line)


def plan_table(
    blocks: Iterator[bytes], context: Context, *, delimiter: str, limit: int
) -> Iterator[TableTask | Refused]:
    """Cut blocks at the line ends outside of quotes; holds one block and one record at most.

    Args:
        limit: bytes of a record; a quote that is still open then is taken for one that is never closed.
    """
    header: tuple[str, ...] | None = None
    held, line, found = b"", 1, False
    for data in blocks:
        held += data
        cut = _last_end(held)
        if cut:
            header, tasks = _tasks(held[:cut], context, header, delimiter, line)
            for task in tasks:
                found = found or isinstance(task, TableTask)
                yield task
            if header is None:
                return
            line += held.count(b"\n", 0, cut)
            held = held[cut:]
        if len(held) > limit:
            yield context.refused(line, f"a quote opened here is not closed within {limit} bytes; the rest is not read")
            return
    if held.strip(b"\r\n"):
        header, tasks = _tasks(held, context, header, delimiter, line)
        for task in tasks:
            found = found or isinstance(task, TableTask)
            yield task
        if header is None:
            return
    if not found:
        yield context.refused(None, "holds no record", bad=False)


def _last_end(data: bytes) -> int:
    """Just behind the last LF with an even number of quotes before it, or 0."""
    inside = data.count(QUOTE) % 2 == 1
    end = len(data)
    while (place := data.rfind(b"\n", 0, end)) >= 0:
        inside ^= data.count(QUOTE, place, end) % 2 == 1
        if not inside:
            return place + 1
        end = place
    return 0


def _tasks(
    data: bytes, context: Context, header: tuple[str, ...] | None, delimiter: str, line: int
) -> tuple[tuple[str, ...] | None, list[TableTask | Refused]]:
    """(the header, tasks of the rest); without a header that can be used, None and why."""
    if header is None:
        data = data.removeprefix(BOM) if line == 1 else data
        if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:4]:
            return None, [context.refused(1, "looks like UTF-16 (or binary); UTF-8 is wanted")]
        start = len(data) - len(data.lstrip(b"\r\n"))
        line += data.count(b"\n", 0, start)
        first, end = next(_spans(data, start, delimiter), ("no header", len(data)))
        if isinstance(first, str):
            return None, [context.refused(line, f"the header: {first}")]
        header = tuple(first)
        twice = next((name for name in header if header.count(name) > 1), None)
        if "" in header or twice is not None:
            what = "an empty name" if "" in header else f"the name {twice!r} twice"
            return None, [context.refused(line, f"the header has {what}")]
        line += data.count(b"\n", 0, end) - data.count(b"\n", 0, start)
        data = data[end:]
    return header, [TableTask(context, header, delimiter, line, data)] if data.strip(b"\r\n") else []


def _records(data: bytes, line: int, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """(line at which it begins, its cells or what is wrong with it) of every record that is not blank."""
    last = 0
    for found, end in _spans(data, 0, delimiter):
        if found != [""]:
            yield line, found
        line += data.count(b"\n", last, end)
        last = end


def _spans(data: bytes, start: int, delimiter: str) -> Iterator[tuple[list[str] | str, int]]:
    """(cells or what is wrong, end) of each record from `start` on."""
    record, cell = _patterns(delimiter)
    split = delimiter.encode()
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        if data.find(QUOTE, start, end) < 0:  # nine of ten lines
            row = data[start:end].removesuffix(b"\n").removesuffix(b"\r")
            cells = row.split(split)
            problem = "a carriage return outside of quotes" if b"\r" in row else ""
        elif match := record.match(data, start):
            end = match.end()
            cells = [m[1].replace(b'""', b'"') if m[1] is not None else m[2] for m in cell.finditer(match[1])]
            problem = ""
        else:
            problem, end = _what_is_wrong(data, start, delimiter)
            cells = []
        yield _decoded(cells, problem), end
        start = end


def _decoded(cells: list[bytes], problem: str) -> list[str] | str:
    if problem:
        return problem
    try:
        texts = [cell.decode("utf-8") for cell in cells]
    except UnicodeDecodeError as error:
        return f"byte 0x{error.object[error.start]:02X} at offset {error.start} of a cell is not UTF-8"
    return texts


@lru_cache(maxsize=4)
def _patterns(delimiter: str) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """A whole record (without its line end as group 1), and one cell of it (quoted as group 1, plain as group 2)."""
    d = re.escape(delimiter).encode()
    quoted, plain = rb'"' + INSIDE + rb'"', rb'[^"\r\n' + d + rb"]*+"
    record = rb"((?:" + quoted + rb"|" + plain + rb")(?:" + d + rb"(?:" + quoted + rb"|" + plain + rb"))*+)(?:\r?\n|\Z)"
    cell = rb"(?:\A|" + d + rb')(?:"(' + INSIDE + rb')"|(' + plain + rb"))"
    return re.compile(record), re.compile(cell)


def _what_is_wrong(data: bytes, start: int, delimiter: str) -> tuple[str, int]:
    """(the first mistake of a record that does not match, where to go on)."""
    d = re.escape(delimiter).encode()
    cell = re.compile(rb'(?:"' + INSIDE + rb'"|[^"\r\n' + d + rb"]*+)")
    place = start
    while True:
        match = cell.match(data, place)
        assert match is not None
        place = match.end()
        if data[place : place + 1] != delimiter.encode():
            break
        place += 1
    rest = data[place : place + 1]
    if rest == QUOTE and match.group() == b"":
        return "a quote opened here is never closed", len(data)
    reason = "a carriage return outside of quotes" if rest == b"\r" else "a quote inside a cell that is not quoted"
    if match.group().startswith(QUOTE):
        reason = "text after a closing quote"
    return reason, data.find(b"\n", place) + 1 or len(data)
