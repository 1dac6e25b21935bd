"""A cheap test that excludes pairs of shingle sets that cannot be similar, before the sets themselves are compared.

The parity of a set has b bits. Bit i is 1 if an odd number of its shingles have i as their last bits. For each bit that
differs, at least one shingle is in only one of the two sets. So the number of different bits is at most the size of the
symmetric difference. Sets of n_x and n_y shingles with similarity t have a symmetric difference of exactly
(1 - t) / (1 + t) * (n_x + n_y). More different bits than that exclude the pair. Parities need a sixteenth of the memory
of the shingles. Used by: duplicates.proposals, duplicates.tiles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.sorted_arrays import blocks_within
from codex_ml.split.duplicates.prefixes import SLACK
from codex_ml.split.duplicates.shingle_sets import RowNumbers, StoredSets

BITS_PER_SHINGLE = 4  # 4 exclude a pair of similarity 0.6 at a threshold of 0.7; 2 do so only half of the time
BITS_AT_MOST = 1 << 13
PAIRS_AT_ONCE = 1 << 18
SHINGLES_AT_ONCE = 1 << 20
WORDS_AT_ONCE = 1 << 19

Words = NDArray[np.uint64]


def bits_of(sizes: NDArray[np.integer]) -> RowNumbers:
    """Number of bits of the parity of sets of these sizes: a power of 2."""
    bits = np.clip(sizes.astype(np.int64) * BITS_PER_SHINGLE, 64, BITS_AT_MOST)
    return 1 << np.ceil(np.log2(bits)).astype(np.int64)


def possible(sets: StoredSets, first: RowNumbers, second: RowNumbers, threshold: float) -> NDArray[np.bool_]:
    """(n,) bool: whether the pair (first[i], second[i]) can reach the threshold. Never False for a pair that does."""
    blocks = [slice(start, start + PAIRS_AT_ONCE) for start in range(0, len(first), PAIRS_AT_ONCE)]
    return np.concatenate([_possible(sets, first[block], second[block], threshold) for block in blocks])


def _possible(sets: StoredSets, first: RowNumbers, second: RowNumbers, threshold: float) -> NDArray[np.bool_]:
    sizes = sets.sizes
    allowed = allowed_bits(sizes[first], sizes[second], threshold)
    bits = bits_of(np.maximum(sizes[first], sizes[second]))
    result = np.zeros(len(first), dtype=bool)
    for level in np.unique(bits).tolist():
        pairs = np.flatnonzero(bits == level)
        rows = rows_in(len(sizes), first[pairs], second[pairs])
        place = np.empty(len(sizes), dtype=np.int32)  # set only at `rows`, so the cost does not grow with the corpus
        place[rows] = np.arange(len(rows))
        table = parities_of(sets, rows, level)
        result[pairs] = differ_at_most(table, table, (place[first[pairs]], place[second[pairs]]), allowed[pairs])
    return result


def rows_in(size: int, first: RowNumbers, second: RowNumbers) -> RowNumbers:
    """The distinct rows of some pairs, ascending; `size` is the number of all rows. np.unique is ten times slower."""
    mask = np.zeros(size, dtype=bool)
    mask[first] = mask[second] = True
    return np.flatnonzero(mask)


def allowed_bits(first: NDArray[np.integer], second: NDArray[np.integer], threshold: float) -> RowNumbers:
    """(n,) int64: how many parity bits may differ between two sets of these sizes that reach the threshold."""
    together = first.astype(np.int64) + second
    return np.floor(together * ((1 - threshold) / (1 + threshold)) + SLACK).astype(np.int64)


def differ_at_most(
    left: Words, right: Words, pairs: tuple[NDArray[np.integer], NDArray[np.integer]], allowed: RowNumbers
) -> NDArray[np.bool_]:
    """Whether the parities left[pairs[0][i]] and right[pairs[1][i]] differ in at most allowed[i] bits."""
    first, second = pairs
    result = np.zeros(len(first), dtype=bool)
    at_once = max(1, WORDS_AT_ONCE // left.shape[1])
    for start in range(0, len(first), at_once):
        part = slice(start, start + at_once)
        differ = np.bitwise_count(left[first[part]] ^ right[second[part]]).sum(axis=1, dtype=np.int64)
        result[part] = differ <= allowed[part]
    return result


def parities_of(sets: StoredSets, rows: RowNumbers, level: int) -> Words:
    """Parities of the sets of these ascending rows, with `level` bits each: (len(rows), level / 64) uint64."""
    sizes, words = sets.sizes[rows], level // 64
    table = np.zeros(len(rows) * words, dtype=np.uint64)
    for some in blocks_within(np.cumsum(sizes, dtype=np.int64), SHINGLES_AT_ONCE):
        values = sets.gather(sets.starts[rows[some]], sizes[some])
        word = np.repeat(np.arange(some.start, some.stop) * words, sizes[some])
        word += ((values >> np.uint64(6)) & np.uint64(words - 1)).astype(np.int64)
        np.bitwise_xor.at(table, word, np.uint64(1) << (values & np.uint64(63)))
    return table.reshape(len(rows), words)
