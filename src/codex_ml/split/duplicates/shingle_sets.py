"""Store the shingle sets of all documents in one file, with a table that counts the documents per shingle.

Rows are numbered in the order in which documents are added. Memory holds 4 bytes per document and the table, whose size
is bounded. The sets stay on disk. Used by: split.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import naming
from codex_ml.core.sorted_arrays import begins_of, ranges
from codex_ml.split.duplicates.shingles import Shingles

SLOTS_AT_LEAST, SLOTS_AT_MOST = 16, 25  # powers of 2; 4 bytes per slot, so at most 128 MiB
BYTES_PER_SLOT = 8  # bytes of text per slot: code has a new shingle every 10 to 15 bytes
NEIGHBOURS = 1 << 13  # up to so many shingles between two sets, one read is cheaper than two

RowNumbers = NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)


def slot_bits(size: int) -> int:
    """Binary logarithm of the number of slots for `size` bytes of text. It changes the speed, never a result."""
    return min(max((size // BYTES_PER_SLOT).bit_length(), SLOTS_AT_LEAST), SLOTS_AT_MOST)


@dataclass(frozen=True)
class Block:
    """The sets of n consecutive documents.

    Attributes:
        lengths: (n,) int32, shingles per document.
        values: (lengths.sum(),) uint64, all shingles, one document after the other, sorted within each document.
        slots: (k,) uint32, slots of these shingles in the table, ascending and distinct.
        times: (k,) uint32, number of shingles per slot.
    """

    lengths: NDArray[np.int32]
    values: Shingles
    slots: NDArray[np.uint32]
    times: NDArray[np.uint32]


def block_of(sets: Sequence[Shingles], bits: int) -> Block:
    """The sets of some documents, as `ShingleSets.add` expects them."""
    values = np.concatenate([*sets, np.zeros(0, dtype=np.uint64)])
    slots = np.sort((values >> np.uint64(64 - bits)).astype(np.uint32))
    edges = np.flatnonzero(begins_of(slots))
    times = np.diff(edges, append=len(slots)).astype(np.uint32)
    return Block(np.array([len(one) for one in sets], dtype=np.int32), values, slots[edges], times)


@dataclass(frozen=True)
class StoredSets:
    """Read access to the stored sets, for workers. Each access opens the files again."""

    folder: Path
    bits: int

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(n,) int32, shingles per document, memory-mapped."""
        return mapped(self.folder / "sizes", np.int32)

    @property
    def starts(self) -> RowNumbers:
        """(n,) int64, offset of the set of each document in the file, in shingles, memory-mapped."""
        return mapped(self.folder / "starts", np.int64)

    @property
    def counts(self) -> NDArray[np.uint32]:
        """(2^bits,) uint32, memory-mapped: documents that hold a shingle, by slot.

        An upper bound, because two shingles can share a slot.
        """
        return mapped(self.folder / "counts", np.uint32)

    def read(self, start: int, stop: int) -> Shingles:
        """Shingles start to stop of the file, read with pread: memory-mapped pages would count as memory."""
        with naming(self.folder / "shingles"), (self.folder / "shingles").open("rb") as file:
            return _read(file.fileno(), start, stop)

    def gather(self, starts: RowNumbers, sizes: NDArray[np.int32]) -> Shingles:
        """The sets with these offsets and sizes, one after the other. `starts` must be ascending."""
        stops = starts + sizes
        cuts = np.flatnonzero(starts[1:] - stops[:-1] > NEIGHBOURS) + 1
        result, filled = np.empty(int(sizes.sum()), dtype=np.uint64), 0
        with naming(self.folder / "shingles"), (self.folder / "shingles").open("rb") as file:
            for first, last in zip([0, *cuts.tolist()], [*cuts.tolist(), len(starts)], strict=True):
                base = int(starts[first])
                data = _read(file.fileno(), base, int(stops[last - 1]))
                lengths = sizes[first:last]
                places = ranges(starts[first:last] - base, lengths)
                result[filled : filled + len(places)] = data[places]
                filled += len(places)
        return result


class ShingleSets:
    """Writer of the sets. Call `add` per block of documents, then `seal` once. `delete` removes the files."""

    def __init__(self, folder: Path, *, bits: int = SLOTS_AT_LEAST) -> None:
        folder.mkdir(parents=True)
        self.folder, self.bits = folder, bits
        self.stored = StoredSets(folder, bits)
        self._file = (folder / "shingles").open("wb")
        self._counts = np.zeros(1 << bits, dtype=np.uint32)
        self._sizes = bytearray()
        self.sizes = np.zeros(0, dtype=np.int32)

    def __enter__(self) -> ShingleSets:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with naming(self.folder):
            self._file.close()

    def delete(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder)

    def add(self, block: Block) -> None:
        """Add the next documents."""
        self._sizes += block.lengths.tobytes()
        with naming(self.folder):
            self._file.write(block.values.data)
        self._counts[block.slots] += block.times

    def seal(self) -> None:
        """Finish the files. Call once after the last `add`; then `sizes` is (n,) int32, shingles per document."""
        self.sizes = np.frombuffer(self._sizes, dtype=np.int32)
        with naming(self.folder):
            self._file.close()
            self._counts.tofile(self.folder / "counts")
            self.sizes.tofile(self.folder / "sizes")
            (np.cumsum(self.sizes, dtype=np.int64) - self.sizes).tofile(self.folder / "starts")
        self._counts = np.zeros(0, dtype=np.uint32)  # a new array: a slice would keep the whole table, up to 128 MiB


def mapped(path: Path, dtype: type[Scalar]) -> NDArray[Scalar]:
    """Memory-map an array in a file. An empty file, which cannot be mapped, gives an empty array."""
    if not path.stat().st_size:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)


def _read(handle: int, start: int, stop: int) -> Shingles:
    parts, at = [], 8 * start
    while at < 8 * stop:  # one call reads at most 2 GiB
        parts.append(os.pread(handle, 8 * stop - at, at))
        if not parts[-1]:
            raise OSError("the file of shingles is too short")
        at += len(parts[-1])
    return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), dtype=np.uint64)
