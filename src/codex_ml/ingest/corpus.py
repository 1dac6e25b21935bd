"""The corpus in an order that depends on the contents only: the spill files of an external sort.

Documents arrive in the order of files and lines. The hash of their content distributes them over spill files. Each
spill file is then sorted and appended to the corpus. So shuffled lines, other shards or more processes give the same
bytes (external distribution sort; Knuth, The Art of Computer Programming 3, 5.4). Used by: ingest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codex_ml.core.errors import naming
from codex_ml.core.sorted_arrays import find
from codex_ml.documents.document import (
    SCHEMA,
    Document,
    number_column,
    numbers_of,
    table_of,
    text_column,
)
from codex_ml.documents.signals import Signals
from codex_ml.ingest.text_signals import signals_of_texts

SPILL_BITS = 6  # leading bits of the key that choose a spill file: 64 files
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
    """Documents as a table with `SPILL_SCHEMA`: with signals, and the hash of the content that orders the corpus."""
    contents = [document.content for document in documents]
    keys = [int.from_bytes(hashlib.sha256(content.encode("utf-8")).digest()[:8], "big") for content in contents]
    signals = signals_of_texts(contents, [document.language for document in documents])
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


def pieces_of(table: pa.Table) -> dict[int, bytes]:
    """Cut a table with `SPILL_SCHEMA` by the leading bits of its key. Runs in a worker.

    Rows of one piece keep their order. With 1 bit in place of 6, three rows with the keys 0x9.., 0x1.. and 0x8.. would
    give {0: (row 1), 1: (row 0, row 2)}.

    Returns:
        number of a spill file -> Arrow IPC message; no entry for a file that gets no row.
    """
    part = numbers_of(table, "key") >> np.uint64(64 - SPILL_BITS)
    order = np.argsort(part, kind="stable")
    [batch] = table.take(number_column(order)).combine_chunks().to_batches() or [None]
    edges = np.searchsorted(part[order], np.arange((1 << SPILL_BITS) + 1)).tolist()
    return {
        number: bytes(batch.slice(start, stop - start).serialize())
        for number, (start, stop) in enumerate(pairwise(edges))
        if start < stop
    }


def table_of_pieces(pieces: Mapping[int, bytes]) -> pa.Table:
    """Join the pieces of `pieces_of` again; rows are in the order of the spill files."""
    return pa.Table.from_batches(
        [pa.ipc.read_record_batch(piece, SPILL_SCHEMA) for _, piece in sorted(pieces.items())], SPILL_SCHEMA
    )


class Spills:
    """Spill files in a folder, one per value of the key's leading bits: streams of Arrow IPC messages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._files: dict[int, IO[bytes]] = {}
        folder.mkdir(parents=True)

    def add(self, pieces: Mapping[int, bytes]) -> None:
        """Append pieces, by the number of their spill file, to those files at once. See `pieces_of`."""
        for number, piece in pieces.items():
            file = self._files.get(number)
            if file is None:
                file = self._stack.enter_context((self.folder / str(number)).open("wb"))
                file.write(SPILL_SCHEMA.serialize())
                self._files[number] = file
            with naming(file.name):
                file.write(piece)

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        with naming(self.folder):
            self._stack.close()

    def parts(self) -> list[Path]:
        """Close the spill files and return them in the order of their keys; `spill_sort.sorted_tables` reads each."""
        self.close()
        return [self.folder / str(number) for number in sorted(self._files)]


@contextmanager
def spilling(folder: Path) -> Iterator[Spills]:
    """Open spill files in a new folder, and close them at the end of the block, also after an error."""
    spills = Spills(folder)
    try:
        yield spills
    finally:
        spills.close()


def id_hashes(ids: Sequence[str]) -> NDArray[np.uint64]:
    """Hash ids to 64 bits each, for `SeenIds`: (n,) uint64."""
    digests = (hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest() for name in ids)
    return np.frombuffer(b"".join(digests), dtype="<u8")


class SeenIds:
    """The ids that a file has used, each with the hash of its content; 16 bytes per id.

    They are sorted runs that are merged as they grow (a log-structured merge).
    """

    def __init__(self) -> None:
        self._runs: list[NDArray[np.void]] = []

    def repeated(self, ids: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Add ids, and return for each whether it occurred before with another content: (n,) bool.

        For example, ids [7, 7, 8] with keys [1, 2, 3] give [False, True, False]; then id [8] with key [4] gives [True].

        Args:
            ids: (n,) uint64, from `id_hashes`.
            keys: (n,) uint64, hash of each content.
        """
        new = np.zeros(len(ids), dtype=[("id", "<u8"), ("key", "<u8")])
        new["id"], new["key"] = ids, keys
        names, first, which = np.unique(new["id"], return_index=True, return_inverse=True)
        added = new[first]  # sorted by id
        earliest = added["key"].copy()
        fresh = np.ones(len(added), dtype=bool)
        for run in self._runs:
            index = find(run["id"], names)
            earliest[index >= 0] = run["key"][index[index >= 0]]
            fresh &= index < 0
        added = added[fresh]
        while self._runs and len(self._runs[-1]) <= len(added):
            merged = np.concatenate([self._runs.pop(), added])
            added = merged[np.argsort(merged["id"], kind="stable")]
        if len(added):
            self._runs.append(added)
        return np.asarray(new["key"] != earliest[which])
