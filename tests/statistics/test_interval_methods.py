"""Every interval names the method that made it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from codex_ml.statistics.bootstrap import exponential_interval, interval, paired_interval
from codex_ml.statistics.proportions import Interval, clopper_pearson, paired_proportions
from codex_ml.statistics.roc import Scores
from codex_ml.statistics.share_difference import difference_of_shares, wilson
from codex_ml.statistics.student import student_interval

DRAWN = {"resamples": 99, "confidence": 0.95, "seed": 1}
SUMS = np.random.default_rng(1).uniform(1, 2, (40, 2))
PASSES = np.array([[1.0, 1.0]] * 30 + [[0.0, 1.0]] * 20)


def ratio(sums):
    return sums[..., 0] / sums[..., 1]


@pytest.mark.parametrize(
    ("made", "method"),
    [
        (lambda: interval(SUMS, ratio, **DRAWN), "bootstrap"),
        (lambda: interval(SUMS / [[4, 1]], ratio, **DRAWN, bounds=(0, 1)), "bootstrap"),
        (lambda: interval(np.tile([3.0, 2.0], (30, 1)), ratio, **DRAWN), "bootstrap"),
        (lambda: interval(PASSES, ratio, **DRAWN, bounds=(0, 1)), "exact"),
        (lambda: exponential_interval(SUMS, ratio, **DRAWN), "bootstrap"),
        (lambda: paired_interval(SUMS, SUMS[::-1], ratio, **DRAWN), "bootstrap"),
        (lambda: Scores.of(SUMS[:, 0], SUMS[:, 1]).area_interval(confidence=0.95, seed=1), "bootstrap"),
        (lambda: clopper_pearson(3, 9), "exact"),
        (lambda: paired_proportions(3, 4, 20), "score"),
        (lambda: wilson(3, 9), "wilson"),
        (lambda: difference_of_shares((3, 9), (4, 20)), "newcombe"),
        (lambda: student_interval([1.0, 2.0, 4.0], confidence=0.95), "student"),
    ],
)
def test_each_function_names_its_method(made: Callable[[], Interval], method: str) -> None:
    assert made().method == method


def test_no_interval_has_a_method_by_default() -> None:
    (field,) = (field for field in dataclasses.fields(Interval) if field.name == "method")
    assert field.default is dataclasses.MISSING
