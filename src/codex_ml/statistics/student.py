"""The interval of a mean by Student's t distribution, for few values. Used by: safety_audit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from codex_ml.statistics.proportions import Interval


def student_interval(values: Sequence[float], *, confidence: float) -> Interval | None:
    """Return mean +- t s / sqrt(n), with t the quantile of Student's distribution with n - 1 degrees of freedom.

    Exact for normal values. Where large values are rarer than small ones, as among exposures, the low end is too low
    rather than too high. None with fewer than two values.

    >>> found = student_interval([1.0, 2.0, 3.0], confidence=0.95)
    >>> round(found.low, 3), round(found.high, 3)
    (-0.484, 4.484)
    """
    from scipy.special import stdtrit  # imported here, because only some numbers need it

    count = len(values)
    if count < 2:
        return None
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    reach = float(stdtrit(count - 1, 0.5 + confidence / 2)) * math.sqrt(variance / count)
    return Interval(mean - reach, mean + reach, "student")
