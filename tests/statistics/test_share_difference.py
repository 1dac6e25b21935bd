"""The score interval, and the interval of a difference of shares, against the table of Newcombe (1998)."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from codex_ml.statistics.share_difference import difference_of_shares, wilson

# Newcombe 1998, "Interval estimation for the difference between independent proportions", table II, method 10
PUBLISHED = [
    ((56, 70), (48, 80), 0.0524, 0.3339),
    ((9, 10), (3, 10), 0.1705, 0.8090),
    ((6, 7), (2, 7), 0.0582, 0.8062),
    ((5, 56), (0, 29), -0.0381, 0.1926),
    ((0, 10), (0, 20), -0.1611, 0.2775),
    ((0, 10), (0, 10), -0.2775, 0.2775),
    ((10, 10), (0, 20), 0.6791, 1.0000),
    ((10, 10), (0, 10), 0.6075, 1.0000),
]


@pytest.mark.parametrize(("first", "second", "low", "high"), PUBLISHED)
def test_the_difference_has_the_published_interval(first, second, low, high):
    found = difference_of_shares(first, second)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    mirrored = difference_of_shares(second, first)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (1, 400), (399, 400)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_score_interval_is_that_of_scipy(successes, trials, confidence):
    found = wilson(successes, trials, confidence=confidence)
    expected = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 3), (4, 3)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match=f"{successes} successes of {trials} trials"):
        wilson(successes, trials)
