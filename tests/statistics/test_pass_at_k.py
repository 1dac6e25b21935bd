"""pass@k against known values and against the enumeration of all draws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from codex_ml.statistics.pass_at_k import pass_at_k


@pytest.mark.parametrize(
    ("n", "c", "k", "value"), [(10, 3, 1, 0.3), (10, 3, 5, 0.91667), (10, 0, 10, 0.0), (10, 8, 3, 1.0), (1, 1, 1, 1.0)]
)
def test_known_values(n, c, k, value):
    assert round(float(pass_at_k(n, c, k)), 5) == value


def test_it_is_the_share_of_all_draws_with_a_pass():
    outcomes = [1, 1, 0, 0, 0, 0, 0]
    for k in range(1, 8):
        draws = [any(draw) for draw in itertools.combinations(outcomes, k)]
        assert float(pass_at_k(7, 2, k)) == pytest.approx(sum(draws) / len(draws), abs=1e-12)


def test_tasks_are_computed_at_once():
    n, c = np.array([10, 10, 5]), np.array([3, 0, 5])
    assert pass_at_k(n, c, 5) == pytest.approx([0.916667, 0, 1], abs=1e-6)
    assert pass_at_k(10, c, 1) == pytest.approx([0.3, 0.0, 0.5])


@pytest.mark.parametrize(
    ("n", "c", "k", "message"),
    [
        (4, 1, 5, "at least 5 samples per task, but there are 4"),
        ([10, 3], [1, 1], 5, "there are 3"),
        (10, 3, 0, "k = 0"),
        (10, 11, 1, "between 0 and"),
        (10, -1, 1, "between 0 and"),
        (10, 2.5, 1, "whole numbers"),
        (float("nan"), 1, 1, "whole numbers"),
        (10, float("inf"), 1, "whole numbers"),
        (1e300, 1, 1, "whole numbers below"),
    ],
)
def test_what_has_no_unbiased_estimate_is_refused(n, c, k, message):
    with pytest.raises(ValueError, match=message):
        pass_at_k(n, c, k)


def test_many_samples_do_not_overflow():
    assert float(pass_at_k(100_000, 1, 100)) == pytest.approx(100 / 100_000, rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 50, 2**52])
def test_as_many_draws_as_samples_find_every_pass(n):
    k = min(n, 50)
    assert [float(pass_at_k(k, c, k)) for c in (0, 1, k)] == [0, 1, 1]
    assert float(pass_at_k(n, n, 1)) == 1
    assert float(pass_at_k(n, 1, 1)) == pytest.approx(1 / n, rel=1e-3, abs=1e-16)


def test_no_tasks_have_no_values():
    assert pass_at_k([], [], 3).shape == (0,)
