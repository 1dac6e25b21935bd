"""Compare all pairs of documents, if the index would propose more pairs than exist.

In text with a small vocabulary no shingle is rare. Two documents then share many postings, and each of them proposes
the same pair again: 400 to 1,200 ns per pair. Comparing two coarse parities costs only 4 to 10 ns, because many are
compared at once: documents of similar size form tiles, and two tiles are compared word by word. The remaining pairs are
compared by their whole parities, and then by their sets, so the result is as exact as that of the index.
Used by: duplicates.dedup.
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

TILE = 1 << 12  # documents; computing their parities, once per pair of tiles, takes a third of the time
STRIP = 16  # documents of one side that are compared at once with all of the other: 0.7 MiB, which fits in the cache
COARSER = 4  # coarse parities have so many times fewer bits; 1 per shingle excludes 98 % of pairs of 0.4 at 0.7
ENOUGH = 1 << 12  # more bits than a coarse parity has
VERIFIED_AT_ONCE = 1 << 18  # pairs


@dataclass(frozen=True)
class Compared:
    """Documents grouped by label, each group sorted by size; arrays of one length.

    Attributes:
        rows: int32, row numbers.
        sizes: int64, shingles per document.
        groups: (label, begin, end) per group. Two documents with the same label are not compared, unless it is -1.
        threshold: least Jaccard similarity of a pair.
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
        """Number of pairs whose sizes allow a similarity at the threshold."""
        return sum(int((high - low).sum()) for _, _, low, high in self._sides())

    def tasks(self, sets: StoredSets) -> list[TileTask]:
        """One task per tile and group. Also writes the file of rows that `compare_tile` reads."""
        path = _rows_file(sets.folder)
        with naming(path):
            self.rows.tofile(path)
        return [
            TileTask(sets, self.threshold, start, stop, int(low[0]), int(high[-1]))
            for start, stop, low, high in self._sides()
            if low[0] < high[-1]
        ]

    def _sides(self) -> Iterator[tuple[int, int, RowNumbers, RowNumbers]]:
        """Yield (start, stop, low, high): document i of start to stop is compared with documents low[i] to high[i]."""
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
    """Yield (start, stop): runs of at most TILE documents between begin and end whose parities have equal length."""
    bits = bits_of(sizes[begin:end])
    start = begin
    while start < end:
        same = begin + int(np.searchsorted(bits, bits[start - begin], side="right"))
        stop = min(start + TILE, same)
        yield start, stop
        start = stop


@dataclass(frozen=True)
class TileTask:
    """Compare each of the documents start to stop with those of the documents low to high that come after it."""

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
        first: index of the first document in `Compared`.
        rows: (n,) int64, row numbers.
        sizes: (n,) int64, ascending.
        level: bits per parity.
        whole: (n, level / 64) uint64, the parities.
        coarse: (words, n) uint64, the coarse parities, one row per word.
        allowed: (n,) int16, this document's half of `allowed_bits`, rounded down.
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
        """The tile of the documents places[0] to places[1], with parities of `level` bits."""
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
    """Yield the pairs (document of `left`, later document of `right`) that the parities do not exclude."""
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
        i, j = np.divmod(np.flatnonzero(more <= 1), shape[1])  # 1, because both halves of `allowed` are rounded down
        i, j = i + start, j + low
        later = left.first + i < right.first + j
        i, j = i[later], j[later]
        allowed = allowed_bits(left.sizes[i], right.sizes[j], threshold)
        passed = differ_at_most(left.whole, right.whole, (i, j), allowed)
        yield named(left.rows[i[passed]], right.rows[j[passed]])
