"""JSON Lines (https://jsonlines.org): one RFC 8259 value per line, in UTF-8. Only LF separates lines.

Used by: ingest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from codex_ml.core.conflicts import MARKERS, conflict_line
from codex_ml.core.errors import Reason, reason_of
from codex_ml.core.strict_json import parse_json
from codex_ml.documents.document import Document, Refused
from codex_ml.ingest.readers.records import record_document
from codex_ml.ingest.readers.tasks import Context, RecordsTask

BOM = b"\xef\xbb\xbf"
BLANK = b" \t\r\n"
START_BYTES = 1 << 20


class LinesTask(RecordsTask):
    """Whole lines of JSON."""

    def read(self) -> Iterator[Document | Refused]:
        """One document per line that is not blank."""
        for number, line in enumerate(self.data.split(b"\n"), self.first_line):
            if len(line) > self.limit:
                yield self.context.refused(number, Reason("the line is longer than {} bytes", self.limit))
            elif line.strip(BLANK):
                yield _record(line, number, self.context)


def _record(line: bytes, number: int, context: Context) -> Document | Refused:
    if line.startswith(BOM):
        return context.refused(number, "a byte order mark (U+FEFF) in front of the record; files were joined")
    try:
        value = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        reason = Reason("byte 0x{:02X} at offset {} of the line is not UTF-8", line[error.start], error.start)
        return context.refused(number, reason)
    except ValueError as error:
        return context.refused(number, not_json(error))
    if not isinstance(value, dict):
        return context.refused(number, f"expected an object, found {type(value).__name__}")
    return record_document(context, value, number)


def not_json(error: ValueError, start: str = "not JSON") -> Reason:
    """The reason for an error of `parse_json`: `start`, the problem, and the character, from 1, where there is one."""
    if isinstance(error, json.JSONDecodeError) and conflict_line(error.doc):
        return MARKERS
    if isinstance(error, json.JSONDecodeError):
        problem = Reason(error.msg.removesuffix(" at"))
        return Reason("{}: {} at character {}", Reason(start), problem, error.pos + 1)
    return Reason("{}: {}", Reason(start), reason_of(error))


def plan_lines(blocks: Iterator[tuple[bytes, int]], context: Context, *, limit: int) -> Iterator[LinesTask | Refused]:
    """Cut blocks into tasks at line ends. Memory holds at most one block and one line.

    Args:
        blocks: (data, bytes of the file that it took).
        limit: bytes per line; a longer line is refused and skipped.
    """
    number, taken, started, found, skipping = 1, 0, False, False, False
    held: list[bytes] = []  # pieces of an incomplete line; `bytes +=` would copy a long line once per block
    length = 0  # bytes of `held`
    for data, size in _with_whole_start(blocks):
        taken += size
        if not started:
            started = True
            data = data.removeprefix(BOM)
            if reason := _wrong_format(data):
                yield context.refused(1, reason)
                return
        if skipping:
            end = data.find(b"\n")
            if end < 0:
                continue
            data, skipping = data[end + 1 :], False
            number += 1
        cut = data.rfind(b"\n") + 1
        if cut:
            lines = b"".join((*held, memoryview(data)[:cut]))
            found = found or bool(lines.strip(BLANK))
            yield LinesTask(context, taken, number, lines, limit)
            number += lines.count(b"\n")
            held, length, data, taken = [], 0, data[cut:], 0
        held.append(data)
        length += len(data)
        if length > limit:
            found = True
            yield context.refused(number, Reason("the line is longer than {} bytes", limit))
            held, length, skipping = [], 0, True
    rest = b"".join(held)
    if rest.strip(BLANK):
        found = True
        yield LinesTask(context, taken, number, rest, limit)
    if not found:
        yield context.refused(None, "has no records", bad=False)


def _with_whole_start(blocks: Iterator[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
    """The same blocks, but the first is long enough to recognise a format: decompression gives short ones."""
    start: list[bytes] = []
    length = taken = 0
    for data, size in blocks:
        start.append(data)
        length, taken = length + len(data), taken + size
        if length >= START_BYTES:
            break
    if length:
        yield b"".join(start), taken
    yield from blocks


def _wrong_format(data: bytes) -> str:
    """The reason why a file with this start is not JSON Lines, or "". One sentence replaces an error per line."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:4]:
        return "looks like UTF-16 (or binary); JSON Lines are UTF-8 (RFC 8259 section 8.1)"
    start = data.lstrip(BLANK)
    first = start.split(b"\n", 1)[0].strip(BLANK)
    if start.startswith(b"[") and (not _parses(first) or not start[len(first) :].strip(BLANK)):
        return "a JSON array; JSON Lines has one object a line (jq -c '.[]' makes it)"
    if start.startswith(b"{") and _breaks_off(first) and (_parses(start) or _no_record(start)):
        return "one JSON value over several lines; JSON Lines has one object a line (jq -c . makes it)"
    return ""


def _breaks_off(line: bytes) -> bool:
    """Whether the only error in a line is that it ends too early."""
    try:
        parse_json(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(error.doc)
    except ValueError:  # another error
        return False
    return False


def _no_record(data: bytes) -> bool:
    """Whether there are more lines and none is a record. After a record that was cut short, a record would follow."""
    more = [line for line in data.split(b"\n")[1:] if line.strip(BLANK)]
    return bool(more) and not any(line.startswith(b"{") and _parses(line) for line in more[:1000])


def _parses(data: bytes) -> bool:
    try:
        parse_json(data)
    except (ValueError, UnicodeDecodeError):
        return False
    return True
