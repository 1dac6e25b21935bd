"""Pairs of documents, and their exact similarity.

A pair is named by one number, the smaller row in the upper 32 bits and the larger one in the lower, so that sorting
brings the pairs of a document together. Candidates are written to files and verified afterwards: a pair that many
shingles propose is looked at once.
Used by: split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.sorted_arrays import begins_of, blocks_within, ranges
from codex_ml.split.duplicates.shingle_sets import RowNumbers, StoredSets, mapped

SHINGLES_AT_ONCE = 1 << 21  # of both sides of the pairs that are verified together

Pairs = NDArray[np.uint64]


def named(first: NDArray[np.integer], second: NDArray[np.integer]) -> Pairs:
    """The pairs (first[i], second[i])."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    return (low.astype(np.uint64) << np.uint64(32)) | high.astype(np.uint64)


def distinct(pairs: Pairs) -> Pairs:
    """Sorted, each once; np.unique hashes first and takes longer."""
    pairs = np.sort(pairs)
    return pairs[begins_of(pairs)]


@dataclass(frozen=True)
class VerifyTask:
    """The candidates whose number is at least `low` and below `high`."""

    sets: StoredSets
    files: tuple[Path, ...]
    low: int
    high: int
    threshold: float


@dataclass(frozen=True)
class Verified:
    """What the sets say of some candidates.

    Attributes:
        looked_at: how many pairs there were, the same pair in two files counted twice.
        pairs: uint64, those that reach the threshold.
        similarity: float64, of each of these.
    """

    looked_at: int
    pairs: Pairs
    similarity: NDArray[np.float64]

    @classmethod
    def of_parts(cls, parts: Sequence[Verified]) -> Verified:
        """All parts, end to end."""
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
    """Those of the pairs, which are sorted, whose similarity reaches the threshold."""
    sizes = sets.sizes
    first, second = rows_of(pairs)
    total = np.cumsum(sizes[first].astype(np.int64) + sizes[second])
    similarity = np.zeros(len(pairs))
    for some in blocks_within(total, SHINGLES_AT_ONCE):
        similarity[some] = similarities(sets, first[some], second[some])
    reached = similarity >= threshold  # both sides round the same quotient, so a pair on the threshold is one
    return Verified(len(pairs), pairs[reached], similarity[reached])


def rows_of(pairs: Pairs) -> tuple[RowNumbers, RowNumbers]:
    """(smaller row, larger row) of each pair."""
    return (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)


def similarities(sets: StoredSets, first: RowNumbers, second: RowNumbers) -> NDArray[np.float64]:
    """Exact Jaccard similarity of each pair (first[i], second[i]), for all at once.

    The shingles of all these documents get numbers in the order of their hashes; (pair, number) then names a shingle of
    one side of one pair. Both sides are sorted, so that one merge brings what they share together.
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
