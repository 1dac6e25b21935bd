"""Writing the corpus in an order that only the contents decide.

Documents arrive in the order of files and lines. They are cut by the hash of their content into spill files. Each of
these is sorted and appended to the result: shuffled lines, other shards or more processes give the same bytes (an
external distribution sort; Knuth, The Art of Computer Programming 3, 5.4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codex_ml.data.documents import (
    ROW_GROUP_BYTES,
    SCHEMA,
    Document,
    number_column,
    numbers_of,
    parquet_writer,
    table_of,
    text_column,
)
from codex_ml.data.signals import Signals, measure
from codex_ml.data.spill_sort import sorted_tables
from codex_ml.progress import Advance

SPILL_BITS = 6  # of the key; 64 spill files
HELD_BYTES = 32 << 20  # before they are cut; 64 pieces of 4 MiB cost more to write than the 4 MiB to make
SIGNALS = tuple(field.name for field in fields(Signals))
_TYPES = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
CORPUS_SCHEMA = pa.schema(
    [
        *SCHEMA,
        pa.field("place", pa.large_string()),
        pa.field("size", pa.int64()),  # bytes of content
        *(pa.field(field.name, _TYPES[str(field.type)]) for field in fields(Signals)),
    ]
)
SPILL_SCHEMA = CORPUS_SCHEMA.append(pa.field("key", pa.uint64()))


def measured(documents: Sequence[Document]) -> pa.Table:
    """Documents with their signals, and the hash of their content that orders the corpus; `SPILL_SCHEMA`."""
    contents = [document.content for document in documents]
    keys = [int.from_bytes(hashlib.sha256(content.encode("utf-8")).digest()[:8], "big") for content in contents]
    signals = measure(contents, [document.language for document in documents])
    columns = {
        "place": text_column([document.place for document in documents]),
        "size": number_column(signals["bytes"]),
        **{name: number_column(column) for name, column in signals.items()},
        "key": number_column(np.array(keys, dtype=np.uint64)),
    }
    table = table_of(documents)
    for name, column in columns.items():
        table = table.append_column(SPILL_SCHEMA.field(name), column)
    return table


class Spills:
    """Spill files by the leading bits of the key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: list[pa.Table] = []
        self._held_bytes = 0
        self._stack = ExitStack()
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}
        folder.mkdir(parents=True)

    def add(self, table: pa.Table) -> None:
        """Take a table in; it is cut into the spill files when enough have come together to make large pieces."""
        self._held.append(table)
        self._held_bytes += table.nbytes
        if self._held_bytes >= HELD_BYTES:
            self._cut()

    def _cut(self) -> None:
        if not self._held:
            return
        table = pa.concat_tables(self._held)
        self._held, self._held_bytes = [], 0
        for number, piece in _pieces(table):
            self._writer(number).write_table(piece)

    def _writer(self, number: int) -> pa.RecordBatchStreamWriter:
        if number not in self._writers:
            sink = self._stack.enter_context(pa.OSFile(str(self.folder / str(number)), "wb"))
            self._writers[number] = self._stack.enter_context(pa.ipc.new_stream(sink, SPILL_SCHEMA))
        return self._writers[number]

    def close(self) -> None:
        self._stack.close()

    def parts(self) -> list[Path]:
        """The spill files, complete, in the order of their keys; `spill_sort.sorted_tables` reads each."""
        self._cut()
        self.close()
        return [self.folder / str(number) for number in sorted(self._writers)]

    def sorted_tables(self) -> Iterator[pa.Table]:
        """All rows in the order of the keys, in tables of bounded size. Each file is deleted once it is read."""
        for part in self.parts():
            yield from sorted_tables(part)


def _pieces(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """(number of the spill file, its rows) of a table."""
    part = numbers_of(table, "key") >> np.uint64(64 - SPILL_BITS)
    order = np.argsort(part, kind="stable")
    table, part = table.take(number_column(order)).combine_chunks(), part[order]
    edges = np.searchsorted(part, np.arange((1 << SPILL_BITS) + 1))
    for number in np.unique(part).tolist():
        yield number, table.slice(edges[number], edges[number + 1] - edges[number])


@contextmanager
def spilling(folder: Path) -> Iterator[Spills]:
    """Spill files below `folder`, closed whatever happens."""
    spills = Spills(folder)
    try:
        yield spills
    finally:
        spills.close()


def write_corpus(path: Path, spills: Spills, *, advance: Advance) -> None:
    """Write the spilled documents as one Parquet file with `CORPUS_SCHEMA`; `advance` is told the bytes."""
    with parquet_writer(path, CORPUS_SCHEMA) as writer, closing(_ahead(row_groups(spills.sorted_tables()))) as tables:
        for table in tables:
            writer.write_table(table)
            advance(int(np.sum(numbers_of(table, "size"))))


def row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of about `ROW_GROUP_BYTES`, whatever tables they came in."""
    held: list[pa.Table] = []
    room = ROW_GROUP_BYTES
    for table in tables:
        total = np.cumsum(numbers_of(table, "size"))
        start = 0
        while start < len(total):
            before = int(total[start - 1]) if start else 0
            stop = int(np.searchsorted(total, before + room, side="left")) + 1  # the row that fills it belongs to it
            held.append(table.slice(start, stop - start).select(CORPUS_SCHEMA.names))
            room -= int(total[min(stop, len(total)) - 1]) - before
            start = stop
            if room <= 0:
                yield pa.concat_tables(held).combine_chunks()  # Parquet pages end where chunks do
                held, room = [], ROW_GROUP_BYTES
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _ahead(items: Iterator[pa.Table]) -> Generator[pa.Table, None, None]:
    """The same items, each made by a thread while the one before is used; Arrow sorts and writes without the GIL."""
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(next, items, None)
        while (item := future.result()) is not None:
            future = thread.submit(next, items, None)
            yield item


class SeenIds:
    """Ids of a file and the contents they stand for: sorted runs of hashes, 16 bytes an id (a log-structured merge)."""

    def __init__(self) -> None:
        self._runs: list[NDArray[np.void]] = []

    def repeated(self, ids: Sequence[str], keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Add ids and tell for each whether it was there before with another content.

        Args:
            keys: (len(ids),) uint64, hash of each one's content.
        """
        digests = (hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest() for name in ids)
        new = np.zeros(len(ids), dtype=[("id", "<u8"), ("key", "<u8")])
        new["id"], new["key"] = np.frombuffer(b"".join(digests), dtype="<u8"), keys
        names, first, which = np.unique(new["id"], return_index=True, return_inverse=True)
        added = new[first]  # sorted by id
        earliest = added["key"].copy()
        fresh = np.ones(len(added), dtype=bool)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run["id"], names), len(run) - 1)
            there = run["id"][place] == names
            earliest[there] = run["key"][place[there]]
            fresh &= ~there
        added = added[fresh]
        while self._runs and len(self._runs[-1]) <= len(added):
            merged = np.concatenate([self._runs.pop(), added])
            added = merged[np.argsort(merged["id"], kind="stable")]
        if len(added):
            self._runs.append(added)
        return np.asarray(new["key"] != earliest[which])
