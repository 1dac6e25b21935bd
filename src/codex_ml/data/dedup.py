"""Near-duplicates: MinHash finds candidates, exact Jaccard similarity decides.

Shingles are runs of 5 lower-cased words (`\\w+`). 42 bands of 6 rows find a pair at similarity 0.7 with probability
1 - (1 - 0.7^6)^42 = 0.995 (Broder 1997; Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4): a
barrier against leaks has to propose too many pairs and then verify each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

BANDS, ROWS, SHINGLE_WORDS = 42, 6, 5
WORD = re.compile(r"\w+")
BUCKET_LIMIT = 64  # in a larger bucket each document is paired with its neighbours only, or one licence text costs n^2

Shingles = NDArray[np.uint64]


def shingles(text: str) -> Shingles:
    """Hashes of the distinct 5-word shingles, sorted: (n,) uint64. Empty for a text of fewer than 5 words."""
    words = [word.encode() for word in WORD.findall(text.lower())]
    runs = (b" ".join(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1))
    hashes = [xxhash.xxh3_64_intdigest(run) for run in runs]
    return np.unique(np.array(hashes, dtype=np.uint64))


def jaccard(a: Shingles, b: Shingles) -> float:
    """|a & b| / |a | b| of two sets of shingles; 0 when either is empty, so that short texts are no duplicates."""
    if not len(a) or not len(b):
        return 0.0
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


class MinHash:
    """Signatures of BANDS * ROWS minima; equal for equal sets, on every machine, for ever (the ledger relies on it)."""

    def __init__(self, seed: int) -> None:
        random = np.random.Generator(np.random.PCG64(seed))
        size = BANDS * ROWS
        self._multiply = random.integers(0, 2**63, size=size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._add = random.integers(0, 2**63, size=size, dtype=np.uint64)

    def signature(self, values: Shingles) -> NDArray[np.uint64]:
        """Minimum of (a * x + b) mod 2^64 over the set for each of the (a, b): (BANDS * ROWS,) uint64."""
        result = np.full(BANDS * ROWS, np.iinfo(np.uint64).max, dtype=np.uint64)
        for start in range(0, len(values), 512):  # the block of products stays in the cache
            block = values[start : start + 512, None] * self._multiply[None, :] + self._add[None, :]
            np.minimum(result, block.min(axis=0), out=result)
        return result


def candidates(signatures: NDArray[np.uint64]) -> set[tuple[int, int]]:
    """Pairs (i, j), i < j, of rows that agree in all ROWS minima of at least one band.

    Args:
        signatures: (n, BANDS * ROWS) uint64; rows of documents without shingles must not be among them.
    """
    pairs: set[tuple[int, int]] = set()
    for band in range(BANDS):
        for bucket in _buckets(np.ascontiguousarray(signatures[:, band * ROWS : (band + 1) * ROWS])):
            pairs.update(_pairs_of(bucket))
    return pairs


def _buckets(band: NDArray[np.uint64]) -> Iterator[list[int]]:
    keys = band.view([("", np.uint64)] * ROWS).ravel()
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
    for group in np.split(order, edges):
        if len(group) > 1:
            yield sorted(group.tolist())


def _pairs_of(bucket: Sequence[int]) -> Iterator[tuple[int, int]]:
    reach = len(bucket) if len(bucket) <= BUCKET_LIMIT else 8
    for position, first in enumerate(bucket):
        for second in bucket[position + 1 : position + 1 + reach]:
            yield first, second


def near_pairs(sets: Sequence[Shingles], *, threshold: float, seed: int) -> list[tuple[int, int, float]]:
    """All pairs (i, j, similarity) found with Jaccard similarity of at least `threshold`, sorted."""
    minhash = MinHash(seed)
    rows = [i for i, values in enumerate(sets) if len(values)]
    if len(rows) < 2:
        return []
    found = candidates(np.stack([minhash.signature(sets[i]) for i in rows]))
    scored = ((rows[a], rows[b], jaccard(sets[rows[a]], sets[rows[b]])) for a, b in sorted(found))
    return [pair for pair in scored if pair[2] >= threshold]


def components(size: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Union-find: for each of `size` items the smallest item it is connected with."""
    parent = list(range(size))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return [root(item) for item in range(size)]
