"""Near-duplicates agree with a comparison of all pairs, to the last pair, at every threshold."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import ceil, floor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from codex_ml.split.config import Split
from codex_ml.split.crew import Crew
from codex_ml.split.duplicates import dedup, tiles
from codex_ml.split.duplicates.dedup import ShingleIndex, crossing, keep_first
from codex_ml.split.duplicates.shingle_sets import ShingleSets, block_of
from codex_ml.split.duplicates.shingles import shingles_of

from ..brute_force import BruteForce, everything, keepers
from ..dealing import Dealer, Doc

PARAMS = Split(val=0.1, test=0.1, salt="pepper")
THRESHOLDS = (0.5, 0.7, 0.8, 1.0)


@cache
def known(seed: int, size: int) -> tuple[list[str], BruteForce]:
    """Distinct texts in the order of the hash of their content, in which dealing prefers them."""
    docs = {Doc(text).content: text for text in everything(seed, size)}
    texts = [docs[content] for content in sorted(docs)]
    return texts, BruteForce.of_texts(texts)


def stored(folder: Path, sets: Sequence[NDArray[np.uint64]], *, bits: int = 16, block: int = 1 << 20) -> ShingleSets:
    result = ShingleSets(folder, bits=bits)
    for start in range(0, len(sets), block):
        result.add(block_of(sets[start : start + block], bits))
    result.seal()
    return result


def joined(
    folder: Path, sets: Sequence[NDArray[np.uint64]], order: Sequence[int], pinned: Sequence[bool], threshold: float,
    *, workers: int = 0, **how: int,
) -> list[int]:  # fmt: skip
    """Which row each row is dropped for, or -1."""
    rows = np.array(order, dtype=np.int64)
    with stored(folder, sets, **how) as made:
        index = ShingleIndex(made, rows, threshold=threshold, crew=Crew(workers))
        result: list[int] = keep_first(index, rows, np.array(pinned, dtype=bool)).kept_by.tolist()
    made.delete()
    return result


@pytest.mark.parametrize("threshold", [0.5, 0.7, *(pytest.param(one, marks=pytest.mark.slow) for one in (0.8, 1.0))])
def test_of_five_thousand_documents_the_same_are_kept_as_by_comparing_all_pairs(tmp_path, threshold):
    texts, brute = known(1, 5000)
    expected = keepers(range(len(texts)), [False] * len(texts), brute.neighbours(threshold))
    order = random.Random(threshold).sample(range(len(texts)), len(texts))
    docs = [Doc(texts[row], path=f"d{row}") for row in order]
    result = Dealer(tmp_path / "d").deal(docs, PARAMS.model_copy(update={"near_duplicate": threshold}))
    dropped = dict(zip(order, result.reasons, strict=True))
    assert {row for row, reason in dropped.items() if reason} == {row for row, early in expected.items() if early}
    assert set(dropped.values()) == {"", "near-duplicate"}
    for row, keeper in zip(order, result.dealt.kept_by.tolist(), strict=True):
        assert (keeper < 0) == (not expected[row])
        assert keeper < 0 or order[keeper] in expected[row]


HOW = {
    "as shipped": {},
    "every shingle counts in one of two slots": {"bits": 1},
    "documents come one by one": {"block": 1},
    "one leader": {"LEADERS": 1},
    "one leader, again and again": {"LEADERS": 1, "MORE_LEADERS": 2, "PROPOSAL": 0, "CANDIDATE": 0, "bits": 1},
    "all with all after one round": {"LEADERS": 1, "PROPOSAL": 1 << 40, "TILE": 150},
    "all are leaders": {"LEADERS": 1 << 20},
    "many small tasks": {"SHINGLES_PER_TASK": 8000, "POSTINGS_PER_TASK": 2000, "PAIRS_PER_TASK": 4096},
    "two workers": {"workers": 2, "SHINGLES_PER_TASK": 30_000, "POSTINGS_PER_TASK": 4000, "PAIRS_PER_TASK": 1 << 13},
}


@pytest.mark.parametrize(
    ("how", "threshold"),
    [
        pytest.param(how, threshold, marks=[pytest.mark.slow] * (how == "two workers" and threshold == 0.5))
        for how in HOW
        for threshold in (0.5, 0.7)
    ],
)
def test_block_and_task_sizes_do_not_change_which_documents_are_kept(tmp_path, monkeypatch, how, threshold):
    """Any rows in any order, any of them pinned, counts that collide, tasks and rounds of any size."""
    for name in [name for name in HOW[how] if name.isupper()]:
        monkeypatch.setattr(tiles if name == "TILE" else dedup, name, HOW[how][name])
    options = {name: value for name, value in HOW[how].items() if not name.isupper()}
    texts, brute = known(2, 1000)
    near, sets = brute.neighbours(threshold), shingles_of(texts)
    for seed, share in enumerate((0.02, 0.4)):
        dice = random.Random(seed)
        order = dice.sample(range(len(texts)), len(texts) - 50 * seed)
        pinned = [dice.random() < share for _ in order]
        result = joined(tmp_path / str(seed), sets, order, pinned, threshold, **options)
        expected = keepers(order, pinned, near)
        assert {row for row in order if result[row] >= 0} == {row for row, early in expected.items() if early}
        assert all(result[row] in early for row, early in expected.items() if early)
        assert {result[row] for row in set(range(len(texts))) - set(order)} <= {-1}


@pytest.mark.parametrize(
    "how", ["as shipped", "one leader, again and again", "all with all after one round", "many small tasks"]
)
@pytest.mark.parametrize("threshold", [0.5, 0.7, 1.0])
def test_only_the_later_document_of_a_pair_across_splits_is_dropped(tmp_path, monkeypatch, how, threshold):
    for name in [name for name in HOW[how] if name.isupper()]:
        monkeypatch.setattr(tiles if name == "TILE" else dedup, name, HOW[how][name])
    texts, brute = known(2, 1000)
    near, dice = brute.neighbours(threshold), random.Random(7)
    order = dice.sample(range(len(texts)), len(texts) - 50)
    part = np.array(dice.choices([0, 1, 2], [8, 1, 1], k=len(texts)), dtype=np.int8)
    rows = np.array(order, dtype=np.int64)
    with stored(tmp_path / "s", shingles_of(texts), bits=HOW[how].get("bits", 16)) as made:
        result = crossing(ShingleIndex(made, rows, threshold=threshold, crew=Crew()), rows, part[rows])
    across = [others[part[others] != part[row]] for row, others in enumerate(near)]
    expected = keepers(order, [False] * len(order), across)
    kept_by = result.kept_by.tolist()
    assert {row for row in order if kept_by[row] >= 0} == {row for row, early in expected.items() if early}
    assert all(kept_by[row] in early for row, early in expected.items() if early)


def pair_of(random: np.random.Generator, sizes: tuple[int, int], common: int) -> list[NDArray[np.uint64]]:
    """Two sets of these sizes that share this many shingles."""
    values = random.permutation(np.unique(random.integers(0, 2**64, size=sum(sizes) - common, dtype=np.uint64)))
    assert len(values) == sum(sizes) - common
    return [np.sort(values[: sizes[0]]), np.sort(values[sizes[0] - common :])]


def least_common(sizes: tuple[int, int], share: Fraction) -> int:
    """The fewest shingles that two sets must share to reach a similarity: c >= s (m + n - c)."""
    return ceil(share * sum(sizes) / (1 + share))


@pytest.mark.parametrize(
    ("threshold", "bits"),
    [
        (0.7, 16),
        *(pytest.param(one, 16, marks=pytest.mark.slow) for one in (0.5, 0.8, 1.0)),
        *(pytest.param(one, 1, marks=pytest.mark.slow) for one in THRESHOLDS),
    ],
)
def test_a_pair_of_any_size_is_found_at_the_threshold_and_not_one_shingle_below(tmp_path, threshold, bits):
    """Every size from 1 to 2,000 shingles, with a partner of the same size, of the largest possible, or between."""
    share, dice = Fraction(str(threshold)), np.random.default_rng(3)
    sets: list[NDArray[np.uint64]] = []
    reached: list[bool] = []
    exactly = 0
    for size in range(1, 2001):
        other = int(dice.choice([size, floor(size / share), dice.integers(size, floor(size / share) + 1)]))
        least = least_common((size, other), share)
        for common in (least, least - 1):
            sets += pair_of(dice, (size, other), common)
            reached.append(common == least)
            exactly += Fraction(common, size + other - common) == share
    order = dice.permutation(len(sets)).tolist()
    result = joined(tmp_path / "s", sets, order, [False] * len(order), threshold, bits=bits)
    found = [max(result[row], result[row + 1]) in (row, row + 1) for row in range(0, len(sets), 2)]
    assert found == reached
    assert exactly > 50


@pytest.mark.parametrize("threshold", [0.7, 0.8])
def test_a_pair_at_the_threshold_is_found_among_shingles_that_all_documents_share(tmp_path, threshold):
    """The shared shingles are the most frequent, which the index takes last; other documents hold most of them too."""
    share, dice = Fraction(str(threshold)), np.random.default_rng(4)
    header = np.unique(dice.integers(0, 2**64, size=700, dtype=np.uint64))
    sets: list[NDArray[np.uint64]] = []
    for common in range(share.numerator, 701, share.numerator):
        union = common * share.denominator // share.numerator
        if union > 700 * share.denominator // share.numerator:
            break
        own = np.unique(dice.integers(0, 2**64, size=union - common, dtype=np.uint64))
        cut = dice.integers(0, len(own) + 1)
        start = dice.integers(0, 700 - common + 1)
        for mine in (own[:cut], own[cut:]):
            sets.append(np.sort(np.concatenate([header[start : start + common], mine])))
    brute = BruteForce([set(one.tolist()) for one in sets])
    for seed in range(3):
        order = random.Random(seed).sample(range(len(sets)), len(sets))
        pinned = [random.Random(seed + row).random() < 0.2 * seed for row in order]
        expected = keepers(order, pinned, brute.neighbours(threshold))
        result = joined(tmp_path / str(seed), sets, order, pinned, threshold)
        assert {row for row in order if result[row] >= 0} == {row for row, early in expected.items() if early}
