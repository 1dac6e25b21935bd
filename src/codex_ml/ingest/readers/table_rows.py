"""Make documents from rows of Arrow tables, for Parquet files and saved data sets. Used by: ingest."""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from codex_ml.core.errors import Reason, one_line, raise_disk_error
from codex_ml.documents.document import Document, Refused
from codex_ml.ingest.readers.compression import DAMAGE
from codex_ml.ingest.readers.records import record_document, repeated
from codex_ml.ingest.readers.tasks import Context

PART_BYTES = 16 << 20  # decoded bytes of a task
ROWS = 1000  # rows that are turned into Python values at a time
UNREADABLE = object()  # replaces a value that Python cannot represent


@dataclass(frozen=True)
class RowSpan:
    """Rows `start` to `start + count - 1` of a series of batches, and their decoded size in bytes."""

    start: int
    count: int
    bytes: int


def parts_of(batches: Iterable[pa.RecordBatch], most: int = 0) -> Iterator[RowSpan]:
    """Cut the rows of batches into parts of about 16 MiB, or of `most` bytes if that is more."""
    most = max(most, PART_BYTES)
    start = count = held = 0
    for batch in batches:
        size, left = decoded_size(batch), batch.num_rows
        step = max(1, left * most // max(size, most))  # a batch larger than a part is cut too
        while left:
            rows = min(step, left)
            bytes_ = size * rows // batch.num_rows
            count, held, left = count + rows, held + bytes_, left - rows
            if held + bytes_ > most:
                yield RowSpan(start, count, held)
                start, count, held = start + count, 0, 0
    if count:
        yield RowSpan(start, count, held)


def file_shares(size: int, parts: Sequence[RowSpan]) -> Iterator[int]:
    """Distribute the `size` bytes of a file over its parts, in proportion to their decoded size; the sum is `size`.

    For example, 10 bytes over parts of 1, 1 and 2 decoded bytes give 2, 3 and 5.
    """
    total = max(sum(part.bytes for part in parts), 1)
    decoded = before = 0
    for part in parts:
        decoded += part.bytes
        upto = size * decoded // total
        yield upto - before
        before = upto


def joined(one: RowSpan, other: RowSpan) -> RowSpan | None:
    """Join two parts if `other` begins the series after the series of `one`.

    Returns:
        None when `other` does not begin a series, or when both together exceed 16 MiB.
    """
    if other.start or one.bytes + other.bytes > PART_BYTES:
        return None
    return RowSpan(one.start, one.count + other.count, one.bytes + other.bytes)


def decoded_size(batch: pa.RecordBatch) -> int:
    """Decoded bytes of a batch; a text of a dictionary counts once per use."""
    return sum(_decoded_size(column) for column in batch.columns)


def _decoded_size(column: pa.Array) -> int:
    if isinstance(column, pa.DictionaryArray) and _is_text(column.type.value_type):
        lengths = pc.binary_length(column.dictionary).cast(pa.int64())
        return int(pc.sum(lengths.take(column.indices)).as_py() or 0)
    return int(column.nbytes)


def documents(
    batches: Iterable[pa.RecordBatch], part: RowSpan, first_row: int, context: Context
) -> Iterator[Document | Refused]:
    """The document of each row of a part, or its refusal.

    Args:
        first_row: row number, for messages, of the first row of the first batch.
    """
    place, end = 0, part.start + part.count
    for batch in batches:
        for start in range(max(part.start - place, 0), min(end - place, batch.num_rows), ROWS):
            rows = min(ROWS, end - place - start)
            yield from _documents(batch.slice(start, rows), first_row + place + start, context)
        place += batch.num_rows
        if place >= end:
            return


def _documents(batch: pa.RecordBatch, row: int, context: Context) -> Iterator[Document | Refused]:
    columns = {name: _values(batch.column(name)) for name in batch.schema.names}
    for offset in range(batch.num_rows):  # a batch without columns has rows too
        record = {name: _plain(values[offset]) for name, values in columns.items()}
        bad = next((name for name, value in record.items() if value is UNREADABLE), None)
        if bad is None:
            yield record_document(context, record, row + offset)
        else:
            reason = Reason("{} is not UTF-8, or a time that Python cannot represent", bad)
            yield context.refused(row + offset, reason)


def _values(column: pa.Array) -> list[Any]:
    """The Python values of a column. Arrow does not check UTF-8 and the range of dates when it reads a file."""
    try:
        return list(column.to_pylist())
    except DAMAGE:
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except DAMAGE:
        return UNREADABLE


def _plain(value: Any) -> Any:
    """The value in JSON's types. Arrow gives every struct all keys, so keys whose value is null are left out."""
    if isinstance(value, str):  # most values are texts
        return value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # pandas writes NaN for a missing number
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta | decimal.Decimal):
        return str(value)
    if value is None or value is UNREADABLE or isinstance(value, bool | int | float):
        return value
    return str(value)  # a value of an extension type, such as a UUID


def _text(data: bytes) -> str:
    """Bytes as a text in which the policy finds a secret, which it would not in hexadecimal digits."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def wrong_columns(schema: pa.Schema, context: Context) -> str:
    """The reason why the columns of a file are refused, or ""."""
    present = schema.names  # pyarrow builds a new list on each access
    if (twice := repeated(present)) is not None:
        return Reason("two columns have the name {!r}", twice)
    names = context.source.fields
    for name in (names.text, names.prompt, names.completion):
        kind = schema.field(name).type if name in present else pa.null()
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not _is_text(kind) and not pa.types.is_null(kind):
            return Reason("the column {} is {}; expected a text column", Reason(name), str(kind))
    return ""


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def damaged(error: Exception, format_name: str) -> str:
    """The reason for refusing a file that Arrow cannot read; raises an error of the disk again."""
    raise_disk_error(error)
    return Reason(f"damaged, or no {format_name} file ({{}})", one_line(error))
