"""Documents compared all with all, where the index would propose more pairs than there are.

In text of a small vocabulary no shingle is rare. Two documents then share many shingles of the index, and each of these
proposes the same pair again: 400 to 1,200 ns per pair. Two coarse parities are compared in 4 to 10 ns, many at once:
documents of similar size form tiles, and a tile is compared with another one word by word. The pairs that remain are
compared by their whole parities, and then by their sets, so the result is as exact as that of the index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import naming
from codex_ml.split.duplicates.pairs import Pairs, Verified, named, reaching
from codex_ml.split.duplicates.parities import Words, allowed_bits, bits_of, differ_at_most, parities_of
from codex_ml.split.duplicates.prefixes import SLACK, least_size
from codex_ml.split.duplicates.shingle_sets import RowNumbers, StoredSets, mapped

TILE = 1 << 12  # documents; their parities are made once per pair of tiles, which then is a third of the time
STRIP = 16  # documents of one side that are compared at once with all of the other: 0.7 MiB, which stays in the cache
COARSER = 4  # times fewer bits at first: with 1 per shingle, 98 % of the pairs of similarity 0.4 are excluded at 0.7
ENOUGH = 1 << 12  # bits: more than coarse parities have
VERIFIED_AT_ONCE = 1 << 18  # pairs


@dataclass(frozen=True)
class Compared:
    """Documents in groups of one label, each sorted by size; arrays of one length.

    Attributes:
        rows: int32.
        sizes: int64, shingles of each.
        groups: (label, first place, place after the last); two documents with the same label are not compared, unless
            it is -1.
        threshold: of similarity.
    """

    rows: NDArray[np.int32]
    sizes: RowNumbers
    groups: tuple[tuple[int, int, int], ...]
    threshold: float

    @classmethod
    def of(cls, rows: RowNumbers, sizes: NDArray[np.int32], label: NDArray[np.int8], threshold: float) -> Compared:
        rows = rows[sizes[rows] > 0]
        ordered = rows[np.lexsort((rows, sizes[rows], label[rows]))].astype(np.int32)
        labels = label[ordered]
        groups = tuple(
            (name, int(np.searchsorted(labels, name)), int(np.searchsorted(labels, name, side="right")))
            for name in range(-1, int(label.max(initial=-1)) + 1)
        )
        return cls(ordered, sizes[ordered].astype(np.int64), groups, threshold)

    def pairs(self) -> int:
        """How many pairs have sizes that allow the threshold."""
        return sum(int((high - low).sum()) for _, _, low, high in self._sides())

    def tasks(self, sets: StoredSets) -> list[TileTask]:
        """One per tile; also writes the documents where `compare_tile` reads them."""
        path = _rows_file(sets.folder)
        with naming(path):
            self.rows.tofile(path)
        return [
            TileTask(sets, self.threshold, start, stop, int(low[0]), int(high[-1]))
            for start, stop, low, high in self._sides()
            if low[0] < high[-1]
        ]

    def _sides(self) -> Iterator[tuple[int, int, RowNumbers, RowNumbers]]:
        """Runs of places, and for each place the first and the last + 1 of those it is compared with."""
        largest = np.floor(self.sizes / self.threshold + SLACK).astype(np.int64)
        for number, (label, begin, end) in enumerate(self.groups):
            for other, first, after in self.groups[number + (label >= 0) :]:
                other_sizes = self.sizes[first:after]
                for start, stop in tiles_of(self.sizes, begin, end):
                    low = first + np.searchsorted(other_sizes, least_size(self.sizes[start:stop], self.threshold))
                    high = first + np.searchsorted(other_sizes, largest[start:stop], side="right")
                    if label == other:
                        low = np.arange(start + 1, stop + 1)
                    yield start, stop, low, np.maximum(low, high)


def tiles_of(sizes: RowNumbers, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Runs of places from begin to end, at most TILE long, whose parities are equally long."""
    bits = bits_of(sizes[begin:end])
    start = begin
    while start < end:
        same = begin + int(np.searchsorted(bits, bits[start - begin], side="right"))
        stop = min(start + TILE, same)
        yield start, stop
        start = stop


@dataclass(frozen=True)
class TileTask:
    """The documents of places start to stop, each with those from `low` to `high` that come after it."""

    sets: StoredSets
    threshold: float
    start: int
    stop: int
    low: int
    high: int


def compare_tile(task: TileTask) -> Verified:
    """The pairs of a tile that reach the threshold. Runs in a worker."""
    rows = mapped(_rows_file(task.sets.folder), np.int32)
    sizes = task.sets.sizes[rows[task.low : task.high]].astype(np.int64)
    found: list[Verified] = []
    waiting: list[Pairs] = []
    left: _Tile | None = None
    least_level = int(bits_of(task.sets.sizes[rows[task.stop - 1 : task.stop]])[0])
    for start, stop in tiles_of(sizes, 0, task.high - task.low):
        level = max(least_level, int(bits_of(sizes[stop - 1 : stop])[0]))
        if left is None or left.level != level:
            left = _Tile.of(task, rows, (task.start, task.stop), level)
        right = _Tile.of(task, rows, (task.low + start, task.low + stop), level)
        for pairs in _possible_pairs(left, right, task.threshold):
            waiting.append(pairs)
            if sum(map(len, waiting)) >= VERIFIED_AT_ONCE:
                found.append(_verified(task, waiting))
                waiting = []
    found.append(_verified(task, waiting))
    return Verified.of_parts(found)


def _verified(task: TileTask, pairs: list[Pairs]) -> Verified:
    return reaching(task.sets, np.sort(np.concatenate([*pairs, np.zeros(0, dtype=np.uint64)])), task.threshold)


def _rows_file(folder: Path) -> Path:
    return folder / "compared"


@dataclass(frozen=True)
class _Tile:
    """Parities of n documents.

    Attributes:
        first: place of the first.
        rows: (n,) int64.
        sizes: (n,) int64, ascending.
        level: bits of a parity.
        whole: (n, level / 64) uint64, the parities.
        coarse: (words, n) uint64, the parities in fewer bits, all first words before all second ones.
        allowed: (n,) int16, half of what `allowed_bits` of two equally large documents says, rounded down.
    """

    first: int
    rows: RowNumbers
    sizes: RowNumbers
    level: int
    whole: Words
    coarse: Words
    allowed: NDArray[np.int16]

    @classmethod
    def of(cls, task: TileTask, rows: NDArray[np.int32], places: tuple[int, int], level: int) -> _Tile:
        """The tile of these places, with parities of `level` bits."""
        here = rows[slice(*places)].astype(np.int64)
        sizes = task.sets.sizes[here].astype(np.int64)
        words = level // 64
        order = np.argsort(here)
        whole = np.empty((len(here), words), dtype=np.uint64)
        whole[order] = parities_of(task.sets, here[order], level)
        few = max(words // COARSER, 1)
        coarse = np.bitwise_xor.reduce(whole.reshape(len(here), words // few, few), axis=1)
        allowed = np.floor(sizes * ((1 - task.threshold) / (1 + task.threshold)) + SLACK)
        return cls(
            places[0], here, sizes, level, whole, np.ascontiguousarray(coarse.T),
            np.minimum(allowed, ENOUGH).astype(np.int16),
        )  # fmt: skip


def _possible_pairs(left: _Tile, right: _Tile, threshold: float) -> Iterator[Pairs]:
    """Pairs of a document of each tile, the right one at a later place, that the parities do not exclude."""
    room = STRIP * len(right.rows)
    words, counts = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.uint8)
    differ = np.empty(room, dtype=np.int16)
    least = least_size(left.sizes, threshold)
    largest = np.floor(left.sizes / threshold + SLACK).astype(np.int64)
    for start in range(0, len(left.rows), STRIP):
        stop = min(start + STRIP, len(left.rows))
        low = max(int(np.searchsorted(right.sizes, least[start])), left.first + start + 1 - right.first)
        high = int(np.searchsorted(right.sizes, largest[stop - 1], side="right"))
        if low >= high:
            continue
        shape = (stop - start, high - low)
        word, count = (array[: shape[0] * shape[1]].reshape(shape) for array in (words, counts))
        more: NDArray[np.int16] = differ[: shape[0] * shape[1]].reshape(shape)
        np.add(left.allowed[start:stop, None], right.allowed[low:high], out=more)
        np.negative(more, out=more)
        for one, other in zip(left.coarse[:, start:stop], right.coarse[:, low:high], strict=True):
            np.bitwise_count(np.bitwise_xor(one[:, None], other, out=word), out=count)
            np.add(more, count, out=more)
        i, j = np.divmod(np.flatnonzero(more <= 1), shape[1])  # 1 for what both sides were rounded down
        i, j = i + start, j + low
        later = left.first + i < right.first + j
        i, j = i[later], j[later]
        allowed = allowed_bits(left.sizes[i], right.sizes[j], threshold)
        passed = differ_at_most(left.whole, right.whole, (i, j), allowed)
        yield named(left.rows[i[passed]], right.rows[j[passed]])
