"""ROC curves against their definition, scipy, and examples by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from codex_ml.statistics.roc import Scores, documents_needed


def drawn(seed: int, *sizes: int, values: int = 12) -> list[np.ndarray]:
    random = np.random.Generator(np.random.PCG64(seed))
    return [random.integers(at, at + values, size) for at, size in enumerate(sizes)]


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_the_chance_that_a_positive_is_below_a_negative_with_ties_one_half(seed: int) -> None:
    positives, negatives = drawn(seed, 23, 31)
    pairs = [(p < n) + (p == n) / 2 for p in positives for n in negatives]
    area = Scores.of(positives, negatives).area()
    assert area == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert area == pytest.approx(mannwhitneyu(negatives, positives).statistic / (23 * 31), abs=1e-12)


def test_low_scores_are_positives_and_swapped_labels_give_the_rest() -> None:
    assert Scores.of([1, 2], [3, 4]).area() == 1
    assert Scores.of([3, 4], [1, 2]).area() == 0
    positives, negatives = drawn(7, 40, 50)
    area = Scores.of(positives, negatives).area()
    assert Scores.of(negatives, positives).area() == pytest.approx(1 - area, abs=1e-12)
    assert Scores.of(negatives, negatives).area() == pytest.approx(0.5, abs=1e-12)


def test_constant_scores_have_area_one_half_and_an_interval_of_width_zero() -> None:
    scores = Scores.of(np.ones(30), np.ones(40))
    limits = scores.area_interval(confidence=0.95, seed=1)
    assert (scores.area(), limits.low, limits.high) == (0.5, 0.5, 0.5)
    assert scores.true_positives(0.01) == 0  # a threshold that takes one takes all


@pytest.mark.parametrize("sizes", [(400, 400), (400, 93)])
def test_the_interval_of_a_score_that_knows_nothing_is_as_wide_as_mann_and_whitney_say(sizes: tuple[int, int]) -> None:
    random = np.random.Generator(np.random.PCG64(5))
    limits = Scores.of(*(random.normal(size=size) for size in sizes)).area_interval(confidence=0.95, seed=3)
    error = math.sqrt((sum(sizes) + 1) / (12 * math.prod(sizes)))
    assert (limits.high - limits.low) / 2 == pytest.approx(1.96 * error, rel=0.12)


def test_intervals_follow_the_seed_and_not_the_order_of_the_scores() -> None:
    positives, negatives = drawn(9, 60, 70)
    one, two = Scores.of(positives, negatives), Scores.of(positives[::-1], negatives[::-1])
    assert one.area_interval(confidence=0.95, seed=1) == two.area_interval(confidence=0.95, seed=1)
    assert one.area_interval(confidence=0.95, seed=1) != one.area_interval(confidence=0.95, seed=2)
    narrow = one.area_interval(confidence=0.5, seed=1)
    wide = one.area_interval(confidence=0.95, seed=1)
    assert wide.low < narrow.low < one.area() < narrow.high < wide.high


def test_true_positives_at_few_false_ones() -> None:
    """Of 100 negatives one may be taken at 1 %, none at 0.1 %; the second smallest is 1, the smallest 0."""
    scores = Scores.of([-1, 0, 0.5, 1, 2], np.arange(100))
    assert scores.true_positives(0.01) == 0.6  # below 1
    assert scores.true_positives(0.001) == 0.2  # below 0
    assert scores.true_positives(1.0) == 1
    limits = scores.true_positives_interval(0.01, confidence=0.95, seed=1)
    assert 0 <= limits.low < 0.6 < limits.high <= 1


def test_tied_negatives_are_taken_together_or_not_at_all() -> None:
    assert Scores.of([1, 1, 2], [1, 1, 3, 4]).true_positives(0.25) == 0  # a threshold of 1 takes two of four
    assert Scores.of([1, 1, 2], [1, 1, 3, 4]).true_positives(0.5) == 1  # below 3


def test_the_curve_has_a_point_per_threshold() -> None:
    false, true = Scores.of([1, 2, 2], [2, 3]).curve()
    assert false.tolist() == [0, 0, 0.5, 1]
    assert true.tolist() == [0, pytest.approx(1 / 3), 1, 1]


@pytest.mark.parametrize("sample", [[], [math.nan], [math.inf]])
def test_samples_without_finite_scores_are_refused(sample: list[float]) -> None:
    with pytest.raises(ValueError, match="finite scores"):
        Scores.of([1.0], sample)


@pytest.mark.parametrize(("difference", "confidence", "z"), [(0.1, 0.95, 1.959964), (0.05, 0.9, 1.644854)])
def test_documents_needed_is_the_smallest_number_whose_interval_ends_below_the_limit(
    difference: float, confidence: float, z: float
) -> None:
    needed = documents_needed(difference, confidence)
    reach = [z * math.sqrt((2 * n + 1) / (12 * n * n)) for n in (needed - 1, needed)]
    assert reach[0] > difference >= reach[1]


def test_a_bootstrap_of_units_is_that_of_their_values() -> None:
    """Units of two equal scores: the areas of all resamples are those of one score per unit."""
    single = Scores.of([1, 4, 6], [2, 3, 5, 7])
    units = Scores.of(
        [6, 1, 4, 1, 4, 6], [2, 3, 5, 7, 2, 3, 5, 7], units=(["c", "a", "b", "a", "b", "c"], [0, 1, 2, 3] * 2)
    )
    assert units.trials() == single.trials() == (3, 4)
    assert units.area() == single.area()
    assert units.area_interval(confidence=0.95, seed=1) == single.area_interval(confidence=0.95, seed=1)
    alone = Scores.of([1, 4, 6], [2, 3, 5, 7], units=(["x", "z", "y"], [9, 8, 7, 6]))
    assert alone.area_interval(confidence=0.9, seed=1) == single.area_interval(confidence=0.9, seed=1)
    with pytest.raises(ValueError, match="units for"):
        Scores.of([1, 2], [3], units=(["a"], ["b"]))
