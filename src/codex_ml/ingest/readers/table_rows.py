"""Rows of Arrow tables as documents: what Parquet and saved data sets share."""

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

PART_BYTES = 16 << 20  # decoded, of a task
ROWS = 1000  # made Python values at a time
UNREADABLE = object()  # in place of a value


@dataclass(frozen=True)
class RowSpan:
    """Rows `start` to `start + count - 1` of a series of batches, and their size in bytes."""

    start: int
    count: int
    bytes: int


def parts_of(batches: Iterable[pa.RecordBatch], most: int = 0) -> Iterator[RowSpan]:
    """Cut rows into parts of about 16 MiB, or `most` bytes where that is more."""
    most = max(most, PART_BYTES)
    start = count = held = 0
    for batch in batches:
        size, left = decoded_size(batch), batch.num_rows
        step = max(1, left * most // max(size, most))  # a batch that is a part and more is cut itself
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
    """The bytes of a file of `size` bytes that each part stands for, by its decoded size; together they are `size`."""
    total = max(sum(part.bytes for part in parts), 1)
    decoded = before = 0
    for part in parts:
        decoded += part.bytes
        upto = size * decoded // total
        yield upto - before
        before = upto


def joined(one: RowSpan, other: RowSpan) -> RowSpan | None:
    """Two parts as one, where the second begins the series after that of the first; None for more than 16 MiB."""
    if other.start or one.bytes + other.bytes > PART_BYTES:
        return None
    return RowSpan(one.start, one.count + other.count, one.bytes + other.bytes)


def decoded_size(batch: pa.RecordBatch) -> int:
    """Bytes of a batch, a text of a dictionary counted as often as it is used."""
    return sum(_decoded_size(column) for column in batch.columns)


def _decoded_size(column: pa.Array) -> int:
    if isinstance(column, pa.DictionaryArray) and _is_text(column.type.value_type):
        lengths = pc.binary_length(column.dictionary).cast(pa.int64())
        return int(pc.sum(lengths.take(column.indices)).as_py() or 0)
    return int(column.nbytes)


def documents(
    batches: Iterable[pa.RecordBatch], part: RowSpan, first_row: int, context: Context
) -> Iterator[Document | Refused]:
    """One document, or why there is none, for each row of a part.

    Args:
        first_row: number that the first row of the first batch has for people.
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
    for offset in range(batch.num_rows):  # also of a batch without a column
        record = {name: _plain(values[offset]) for name, values in columns.items()}
        bad = next((name for name, value in record.items() if value is UNREADABLE), None)
        if bad is None:
            yield record_document(context, record, row + offset)
        else:
            reason = Reason("{} holds no UTF-8, or a time that Python cannot represent", bad)
            yield context.refused(row + offset, reason)


def _values(column: pa.Array) -> list[Any]:
    """Python values; Arrow checks neither UTF-8 nor the range of a date when it reads a file."""
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
    """The value as JSON has it. Arrow gives every struct all keys: those that are null were not there."""
    if isinstance(value, str):  # most of all values
        return value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # what pandas writes for a missing number
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta | decimal.Decimal):
        return str(value)
    if value is None or value is UNREADABLE or isinstance(value, bool | int | float):
        return value
    return str(value)  # of an extension type, such as a UUID


def wrong_columns(schema: pa.Schema, context: Context) -> str:
    """Why the columns cannot be those of a corpus, "" when they can."""
    present = schema.names  # a new list on each call
    if (twice := repeated(present)) is not None:
        return Reason("the name {!r} stands for two columns", twice)
    names = context.source.fields
    for name in (names.text, names.prompt, names.completion):
        kind = schema.field(name).type if name in present else pa.null()
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not _is_text(kind) and not pa.types.is_null(kind):
            return Reason("the column {} is {}, a text column is wanted", Reason(name), str(kind))
    return ""


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def damaged(error: Exception, format_name: str) -> str:
    """Why a file is refused that Arrow cannot read; an error of the disk is raised again."""
    raise_disk_error(error)
    return Reason(f"damaged, or no {format_name} file ({{}})", one_line(error))
