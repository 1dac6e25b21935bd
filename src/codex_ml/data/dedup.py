"""Near-duplicates in constant memory: MinHash proposes pairs, band by band, and exact Jaccard similarity decides.

Of the documents in a given order, one is kept exactly when it is no near-duplicate of one that is kept before it. So
every dropped document names a kept one that it resembles, and chains (a ~ b ~ c) do not weld a corpus into one family.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from codex_ml.data.shingles import BANDS, MinHash, Shingles, jaccard
from codex_ml.errors import naming
from codex_ml.progress import Advance

LEADERS = 32  # in a bucket, each document is compared with this many before it; the rest waits for the next round
REMEMBERED = 1 << 22  # pairs that are known to be verified; forgetting them costs time only
CACHED_SETS = 64

Rows = NDArray[np.int64]


class Sketches:
    """Shingles and band keys of all documents, in files; what stays in memory is 16 bytes a document.

    Rows are numbered in the order in which they are added.
    """

    def __init__(self, folder: Path, seeds: Sequence[int]) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._sets = (folder / "shingles").open("w+b")
        self._bands = {seed: (folder / f"bands-{seed}").open("w+b") for seed in seeds}
        self._blocks: list[int] = []
        self._lengths = bytearray()
        self._starts = self.sizes = np.zeros(0, dtype=np.int64)
        self._cache: dict[int, Shingles] = {}

    def __enter__(self) -> Sketches:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with naming(self.folder):
            for handle in (self._sets, *self._bands.values()):
                handle.close()

    def delete(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder)

    def add(self, lengths: NDArray[np.int64], values: Shingles, keys: dict[int, NDArray[np.uint64]]) -> None:
        """Add a block of documents.

        Args:
            lengths: (n,) shingles of each document.
            values: (lengths.sum(),) uint64, their shingles end to end.
            keys: by seed, (n, BANDS) uint64.
        """
        self._lengths += lengths.tobytes()
        with naming(self.folder):
            self._sets.write(values.tobytes())
            for seed, table in keys.items():
                self._bands[seed].write(np.ascontiguousarray(table.T).tobytes())
        self._blocks.append(len(lengths))

    def seal(self) -> None:
        """Call once after the last `add`; then `sizes` is (n,) int64, the number of shingles of each document."""
        self.sizes = np.frombuffer(self._lengths, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)])
        with naming(self.folder):
            for handle in (self._sets, *self._bands.values()):
                handle.flush()

    def shingles(self, row: int) -> Shingles:
        """The shingles of one document, sorted. Read with pread: mapped pages would count as memory."""
        if row not in self._cache:
            if len(self._cache) >= CACHED_SETS:
                self._cache.clear()
            start, stop = int(self._starts[row]), int(self._starts[row + 1])
            data = os.pread(self._sets.fileno(), 8 * (stop - start), 8 * start)
            self._cache[row] = np.frombuffer(data, dtype=np.uint64)
        return self._cache[row]

    def band(self, seed: int, number: int) -> NDArray[np.uint64]:
        """Key of every document in one band: (n,) uint64."""
        handle, offset, parts = self._bands[seed].fileno(), 0, []
        for count in self._blocks:
            data = os.pread(handle, 8 * count, offset + 8 * count * number)
            parts.append(np.frombuffer(data, dtype=np.uint64))
            offset += 8 * count * BANDS
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)


def sketch(
    sets: Sequence[Shingles], seeds: Sequence[int]
) -> tuple[NDArray[np.int64], Shingles, dict[int, NDArray[np.uint64]]]:
    """What `Sketches.add` takes, of the shingles of some documents."""
    lengths = np.array([len(values) for values in sets], dtype=np.int64)
    values = np.concatenate(sets) if sets else np.zeros(0, dtype=np.uint64)
    return lengths, values, {seed: MinHash(seed).band_keys(sets) for seed in seeds}


@dataclass
class Pairs:
    """Verified pairs of rows with their similarity, and which pairs need no second look."""

    sketches: Sketches
    threshold: float
    found: dict[tuple[int, int], float] = field(default_factory=dict)
    _seen: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    _fresh: list[NDArray[np.uint64]] = field(default_factory=list)

    def verify(self, a: Rows, b: Rows) -> None:
        """Keep those of the pairs (a[i], b[i]) whose Jaccard similarity reaches the threshold."""
        sizes = self.sketches.sizes
        small, large = np.minimum(sizes[a], sizes[b]), np.maximum(sizes[a], sizes[b])
        possible = small >= self.threshold * large - 1e-9  # the similarity is at most small / large
        a, b = a[possible], b[possible]
        names = (np.minimum(a, b).astype(np.uint64) << np.uint64(32)) | np.maximum(a, b).astype(np.uint64)
        names, index = np.unique(names, return_index=True)
        new = ~_contains(self._seen, names)
        for place in index[new][np.argsort(a[index[new]], kind="stable")].tolist():
            similarity = jaccard(self.sketches.shingles(int(a[place])), self.sketches.shingles(int(b[place])))
            if similarity >= self.threshold:
                first, second = sorted((int(a[place]), int(b[place])))
                self.found[first, second] = similarity
        self._fresh.append(names[new])

    def end_band(self) -> None:
        """Remember what was verified; within one band no pair comes twice."""
        if len(self._seen) > REMEMBERED:
            self._seen = self._seen[:0]
        self._seen = np.sort(np.concatenate([self._seen, *self._fresh]))
        self._fresh.clear()

    def arrays(self) -> tuple[Rows, Rows, NDArray[np.float64]]:
        """(first, second, similarity), in the order in which they were found."""
        names = np.array(list(self.found), dtype=np.int64).reshape(-1, 2)
        return names[:, 0], names[:, 1], np.array(list(self.found.values()), dtype=np.float64)


def _contains(run: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.bool_]:
    if not len(run):
        return np.zeros(len(values), dtype=bool)
    return run[np.minimum(np.searchsorted(run, values), len(run) - 1)] == values


def _led(keys: NDArray[np.uint64]) -> Iterator[tuple[Rows, Rows]]:
    """Pairs (leader, later member) of places in `keys` with equal keys, for each of the first LEADERS of a bucket."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(keys) else np.zeros(0, int)
    sizes = np.diff(np.concatenate([starts, [len(keys)]]))
    for leader in range(LEADERS):
        starts, sizes = starts[sizes > leader + 1], sizes[sizes > leader + 1]
        if not len(starts):
            return
        counts = sizes - leader - 1
        heads = np.repeat(starts + leader, counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        yield order[heads], order[heads + 1 + within]


def _waiting(keys: NDArray[np.uint64]) -> Rows:
    """Places that have more than LEADERS others before them in their bucket."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    return order[LEADERS:][ordered[LEADERS:] == ordered[:-LEADERS]] if len(keys) > LEADERS else order[:0]


@dataclass(frozen=True)
class Families:
    """Result of `keep_first`.

    Attributes:
        kept_by: (n,) int64: the row that a row is a near-duplicate of, or -1 for one that is kept.
        first, second: rows of all pairs that were verified.
    """

    kept_by: Rows
    first: Rows
    second: Rows


def keep_first(
    sketches: Sketches, rows: Rows, pinned: NDArray[np.bool_], *, seed: int, threshold: float, advance: Advance
) -> Families:
    """Keep each of `rows`, taken in this order, that no kept one before it resembles.

    A bucket of m documents gives at most LEADERS * m pairs a round, and what was dropped is gone in the next, so that
    a large family costs m comparisons and not m^2. The result is the same as with all pairs at once: a document that
    has not been compared with all before it waits.

    Args:
        rows: row numbers in `sketches`, in order of preference.
        pinned: (len(rows),) those that are kept in any case; two of them are not compared.
        advance: called with 1 a band of the first round (there are BANDS).
    """
    kept_by = np.full(len(sketches.sizes), -1, dtype=np.int64)
    pairs = Pairs(sketches, threshold)
    has_shingles = sketches.sizes[rows] > 0
    pool, is_pinned = rows[has_shingles], pinned[has_shingles]
    open_pairs: list[tuple[int, int]] = []
    first_round = True
    while len(pool):
        complete = np.ones(len(pool), dtype=bool)
        begin = len(pairs.found)
        for band in range(BANDS):
            keys = sketches.band(seed, band)[pool]
            complete[_waiting(keys)] = False
            for leader, member in _led(keys):
                apart = ~(is_pinned[leader] & is_pinned[member])
                pairs.verify(pool[leader[apart]], pool[member[apart]])
            pairs.end_band()
            if first_round:
                advance(1)
        first_round = False
        open_pairs.extend(islice(pairs.found, begin, None))
        left = _decide(pool, is_pinned, complete, open_pairs, kept_by)
        pool, is_pinned = pool[left], is_pinned[left]
        still = set(pool.tolist()) if open_pairs else set()
        open_pairs = [(a, b) for a, b in open_pairs if a in still and b in still]
    if first_round:
        advance(BANDS)
    first, second, _ = pairs.arrays()
    return Families(kept_by, first, second)


def _decide(
    pool: Rows,
    pinned: NDArray[np.bool_],
    complete: NDArray[np.bool_],
    pairs: Sequence[tuple[int, int]],
    kept_by: Rows,
) -> NDArray[np.bool_]:
    """Keep, drop (in `kept_by`) or leave open every document of the pool: which ones go into the next round."""
    place = np.zeros(len(kept_by), dtype=np.int64)
    place[pool] = np.arange(len(pool))
    before: dict[int, list[int]] = defaultdict(list)
    for a, b in pairs:
        early, late = sorted((int(place[a]), int(place[b])))
        before[late].append(early)
    kept = pinned | complete
    left = ~complete
    for late in sorted(before):
        if pinned[late]:
            continue
        early_ones = sorted(before[late])
        keeper = next((i for i in early_ones if kept[i]), None)
        if keeper is not None:
            kept_by[pool[late]] = pool[keeper]
            kept[late] = left[late] = False
        elif any(left[i] for i in early_ones):
            kept[late], left[late] = False, True
    return left


def crossing(
    sketches: Sketches, rows: Rows, part: NDArray[np.int8], *, seed: int, threshold: float, advance: Advance
) -> tuple[Rows, Rows, NDArray[np.float64]]:
    """All pairs of `rows` of different parts that are found with at least this similarity: (first, second, similarity).

    Args:
        rows: row numbers in `sketches`.
        part: (len(rows),) the split of each.
    """
    pairs = Pairs(sketches, threshold)
    rows, part = rows[sketches.sizes[rows] > 0], part[sketches.sizes[rows] > 0]
    for band in range(BANDS):
        keys = sketches.band(seed, band)[rows]
        for a, b in _crossing_pairs(keys, part):
            pairs.verify(rows[a], rows[b])
        pairs.end_band()
        advance(1)
    return pairs.arrays()


def _crossing_pairs(keys: NDArray[np.uint64], part: NDArray[np.int8]) -> Iterator[tuple[Rows, Rows]]:
    """Places with equal keys and different parts, a bounded number at a time."""
    held_out = np.flatnonzero(part > 0)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    low = np.searchsorted(ordered, keys[held_out], side="left")
    counts = np.searchsorted(ordered, keys[held_out], side="right") - low
    limit = 1 << 20
    held_out, low, counts = held_out[counts > 1], low[counts > 1], counts[counts > 1]
    start = 0
    while start < len(held_out):
        stop = start + max(1, int(np.searchsorted(np.cumsum(counts[start:]), limit, side="right")))
        many = counts[start:stop]
        a = np.repeat(held_out[start:stop], many)
        b = order[np.repeat(low[start:stop], many) + np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)]
        different = part[a] != part[b]
        yield a[different], b[different]
        start = stop
