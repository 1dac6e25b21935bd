"""Parquet files: rows as Python values, a bounded number of bytes at a time.

A few kilobytes can stand for a terabyte (one long text in a dictionary, a million references to it), so everything
here goes by the size of what was decoded and not by what the file says of itself.
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

GROUP_LIMIT = 2 << 30  # bytes that a row group may declare; a reader has to take a column chunk of it as a whole
HELD_BYTES = 64 << 20  # of a batch, as far as the file's own sizes can tell
FEWEST_ROWS, MOST_ROWS = 64, 1000  # of a batch; 16 rows are read at 90 MB/s, 64 at 250, 1000 at 600
PAGE_LIMIT = 512 << 20  # bytes of a page, decoded; Arrow holds one twice
SUSPECT = 64 << 20  # bytes from which the values of a page must be of a length that can be documents
MOST_PARTS = 16  # of a row group; each has to decode what stands before it


@dataclass(frozen=True)
class RowRange:
    """Some rows of a file: a part of one row group, or small row groups as a whole.

    Attributes:
        first_group, last_group: row groups, both included.
        first_row: number of the first row of the first group in the file.
        batch: rows to decode at a time.
        part: rows of the groups.
    """

    first_group: int
    last_group: int
    first_row: int
    batch: int
    part: RowSpan


@dataclass(frozen=True)
class ParquetTask(ReadTask):
    """See `RowRange`."""

    rows: RowRange

    @property
    def decoded(self) -> int:
        return self.rows.part.bytes

    def read(self) -> Iterator[Document | Refused]:
        """One document a row."""
        rows = self.rows
        with unchanged(Path(self.context.path)), pq.ParquetFile(self.context.path) as file:
            batches = _batches(file, range(rows.first_group, rows.last_group + 1), rows.batch)
            yield from documents(batches, rows.part, rows.first_row, self.context)


def plan_parquet(context: Context) -> Iterator[ParquetTask | Refused]:
    """Some megabytes of rows per task. A damaged file is refused whole, so every page is read once before."""
    path = Path(context.path)
    size = path.stat().st_size
    with path.open("rb") as raw:
        refuse_pointer(raw)
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
        yield context.refused(None, "holds no row", bad=False)


def _proved(file: pq.ParquetFile, size: int) -> Iterator[RowRange]:
    """The rows of a file that is decoded to its end, each row group by itself."""
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
    """The same rows, small row groups put together: each task reads the footer, which grows with their number."""
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
    """As many as fit, were each row of average length, or as long as a whole dictionary."""
    longest = group.total_byte_size // max(group.num_rows, 1)
    for number in range(group.num_columns):
        column = group.column(number)
        if column.has_dictionary_page:
            longest = max(longest, column.total_uncompressed_size)
    return min(max(HELD_BYTES // max(longest, 1), FEWEST_ROWS), MOST_ROWS)


def _too_large(path: Path, metadata: pq.FileMetaData, max_bytes: int) -> str:
    """Why the file is not decoded, "" when it is; nothing is built from it before."""
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
