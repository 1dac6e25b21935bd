"""Write documents.parquet from the spill files: worker processes sort them and encode the row groups.

A worker sorts each spill file, writes its rows in order, and returns their sizes. From the sizes the parent process
decides where row groups end. So the layout depends on the documents only, and a row group can hold rows of several
spill files. Workers encode the row groups, and the parent appends them. Used by: ingest.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codex_ml.core.parallel import ordered_map, shared_workers
from codex_ml.core.progress import Advance
from codex_ml.documents.document import ROW_GROUP_BYTES, numbers_of, row_bytes
from codex_ml.documents.parquet_join import EncodedGroup, Joiner, encoded
from codex_ml.ingest.corpus import CORPUS_SCHEMA, SPILL_SCHEMA, Spills
from codex_ml.ingest.spill_sort import sorted_tables

ALL_COLUMNS = 3  # times ROW_GROUP_BYTES: the limit of a row group over all columns
ROW_GROUP_ROWS = 1 << 16  # documents of at least 128 bytes reach ROW_GROUP_BYTES first


def write_corpus(path: Path, spills: Spills, *, workers: int = 0, advance: Advance) -> None:
    """Write the spilled documents as one Parquet file with `CORPUS_SCHEMA`.

    Args:
        workers: number of worker processes; 0 for none.
        advance: called with the bytes of content of each row group that is written.
    """
    folder = path.parent
    with shared_workers(workers), Joiner(path, CORPUS_SCHEMA) as file:
        parts = ordered_map(sort_part, spills.parts(), workers=workers, folder=folder)
        with closing(_row_groups(found for _, found in parts)) as groups:
            kept: list[Path] = []
            for group, data in ordered_map(encode_corpus_group, groups, workers=workers, folder=folder):
                file.add(data)
                advance(group.bytes)
                kept += [run.file for run in group.runs if run.file not in kept]
                for done in kept[:-1]:  # later groups begin in the last file or after it
                    done.unlink()
                kept = kept[-1:]
        for done in kept:
            done.unlink()


@dataclass(frozen=True)
class Sorted:
    """A sorted spill file of n rows, and the sizes of the rows.

    Attributes:
        file: Arrow file of the rows.
        content: (n,) int64, bytes of content.
        total: (n,) int64, bytes of all columns except `place`. `place` depends on the order of the input, and the row
            groups must not.
    """

    file: Path
    content: NDArray[np.int64]
    total: NDArray[np.int64]


def sort_part(part: Path) -> Sorted:
    """Sort a spill file into a new file and delete it. Runs in a worker."""
    file = part.with_name(f"{part.name}.sorted")
    content, total = [], []
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, SPILL_SCHEMA) as writer:
        for table in sorted_tables(part):
            writer.write_table(table)
            content.append(numbers_of(table, "size"))
            total.append(row_bytes(table.drop_columns("place")))
    return Sorted(file, np.concatenate(content), np.concatenate(total))


@dataclass(frozen=True)
class RunSlice:
    """Rows `start` to `stop - 1` of a file that `sort_part` wrote."""

    file: Path
    start: int
    stop: int


@dataclass(frozen=True)
class RowGroup:
    """Rows that become one row group; `bytes` counts their content."""

    runs: tuple[RunSlice, ...]
    bytes: int


def _row_groups(parts: Iterable[Sorted]) -> Generator[RowGroup, None, None]:
    """Cut rows into row groups. A group ends with the row that reaches one of the three limits.

    For example, with a limit of 10 bytes of content, parts of 4, 7, 2 and 9 bytes give the groups (4, 7) and (2, 9).
    """
    limits = np.array([ROW_GROUP_BYTES, ALL_COLUMNS * ROW_GROUP_BYTES, ROW_GROUP_ROWS])
    runs: list[RunSlice] = []
    held = np.zeros(3, dtype=np.int64)
    for part in parts:
        count = len(part.content)
        sums = np.stack([np.cumsum(part.content), np.cumsum(part.total), np.arange(1, count + 1)])
        start, before = 0, np.zeros(3, dtype=np.int64)
        while start < count:
            room = limits - held + before
            full = min(int(np.searchsorted(sums[i], room[i], side="left")) for i in range(3)) + 1
            stop = min(full, count)
            runs.append(RunSlice(part.file, start, stop))
            held += sums[:, stop - 1] - before
            start, before = stop, sums[:, stop - 1]
            if full <= count:
                yield RowGroup(tuple(runs), int(held[0]))
                runs, held = [], np.zeros(3, dtype=np.int64)
    if runs:
        yield RowGroup(tuple(runs), int(held[0]))


def encode_corpus_group(group: RowGroup) -> EncodedGroup:
    """Encode a row group; runs in a worker."""
    pieces = []
    for run in group.runs:
        with pa.memory_map(str(run.file)) as source, pa.ipc.open_file(source) as reader:
            batches = pa.Table.from_batches(list(_overlapping(reader, run)), reader.schema)
            pieces.append(batches.select(CORPUS_SCHEMA.names))
    return encoded(pa.concat_tables(pieces).combine_chunks())  # Parquet pages end where chunks do


def _overlapping(reader: pa.RecordBatchFileReader, run: RunSlice) -> Iterator[pa.RecordBatch]:
    """The rows of a slice, from those batches of its file that overlap it."""
    begin = 0
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)  # mapped, not copied
        end = begin + batch.num_rows
        if begin < run.stop and run.start < end:
            first = max(run.start - begin, 0)
            yield batch.slice(first, min(run.stop, end) - begin - first)
        begin = end
