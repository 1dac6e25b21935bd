"""The shingle sets of all documents in one file, and a table of how many documents hold each shingle.

Used by: split. Rows are numbered in the order in which documents are added. Memory holds 4 bytes per document and the
table, whose size is bounded; the sets stay on disk.
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
BYTES_PER_SLOT = 8  # of text: code has a new shingle every 10 to 15 bytes
NEIGHBOURS = 1 << 13  # shingles between two sets; reading them along is cheaper than a second read

RowNumbers = NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)


def slot_bits(size: int) -> int:
    """Power of 2 of the slots of the table for `size` bytes of text; it decides the speed, never a result."""
    return min(max((size // BYTES_PER_SLOT).bit_length(), SLOTS_AT_LEAST), SLOTS_AT_MOST)


@dataclass(frozen=True)
class Block:
    """Sets of n neighbouring documents.

    Attributes:
        lengths: (n,) int32, shingles of each.
        values: (lengths.sum(),) uint64, the shingles end to end, sorted within each document.
        slots: uint32, where they count in the table, ascending and distinct.
        times: uint32, how often each slot counts.
    """

    lengths: NDArray[np.int32]
    values: Shingles
    slots: NDArray[np.uint32]
    times: NDArray[np.uint32]


def block_of(sets: Sequence[Shingles], bits: int) -> Block:
    """The sets of some documents as `ShingleSets.add` takes them."""
    values = np.concatenate([*sets, np.zeros(0, dtype=np.uint64)])
    slots = np.sort((values >> np.uint64(64 - bits)).astype(np.uint32))
    edges = np.flatnonzero(begins_of(slots))
    times = np.diff(edges, append=len(slots)).astype(np.uint32)
    return Block(np.array([len(one) for one in sets], dtype=np.int32), values, slots[edges], times)


@dataclass(frozen=True)
class StoredSets:
    """Where the sets lie, for workers; opened anew for each task."""

    folder: Path
    bits: int

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(n,) shingles per document, mapped."""
        return mapped(self.folder / "sizes", np.int32)

    @property
    def starts(self) -> RowNumbers:
        """(n,) where the set of each document begins in the file, in shingles, mapped."""
        return mapped(self.folder / "starts", np.int64)

    @property
    def counts(self) -> NDArray[np.uint32]:
        """(2^bits,) documents that hold a shingle of a slot, mapped: a bound, since two shingles can share a slot."""
        return mapped(self.folder / "counts", np.uint32)

    def read(self, start: int, stop: int) -> Shingles:
        """Shingles start to stop of the file. Read with pread: mapped pages would count as memory."""
        with naming(self.folder / "shingles"), (self.folder / "shingles").open("rb") as file:
            return _read(file.fileno(), start, stop)

    def gather(self, starts: RowNumbers, sizes: NDArray[np.int32]) -> Shingles:
        """The sets that begin at `starts`, ascending, with these sizes, end to end."""
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
    """Writer of the sets. Call `add` per block of documents, then `seal`; `delete` removes the files."""

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
        """Call once after the last `add`; then `sizes` is (n,) int32, the number of shingles of each document."""
        self.sizes = np.frombuffer(self._sizes, dtype=np.int32)
        with naming(self.folder):
            self._file.close()
            self._counts.tofile(self.folder / "counts")
            self.sizes.tofile(self.folder / "sizes")
            (np.cumsum(self.sizes, dtype=np.int64) - self.sizes).tofile(self.folder / "starts")
        self._counts = np.zeros(0, dtype=np.uint32)  # a slice would keep the whole table, up to 128 MiB


def mapped(path: Path, dtype: type[Scalar]) -> NDArray[Scalar]:
    """An array in a file, which may be empty: an empty file cannot be mapped."""
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
