"""Count how many shingles of a text occur in val or test, with their shingles in a sorted file.

`HeldOutShingles.write` sorts runs of a million shingles, and joins these by ranges of their first bits. `count` reads
the slots of the file that can hold the shingles of a text. Memory holds a run (8 MiB) up to five times, the table of
slots (8 MiB at most), and while the runs are joined 32 KiB for each of them.
Used by: split.augment.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import naming
from codex_ml.core.sorted_arrays import begins_of, blocks_within, find
from codex_ml.split.duplicates.shingle_sets import StoredSets
from codex_ml.split.duplicates.shingles import Shingles

RUN = 1 << 20  # shingles that are sorted at once: 8 MiB
RANGE_BITS = 12  # a run is cut into ranges by so many first bits; 4 bytes of memory per range and run
SHINGLES_PER_SLOT = 32
TOGETHER = 64  # shingles that are looked for together: `StoredSets.gather` reads up to 64 KiB around each
SLOT_BITS = (8, 20)  # the fewest and the most first bits of the table of the whole file


class HeldOutShingles:
    """The distinct shingles of held-out documents, in a folder that the caller removes.

    >>> held_out = HeldOutShingles.write(folder, (shingles_of([text])[0] for text in texts))  # doctest: +SKIP
    >>> held_out.count(shingles_of(["one two three four five"])[0])  # doctest: +SKIP
    """

    def __init__(self, stored: StoredSets, starts: NDArray[np.int64]) -> None:
        self._stored, self._starts = stored, starts

    @classmethod
    def write(cls, folder: Path, sets: Iterable[Shingles], *, run: int = RUN) -> HeldOutShingles:
        """Sort the shingles of all sets into a file.

        Args:
            folder: a new folder.
            run: shingles in memory at once; it changes no result.
        """
        folder.mkdir()
        with naming(folder):
            runs = StoredSets(folder / "runs", RANGE_BITS)
            ends, tables = _write_runs(runs.folder, sets, run)
            lengths = np.diff(tables, axis=1).sum(axis=0, dtype=np.int64)
            bits = min(max((int(lengths.sum()) // SHINGLES_PER_SLOT).bit_length(), SLOT_BITS[0]), SLOT_BITS[1])
            starts = np.zeros((1 << bits) + 1, dtype=np.int64)
            with (folder / "shingles").open("wb") as file:
                for part in blocks_within(np.cumsum(lengths), run):  # ranges of about `run` shingles
                    values = _distinct_of_range(runs, ends, tables[:, part.start], tables[:, part.stop])
                    file.write(values.data)
                    slots = (values >> np.uint64(64 - bits)).astype(np.int64)
                    edges = np.flatnonzero(begins_of(slots))
                    starts[slots[edges] + 1] += np.diff(edges, append=len(slots))
            shutil.rmtree(runs.folder)
        return cls(StoredSets(folder, bits), np.cumsum(starts))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def count(self, shingles: Shingles) -> int:
        """How many of the distinct, sorted `shingles` (n,) are held out."""
        return sum(self._count(shingles[at : at + TOGETHER]) for at in range(0, len(shingles), TOGETHER))

    def _count(self, shingles: Shingles) -> int:
        slots = (shingles >> np.uint64(64 - self._stored.bits)).astype(np.int64)
        slots = slots[begins_of(slots)]
        slots = slots[self._starts[slots] < self._starts[slots + 1]]
        if not len(slots):
            return 0
        starts = self._starts[slots]
        values = self._stored.gather(starts, (self._starts[slots + 1] - starts).astype(np.int32))
        return int((find(values, shingles) >= 0).sum())


def _write_runs(folder: Path, sets: Iterable[Shingles], run: int) -> tuple[list[int], NDArray[np.int32]]:
    """Write sorted runs one after the other.

    Returns:
        ends: offset of the end of each of r runs in the file, after a 0, in shingles.
        tables: (r, 2^RANGE_BITS + 1), where in its run each range of first bits begins, and where the last one ends.
    """
    folder.mkdir()
    ends, tables = [0], [np.zeros(0, dtype=np.int32)]
    firsts = np.arange(1, 1 << RANGE_BITS, dtype=np.uint64) << np.uint64(64 - RANGE_BITS)
    with (folder / "shingles").open("wb") as file:
        for values in _runs(sets, run):
            values.sort()
            file.write(values.data)
            ends.append(ends[-1] + len(values))
            tables.append(np.array([0, *np.searchsorted(values, firsts).tolist(), len(values)], dtype=np.int32))
    return ends, np.concatenate(tables).reshape(-1, (1 << RANGE_BITS) + 1)


def _runs(sets: Iterable[Shingles], run: int) -> Iterator[Shingles]:
    """The shingles of all sets in arrays of `run`; the last array is shorter. The caller may change each."""
    buffer, filled = np.empty(run, dtype=np.uint64), 0
    for values in sets:
        taken = 0
        while taken < len(values):
            part = values[taken : taken + run - filled]
            buffer[filled : filled + len(part)] = part
            taken, filled = taken + len(part), filled + len(part)
            if filled == run:
                yield buffer
                filled = 0
    if filled:
        yield buffer[:filled]


def _distinct_of_range(
    runs: StoredSets, ends: list[int], begins: NDArray[np.int32], stops: NDArray[np.int32]
) -> Shingles:
    """The sorted distinct shingles of all r runs between two places in each, (r,) `begins` and `stops`."""
    places = zip(ends[:-1], begins.tolist(), stops.tolist(), strict=True)
    parts = [runs.read(first + begin, first + stop) for first, begin, stop in places]
    values = np.concatenate([*parts, np.zeros(0, dtype=np.uint64)])
    values.sort()
    return values[begins_of(values)]
