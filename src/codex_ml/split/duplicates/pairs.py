"""Pairs of documents, and their exact similarity.

One number names a pair: the smaller row in the upper 32 bits, the larger row in the lower 32 bits. So sorting brings
the pairs of a document together; the pair of rows 1 and 3 is 0x0000000100000003. Candidates are written to files and
verified afterwards, so that a pair that many shingles propose is verified once.
Used by: duplicates.dedup, duplicates.proposals, duplicates.tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.sorted_arrays import begins_of, blocks_within, ranges
from codex_ml.split.duplicates.shingle_sets import RowNumbers, StoredSets, mapped

SHINGLES_AT_ONCE = 1 << 21  # on both sides of the pairs that are verified together

Pairs = NDArray[np.uint64]


def named(first: NDArray[np.integer], second: NDArray[np.integer]) -> Pairs:
    """(n,) uint64: the numbers of the pairs (first[i], second[i])."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    return (low.astype(np.uint64) << np.uint64(32)) | high.astype(np.uint64)


def distinct(pairs: Pairs) -> Pairs:
    """Sorted and distinct pairs. np.unique hashes first and takes longer."""
    pairs = np.sort(pairs)
    return pairs[begins_of(pairs)]


@dataclass(frozen=True)
class VerifyTask:
    """The candidates in `files` with low <= pair < high."""

    sets: StoredSets
    files: tuple[Path, ...]
    low: int
    high: int
    threshold: float


@dataclass(frozen=True)
class Verified:
    """Verified candidates.

    Attributes:
        looked_at: number of candidates; the same pair in two files counts twice.
        pairs: (m,) uint64, the pairs that reach the threshold.
        similarity: (m,) float64.
    """

    looked_at: int
    pairs: Pairs
    similarity: NDArray[np.float64]

    @classmethod
    def of_parts(cls, parts: Sequence[Verified]) -> Verified:
        """Join all parts, in order."""
        none = cls(0, np.zeros(0, dtype=np.uint64), np.zeros(0))
        return cls(
            sum(part.looked_at for part in parts),
            np.concatenate([part.pairs for part in (none, *parts)]),
            np.concatenate([part.similarity for part in (none, *parts)]),
        )


def verify_pairs(task: VerifyTask) -> Verified:
    """Keep the candidates whose Jaccard similarity reaches the threshold. Runs in a worker."""
    parts = [np.zeros(0, dtype=np.uint64)]
    for file in task.files:
        pairs = mapped(file, np.uint64)
        start = int(np.searchsorted(pairs, np.uint64(task.low)))
        stop = int(np.searchsorted(pairs, np.uint64(task.high))) if task.high < 1 << 64 else len(pairs)
        parts.append(np.array(pairs[start:stop]))
    result = reaching(task.sets, distinct(np.concatenate(parts)), task.threshold)
    return replace(result, looked_at=sum(map(len, parts)))


def reaching(sets: StoredSets, pairs: Pairs, threshold: float) -> Verified:
    """The pairs whose similarity reaches the threshold. `pairs` must be sorted."""
    sizes = sets.sizes
    first, second = rows_of(pairs)
    total = np.cumsum(sizes[first].astype(np.int64) + sizes[second])
    similarity = np.zeros(len(pairs))
    for some in blocks_within(total, SHINGLES_AT_ONCE):
        similarity[some] = similarities(sets, first[some], second[some])
    reached = similarity >= threshold  # a similarity equal to the threshold rounds to the same float, so >= includes it
    return Verified(len(pairs), pairs[reached], similarity[reached])


def rows_of(pairs: Pairs) -> tuple[RowNumbers, RowNumbers]:
    """(smaller row, larger row) of each pair."""
    return (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)


def similarities(sets: StoredSets, first: RowNumbers, second: RowNumbers) -> NDArray[np.float64]:
    """Exact Jaccard similarity of each pair (first[i], second[i]): (n,) float64, computed for all pairs at once.

    The distinct shingles of all these documents are numbered in the order of their hashes. A key (pair, number) is one
    shingle of one side of a pair. Both sides are sorted, so after a merge equal keys, which are the shared shingles,
    are neighbours.
    """
    rows = np.unique(np.concatenate([first, second]))
    sizes = sets.sizes
    lengths = sizes[rows]
    values = sets.gather(sets.starts[rows], lengths)
    order = np.argsort(values)
    ordered = values[order]
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(begins_of(ordered)) - 1
    begins = np.cumsum(lengths, dtype=np.int64) - lengths
    keys = []
    for side in (first, second):
        place = np.searchsorted(rows, side)
        pair = np.repeat(np.arange(len(side)) * len(order), lengths[place])
        keys.append(pair + numbers[ranges(begins[place], lengths[place])])
    merged = np.sort(np.concatenate(keys), kind="stable")
    shared = merged[1:][merged[1:] == merged[:-1]] // max(len(order), 1)
    common = np.bincount(shared, minlength=len(first))
    return common / np.maximum(sizes[first].astype(np.int64) + sizes[second] - common, 1)
