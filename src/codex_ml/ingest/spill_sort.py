"""Sort one spill file of the corpus in bounded memory.

A small file is sorted at once. A large file becomes sorted runs on disk, which are then merged. More key bits would not
help: a corpus that holds one text a million times has one key (external merge sort; Knuth, The Art of Computer
Programming 3, 5.4.1). Used by: ingest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from codex_ml.documents.document import PUBLISHED, ROW_GROUP_BYTES, numbers_of, row_bytes

SPILL_BYTES = 64 << 20  # a larger spill file is sorted as runs of this size; sorting holds a run twice in memory
RUNS = 16  # runs merged at once; if there are more, the first ones are merged to a longer run
ORDER = [(name, "ascending") for name in ("key", *PUBLISHED, "place")]


def sorted_tables(file: Path) -> Iterator[pa.Table]:
    """The rows of a spill file in `ORDER`, in tables of about `ROW_GROUP_BYTES`.

    A large file is cut into sorted runs on disk, which are merged. The result depends on the file only, so any process
    may compute it. The spill file and the runs are deleted when the last table has been taken.
    """
    if file.stat().st_size <= SPILL_BYTES:
        with _opened(file) as batches:
            table = pa.Table.from_batches(batches, batches.schema)
        file.unlink()
        yield from _in_order(table, ROW_GROUP_BYTES)
        return
    runs, number = [], 0
    with _opened(file) as batches:
        for table in _loads(batches):
            runs.append(_written(file, number, _in_order(table, _block())))
            number += 1
    file.unlink()
    while len(runs) > RUNS:
        runs.append(_written(file, number, _merged(runs[:RUNS], _block())))
        runs, number = runs[RUNS:], number + 1
    yield from _merged(runs, ROW_GROUP_BYTES)


def _block() -> int:
    """Bytes per piece of a run. One piece of each of `RUNS` runs takes half of `SPILL_BYTES`."""
    return max(1, SPILL_BYTES // (2 * RUNS))


@contextmanager
def _opened(file: Path) -> Iterator[pa.RecordBatchReader]:
    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as reader:
        yield reader


def _loads(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join batches to tables of about `SPILL_BYTES`."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= SPILL_BYTES:
            table = pa.Table.from_batches(held)
            held, size = [], 0
            yield table
            del table
    if held:
        yield pa.Table.from_batches(held)


def _in_order(table: pa.Table, most: int) -> Iterator[pa.Table]:
    """The rows of a table in `ORDER`, in pieces of about `most` bytes, so that memory does not hold the table twice."""
    from pyarrow.compute import sort_indices  # takes 40 ms; workers that only read do not need it

    table = table.combine_chunks()  # once here, because `take` would combine all chunks for each piece
    order = sort_indices(table, sort_keys=ORDER)
    rows = np.frombuffer(order.buffers()[1], np.uint64, len(order))  # to_numpy takes 0.25 s: it imports pandas
    piece_of_row = np.cumsum(row_bytes(table)[rows]) // most
    edges = [*np.flatnonzero(np.diff(piece_of_row, prepend=-1)).tolist(), len(order)]
    for start, stop in pairwise(edges):
        yield table.take(order.slice(start, stop - start))


def _written(file: Path, number: int, tables: Iterable[pa.Table]) -> Path:
    """Write a sorted run beside the spill file."""
    run = file.with_name(f"{file.name}.run-{number}")
    with ExitStack() as stack:
        writer = None
        for table in tables:
            if writer is None:
                sink = stack.enter_context(pa.OSFile(str(run), "wb"))
                writer = stack.enter_context(pa.ipc.new_stream(sink, table.schema))
            writer.write_table(table)
    return run


def _merged(runs: Sequence[Path], most: int) -> Iterator[pa.Table]:
    """The rows of sorted runs in `ORDER`, in pieces of about `most` bytes; the runs are deleted.

    Memory holds one piece of each run. Let b be the smallest of the last rows of these pieces. Every row up to b is in
    memory, because a row that is still on disk follows the last row of its run's piece. So the rows in memory up to b
    come next.

        held [1 4 9] [2 3 5] [6 7 8]    b = 5    next 1 2 3 4 5    then [9] [next piece of its run] [6 7 8]
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(_opened(run)) for run in runs]
        held = [(reader, piece) for reader in readers if (piece := _next_piece(reader)) is not None]
        while held:
            bound = min(_row(piece, piece.num_rows - 1) for _, piece in held)
            counts = [_rows_up_to(bound, piece) for _, piece in held]
            ready = [piece.slice(0, count) for (_, piece), count in zip(held, counts, strict=True) if count]
            yield from _in_order(pa.concat_tables(ready), most)
            del ready
            left = [(reader, piece.slice(count)) for (reader, piece), count in zip(held, counts, strict=True)]
            refilled = ((reader, piece if piece.num_rows else _next_piece(reader)) for reader, piece in left)
            held = [(reader, piece) for reader, piece in refilled if piece is not None]
    for run in runs:
        run.unlink()


def _next_piece(reader: pa.RecordBatchReader) -> pa.Table | None:
    batch = next(iter(reader), None)
    return None if batch is None else pa.Table.from_batches([batch])


def _rows_up_to(bound: tuple[Any, ...], piece: pa.Table) -> int:
    """Number of rows of a sorted piece that come before `bound` or equal it. The key alone decides most of them."""
    keys = numbers_of(piece, "key")
    first, last = (int(np.searchsorted(keys, np.uint64(bound[0]), side)) for side in ("left", "right"))
    return first + bisect_right(range(first, last), bound, key=lambda row: _row(piece, row))


def _row(table: pa.Table, row: int) -> tuple[Any, ...]:
    """The sort key of a row, in Arrow's order: null comes last, and texts compare by bytes, as in Python."""
    key, *texts = (table.column(name)[row].as_py() for name, _ in ORDER)
    return (key, *((text is None, text or "") for text in texts))
