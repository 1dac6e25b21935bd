"""Intervals against known values."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from codex_ml.statistics.bootstrap import bootstrap_ratio, clopper_pearson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.30850), (5, 10, 0.18709, 0.81291), (10, 10, 0.69150, 1.0), (1, 200, 0.00013, 0.02754)],
)
def test_clopper_pearson_gives_the_published_values(successes, trials, low, high):
    """Tables of exact 95 % limits; at the ends 1 - 0.025^(1/n) by hand."""
    found = clopper_pearson(successes, trials)
    assert (round(found.low, 5), round(found.high, 5)) == (low, high)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="successes of"):
        clopper_pearson(successes, trials)


def test_bootstrap_of_a_constant_ratio_has_no_width():
    found = bootstrap_ratio([2, 4, 6], [1, 2, 3], resamples=300, confidence=0.95, seed=1)
    assert found.low == found.high == 2.0


def test_bootstrap_agrees_with_the_enumeration_of_all_resamples():
    above, below = np.array([1.0, 5.0, 2.0, 9.0]), np.array([1.0, 2.0, 3.0, 4.0])
    choices = itertools.product(range(4), repeat=4)
    ratios = np.array([above[list(c)].sum() / below[list(c)].sum() for c in choices])
    found = bootstrap_ratio(above, below, resamples=40_000, confidence=0.8, seed=3)
    assert found.low == pytest.approx(np.quantile(ratios, 0.1), abs=0.03)
    assert found.high == pytest.approx(np.quantile(ratios, 0.9), abs=0.03)


def test_bootstrap_is_a_function_of_its_seed():
    settings = {"resamples": 300, "confidence": 0.9}
    draw = [bootstrap_ratio([1, 5, 2], [1, 2, 3], seed=seed, **settings) for seed in (1, 1, 2)]
    assert draw[0] == draw[1] != draw[2]


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "trials"), [(1, 2), (7, 30), (41, 200), (199, 200), (3, 1000)])
def test_each_limit_of_clopper_pearson_leaves_half_of_the_rest_in_its_tail(successes, trials, confidence):
    """The definition, with sums of exact fractions: at the lower limit as many successes or more are that rare."""

    def at_most(k: int, p: float) -> float:
        p = Fraction(p)
        return float(sum(math.comb(trials, i) * p**i * (1 - p) ** (trials - i) for i in range(k + 1)))

    found = clopper_pearson(successes, trials, confidence=confidence)
    assert 1 - at_most(successes - 1, found.low) == pytest.approx((1 - confidence) / 2, abs=1e-9)
    assert at_most(successes, found.high) == pytest.approx((1 - confidence) / 2, abs=1e-9)
