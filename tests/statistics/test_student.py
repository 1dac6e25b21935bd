"""Student's interval against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from codex_ml.statistics.bootstrap import Interval
from codex_ml.statistics.student import student_interval


@pytest.mark.parametrize("count", [2, 3, 8, 48])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_interval_is_that_of_scipy(count, confidence):
    values = np.random.Generator(np.random.PCG64(count)).exponential(1.44, count)
    expected = t.interval(confidence, count - 1, values.mean(), values.std(ddof=1) / np.sqrt(count))
    found = student_interval(values.tolist(), confidence=confidence)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)


def test_one_value_has_no_interval_and_equal_values_have_one_of_no_width():
    assert student_interval([3.0], confidence=0.95) is None
    assert student_interval([9.5] * 8, confidence=0.95) == Interval(9.5, 9.5, "student")
