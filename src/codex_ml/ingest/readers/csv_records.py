"""The grammar of a CSV record (RFC 4180): where it ends, its cells, and the first mistake in it.

One regular expression matches each record, at 130 MB/s. Other libraries accept what the RFC forbids: `csv.reader` with
`strict` (140 MB/s) reads `1,say "hi"` and makes two records of `1,a<CR>b`. `pyarrow.csv` reads `1,"a"b` as `ab`, makes
one cell of everything after an open quote, and stops at the first byte that is not UTF-8. Used by: `csv_tables`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from codex_ml.core.errors import Reason

INSIDE = r'[^"]*+(?:""[^"]*+)*+'  # inside of a quoted cell; it matches runs, which is ten times faster than characters
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # surrogateescape turns a byte that is not UTF-8 into one of these
UNCLOSED = "a quote opened here is never closed"


def too_long(limit: int) -> Reason:
    """The reason for refusing a record that is longer than `limit` bytes."""
    return Reason("the record is longer than {} bytes", limit)


def end_of_whole(text: str, delimiter: str, limit: int) -> int:
    """Offset of the first record that is incomplete in `text`, or that exceeds `limit` while a quote is open."""
    record, _ = _patterns(delimiter)
    start = 0
    while (quote := text.find('"', start)) >= 0:
        start = max(start, text.rfind("\n", start, quote) + 1)  # a line without a quote is a whole record
        if match := record.match(text, start):
            end = match.end() if text[match.end() - 1] == "\n" else 0  # at the end of `text` the record may continue
        else:
            end = mistake_in(text, start, delimiter)[1]
        if not end or end - start > limit:
            return start
        start = end
    return text.rfind("\n", start) + 1 or start


def has_open_quote(text: str, delimiter: str) -> bool:
    """Whether the first record has a quote that is still open at the end of `text`."""
    return not _patterns(delimiter)[0].match(text) and mistake_in(text, 0, delimiter)[0] == UNCLOSED


def end_of_first(data: bytes, start: int, delimiter: str) -> int:
    """Offset of the end of the record that begins at `start`, or of the end of `data`."""
    text = data.decode("latin-1")
    match = _patterns(delimiter)[0].match(text, start)
    return (match.end() if match else mistake_in(text, start, delimiter)[1]) or len(data)


def records_in(data: bytes, line: int, delimiter: str, limit: int) -> Iterator[tuple[int, list[str] | str]]:
    """Split whole records into cells; blank lines are skipped.

    Args:
        line: physical line, from 1, at which `data` begins.
        limit: bytes per record.

    Yields:
        (line at which the record begins, its cells, or the reason why it is refused).
    """
    try:
        text, sound = data.decode("utf-8"), b"\0" not in data
    except UnicodeDecodeError:
        text, sound = data.decode("utf-8", "surrogateescape"), False
    record, cell = _patterns(delimiter)
    start = 0
    while start < len(text):
        quote = text.find('"', start)
        end = text.rfind("\n", start, quote) + 1 if quote >= 0 else len(text)
        if end > start:  # a fast path, because nine of ten lines have no quote
            for row in text[start:end].replace("\r\n", "\n").removesuffix("\n").split("\n"):
                if row:
                    certain = sound and len(row) * 4 <= limit and "\r" not in row
                    yield line, row.split(delimiter) if certain else _plain_cells(row, delimiter, limit)
                line += 1
            start = end
            continue
        if match := record.match(text, start):
            end = match.end()
            problem = "" if sound else _no_text(match[0])
            cells = [quoted or plain for quoted, plain in cell.findall(match[1])]
            if '""' in match[1]:  # a doubled quote; an empty quoted cell has become "", so nothing is replaced in it
                cells = [one.replace('""', '"') for one in cells]
            yield line, problem or cells
        else:
            problem, end = mistake_in(text, start, delimiter)
            end = end or len(text)
            yield line, problem
        line += text.count("\n", start, end)
        start = end


def _plain_cells(row: str, delimiter: str, limit: int) -> list[str] | str:
    """Cells of a line without quotes, or the reason why it is refused."""
    if len(row) * 4 > limit and len(row.encode("utf-8", "surrogateescape")) >= limit:  # its LF is one more byte
        return too_long(limit)
    return "a carriage return outside of quotes" if "\r" in row else _no_text(row) or row.split(delimiter)


def _no_text(record: str) -> str:
    if NOT_UTF8.search(record):
        try:
            record.encode("utf-8", "surrogateescape").decode("utf-8")
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            return Reason("byte 0x{:02X} at offset {} of the record is not UTF-8", byte, error.start)
    return "NUL characters, not text" if "\0" in record else ""


@lru_cache(maxsize=4)
def _patterns(delimiter: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """(expression for a record, expression for a cell).

    Group 1 of a record is the record without its line end. Group 1 of a cell is a quoted cell, group 2 a plain one.
    """
    d = re.escape(delimiter)
    quoted, plain = '"' + INSIDE + '"', r'[^"\r\n' + d + "]*+"
    record = f"((?:{quoted}|{plain})(?:{d}(?:{quoted}|{plain}))*+)(?:\r?\n|\\Z)"
    return re.compile(record), re.compile(f'(?:\\A|{d})(?:"({INSIDE})"|({plain}))')


def mistake_in(text: str, start: int, delimiter: str) -> tuple[str, int]:
    """(the first mistake in a record that does not match, the offset after the next LF, or 0 without an LF)."""
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
