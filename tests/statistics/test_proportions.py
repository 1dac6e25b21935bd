"""Intervals of proportions against published values, definitions and closed forms."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from codex_ml.statistics.proportions import clopper_pearson, paired_proportions

Z = 1.959963984540054  # of 95 %


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


@pytest.mark.parametrize("trials", [10**6, 10**9, 10**12])
def test_the_exact_interval_of_huge_numbers_keeps_its_digits(trials):
    """No success: 1 - 0.025^(1/n); half of them: the normal approximation."""
    assert clopper_pearson(0, trials).high == pytest.approx(-math.expm1(math.log(0.025) / trials), rel=1e-9)
    half = clopper_pearson(trials // 2, trials)
    assert half.high - half.low == pytest.approx(Z / math.sqrt(trials), rel=2e-3)


def closed_form(only_a, only_b, units):
    """The limits as roots of a polynomial of degree four (Yang, Sun and Hardin 2013, Statistics in Medicine 32:1336)."""
    gap, flips, g = only_b - only_a, only_a + only_b, Z * Z
    n = units / g
    roots = np.roots(
        [
            units**2 * (n + 1) ** 2,
            -units * gap * (n + 1) * (4 * n + 1),
            2 * units * gap**2 * (3 * n + 2) / g - units**2 * (flips / g + 1),
            units * gap * (2 * flips / g + 1) - gap**3 * (4 * n + 1) / g,
            gap**2 * (gap**2 / g - flips) / g,
        ]
    )
    real = roots.real[np.abs(roots.imag) < 1e-6]
    return real.min(), real.max()


def test_the_score_interval_gives_the_published_values():
    """Airway data of Bentur 2009 in Fagerland, Lydersen and Laake 2014 (Statistics in Medicine 33:2850): 1 and 7 of 21."""
    found = paired_proportions(7, 1, 21)
    assert (round(found.low, 3), round(found.high, 3), found.method) == (-0.517, -0.026, "score")


@pytest.mark.parametrize("counts", [(7, 1, 21), (2, 12, 50), (12, 30, 220), (20, 40, 160), (6, 16, 161), (3, 3, 400)])
def test_the_score_interval_agrees_with_its_closed_form(counts):
    found = paired_proportions(*counts)
    assert (found.low, found.high) == pytest.approx(closed_form(*counts), abs=1e-9)


@pytest.mark.parametrize("counts", [(7, 1, 21), (0, 5, 40), (9, 12, 164)])
def test_at_its_limits_the_score_test_has_a_p_value_of_one_minus_the_confidence(counts):
    """The most likely share that only A has right, under the limit, by a search instead of the quadratic equation."""
    only_a, only_b, units = counts
    found = paired_proportions(*counts)
    for limit in (found.low, found.high):

        def loss(q, limit=limit):
            shares = np.array([q, q + limit, 1 - 2 * q - limit])
            return -np.dot([only_a, only_b, units - only_a - only_b], np.log(np.maximum(shares, 1e-300)))

        q = minimize_scalar(loss, (max(0, -limit), (1 - limit) / 2), bounds=(max(0, -limit), (1 - limit) / 2)).x
        error = math.sqrt((2 * q + limit - limit**2) / units)
        assert abs((only_b - only_a) / units - limit) / error == pytest.approx(Z, rel=1e-4)


@pytest.mark.parametrize("units", [1, 5, 164, 10**9])
def test_without_a_flip_the_interval_has_a_width(units):
    found = paired_proportions(0, 0, units)
    assert -found.low == found.high == pytest.approx(Z * Z / (units + Z * Z), rel=1e-12)


def test_the_score_interval_turns_around_with_the_models():
    found, turned = paired_proportions(3, 9, 164), paired_proportions(9, 3, 164)
    assert (found.low, found.high) == (-turned.high, -turned.low)
    narrower = paired_proportions(3, 9, 164, confidence=0.8)
    assert found.low < narrower.low < 6 / 164 < narrower.high < found.high


@pytest.mark.parametrize("counts", [(0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 5, 5), (0, 1, 164), (3, 3, 6), (1, 8, 10**12)])
def test_no_number_of_flips_leaves_the_range(counts):
    found = paired_proportions(*counts)
    assert -1 <= found.low < found.high <= 1
    assert found.low <= (counts[1] - counts[0]) / counts[2] <= found.high


@pytest.mark.parametrize("counts", [(0, 0, 0), (-1, 2, 9), (2, -1, 9), (3, 4, 6)])
def test_flips_without_their_units_and_negative_counts_are_refused(counts):
    with pytest.raises(ValueError, match="flips of"):
        paired_proportions(*counts)
