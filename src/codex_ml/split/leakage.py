"""Count what crosses the splits, and what a random split of the same documents would have leaked.

Used by: stages/split.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.sorted_arrays import begins_of
from codex_ml.documents.split_files import Leakage
from codex_ml.split.candidates import EVICTED, QUARANTINED, Dealt, DocumentKeys

DRAWS = 20  # random splits; with 90 test documents a single one gives 6 or 10 %, depending on the seed


def leakage(documents: DocumentKeys, dealt: Dealt, *, test_share: float) -> Leakage:
    """Count copies, groups and near pairs across the splits, and estimate the leak of a random split."""
    part = dealt.part
    kept = np.flatnonzero(part >= 0)
    first, second = dealt.crossing.first, dealt.crossing.second
    across = (part[first] >= 0) & (part[second] >= 0) & (part[first] != part[second])
    _, families = np.unique(dealt.kept_by[dealt.kept_by >= 0], return_counts=True)
    groups = kept[documents.grouped[kept]]
    return Leakage(
        exact_cross=_crossing(part[kept], documents.low[kept], documents.high[kept]),
        group_cross=_crossing(part[groups], documents.unit[groups]),
        near_cross=int(across.sum()),
        near_duplicates=by_similarity(dealt),
        evicted=int((dealt.reason == EVICTED).sum()),
        quarantined=int((dealt.reason == QUARANTINED).sum()),
        largest_family_share=round(float(families.max() + 1) / len(part), 6) if len(families) else 0.0,
        random_split_leak=random_split_leak(dealt, test_share=test_share),
    )


def by_similarity(dealt: Dealt) -> dict[str, int]:
    """Similarity to the document that was kept instead, rounded down to a tenth -> number of near-duplicates."""
    families = dealt.families
    dropped = (families.kept_by[families.first] == families.second) | (
        families.kept_by[families.second] == families.first
    )
    steps = np.floor(families.similarity[dropped] * 10 + 1e-6).astype(int)
    return {f"{step / 10:.1f}": int(count) for step, count in zip(*np.unique(steps, return_counts=True), strict=True)}


def _crossing(part: NDArray[np.int8], *columns: NDArray[np.uint64]) -> int:
    """Number of distinct rows of the columns that occur in more than one split."""
    if not len(part):
        return 0
    order = np.lexsort(columns)
    begins = np.zeros(len(part), dtype=bool)
    for column in columns:  # one after the other, so that memory holds one sorted column
        begins |= begins_of(column[order])
    starts, part = np.flatnonzero(begins), part[order]
    return int((np.minimum.reduceat(part, starts) != np.maximum.reduceat(part, starts)).sum())


def random_split_leak(dealt: Dealt, *, test_share: float) -> float:
    """Share of test documents with a copy or near-duplicate in train, if rows are split at random and none is removed.

    The mean of DRAWS random splits. Only verified pairs count, so the true share is at least this.
    """
    random = np.random.Generator(np.random.PCG64(0))
    return round(sum(_leak_of_one_draw(dealt, random, test_share) for _ in range(DRAWS)) / DRAWS, 6)


def _leak_of_one_draw(dealt: Dealt, random: np.random.Generator, test_share: float) -> float:
    size = len(dealt.copies)
    held_out = np.zeros(size, dtype=bool)
    held_out[random.permutation(size)[: max(1, round(size * test_share))]] = True
    in_train = np.zeros(size, dtype=bool)  # indexed by representative: whether one of its copies is in train
    in_train[dealt.copies[~held_out]] = True
    leaks = in_train.copy()
    first, second = dealt.families.first, dealt.families.second
    leaks[first[in_train[second]]] = True
    leaks[second[in_train[first]]] = True
    return float(leaks[dealt.copies[held_out]].mean())
