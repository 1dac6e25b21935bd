"""Parquet files: rows as Python values, a bounded number of bytes at a time.

A few kilobytes can encode a terabyte (one long text in a dictionary, and a million references to it). So the limits
here apply to the decoded size, not to the sizes that the file declares. Used by: ingest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from codex_ml.core.errors import Reason
from codex_ml.documents.document import Document, Refused
from codex_ml.ingest.readers.compression import BOMB_BYTES, DAMAGE, refuse_bomb, refuse_pointer, unchanged
from codex_ml.ingest.readers.parquet_footer import footer_kills
from codex_ml.ingest.readers.parquet_pages import pages
from codex_ml.ingest.readers.records import INDEX
from codex_ml.ingest.readers.table_rows import (
    RowSpan,
    damaged,
    documents,
    file_shares,
    joined,
    parts_of,
    wrong_columns,
)
from codex_ml.ingest.readers.tasks import LINE_FACTOR, Context, ReadTask

GROUP_LIMIT = 2 << 30  # bytes that a row group may declare; a reader takes a whole column chunk into memory
HELD_BYTES = 64 << 20  # bytes of a batch, estimated from the sizes that the file declares
FEWEST_ROWS, MOST_ROWS = 64, 1000  # rows of a batch; batches of 16 are read at 90 MB/s, of 64 at 250, of 1000 at 600
PAGE_LIMIT = 512 << 20  # bytes of a decoded page; Arrow holds a page twice
SUSPECT = 64 << 20  # in a larger page, the average value must not exceed LINE_FACTOR times max_bytes
MOST_PARTS = 16  # parts of a row group; the task of a part also decodes the rows before it


@dataclass(frozen=True)
class RowRange:
    """Some rows of a file: a part of one row group, or several small row groups.

    Attributes:
        first_group, last_group: indices of the row groups; the last one is included.
        first_row: number, in the file, of the first row of the first group.
        batch: rows to decode at a time.
        part: the rows; `part.start` counts from the first row of the first group.
    """

    first_group: int
    last_group: int
    first_row: int
    batch: int
    part: RowSpan


@dataclass(frozen=True)
class ParquetTask(ReadTask):
    """Some rows of a Parquet file, a `RowRange`."""

    rows: RowRange

    @property
    def decoded(self) -> int:
        return self.rows.part.bytes

    def read(self) -> Iterator[Document | Refused]:
        """One document per row."""
        rows = self.rows
        with unchanged(Path(self.context.path)), pq.ParquetFile(self.context.path) as file:
            batches = _batches(file, range(rows.first_group, rows.last_group + 1), rows.batch)
            yield from documents(batches, rows.part, rows.first_row, self.context)


def plan_parquet(context: Context) -> Iterator[ParquetTask | Refused]:
    """Cut a file into tasks of about 16 MiB of rows.

    A damaged file is refused as a whole, so every page is decoded once before the first task.
    """
    path = Path(context.path)
    size = path.stat().st_size
    with path.open("rb") as raw:
        refuse_pointer(raw)
    if killing := footer_kills(path):
        yield context.refused(None, killing)
        return
    proved: list[RowRange] = []
    try:
        with pq.ParquetFile(path) as file:
            problem = wrong_columns(file.schema_arrow, context) or _too_large(path, file.metadata, context.max_bytes)
            if not problem:
                proved = list(_together(_proved(file, size)))
    except DAMAGE as error:
        problem = damaged(error, "Parquet")
    if problem:
        yield context.refused(None, problem)
        return
    for rows, share in zip(proved, file_shares(size, [rows.part for rows in proved]), strict=True):
        yield ParquetTask(context, share, rows)
    if not proved:
        yield context.refused(None, "has no rows", bad=False)


def _proved(file: pq.ParquetFile, size: int) -> Iterator[RowRange]:
    """Decode a file to its end and cut each of its row groups into parts.

    Raises:
        Broken: for a decompression bomb; also the errors of `DAMAGE`.
    """
    first_row = total = 0
    for group in range(file.metadata.num_row_groups):
        metadata = file.metadata.row_group(group)
        batch = _rows_of_a_batch(metadata)
        most = metadata.total_byte_size // MOST_PARTS
        for part in parts_of(_batches(file, (group,), batch), most):
            total += part.bytes
            refuse_bomb(total, size, BOMB_BYTES)
            yield RowRange(group, group, first_row, batch, part)
        first_row += metadata.num_rows


def _together(parts: Iterable[RowRange]) -> Iterator[RowRange]:
    """Join small row groups: each task reads the footer, and the footer grows with the number of row groups."""
    held: RowRange | None = None
    for rows in parts:
        part = None if held is None else joined(held.part, rows.part)
        if held is not None and part is not None:
            batch = min(held.batch, rows.batch)
            held = RowRange(held.first_group, rows.last_group, held.first_row, batch, part)
            continue
        if held is not None:
            yield held
        held = rows
    if held is not None:
        yield held


def _batches(file: pq.ParquetFile, groups: Sequence[int], rows: int) -> Iterator[pa.RecordBatch]:
    columns = [name for name in file.schema_arrow.names if not INDEX.match(name)]
    yield from file.iter_batches(rows, row_groups=list(groups), columns=columns, use_threads=False)


def _rows_of_a_batch(group: pq.RowGroupMetaData) -> int:
    """Rows that fit into HELD_BYTES if each has the average length, or that of the largest column with a dictionary."""
    longest = group.total_byte_size // max(group.num_rows, 1)
    for number in range(group.num_columns):
        column = group.column(number)
        if column.has_dictionary_page:
            longest = max(longest, column.total_uncompressed_size)
    return min(max(HELD_BYTES // max(longest, 1), FEWEST_ROWS), MOST_ROWS)


def _too_large(path: Path, metadata: pq.FileMetaData, max_bytes: int) -> str:
    """The reason why a file is too large to decode, or ""; only its footer and page headers are read."""
    for number in range(metadata.num_row_groups):
        size = metadata.row_group(number).total_byte_size
        if size > GROUP_LIMIT:
            most = f"at most {GROUP_LIMIT >> 30} GiB are read at once"
            return Reason("row group {} declares {} bytes; " + most, number, size)
    for page in pages(path, metadata):
        if page.bytes > PAGE_LIMIT:
            most = f"at most {PAGE_LIMIT >> 20} MiB are decoded at once; write it with a smaller write_batch_size"
            return Reason("a page declares {} bytes; " + most, page.bytes)
        if page.bytes > SUSPECT and page.bytes > LINE_FACTOR * max_bytes * max(page.values, 1):
            longer = "on average, which no document may have"
            return Reason("a page declares values of {} bytes " + longer, page.bytes // max(page.values, 1))
    return ""
