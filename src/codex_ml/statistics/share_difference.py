"""The interval of the difference of two independent shares.

Used by: safety_audit.
"""

from __future__ import annotations

import math

from codex_ml.statistics.proportions import Interval


def wilson(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Return the score interval of a binomial proportion (Wilson 1927).

    With p = successes / n and z the normal quantile: (2 n p + z^2 -+ z sqrt(z^2 + 4 n p (1 - p))) / (2 (n + z^2)).

    Raises:
        ValueError: unless 0 <= successes <= trials and trials is at least 1.
    """
    from scipy.special import ndtri  # imported here, because only some numbers need it

    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes of {trials} trials")
    z = float(ndtri((1 + confidence) / 2))
    middle = 2 * successes + z * z
    reach = z * math.sqrt(z * z + 4 * successes * (trials - successes) / trials)
    low = 0.0 if successes == 0 else (middle - reach) / (2 * (trials + z * z))
    high = 1.0 if successes == trials else (middle + reach) / (2 * (trials + z * z))
    return Interval(low, high, "wilson")


def difference_of_shares(first: tuple[int, int], second: tuple[int, int], *, confidence: float = 0.95) -> Interval:
    """Return the interval of p1 - p2 of two independent samples (Newcombe 1998, Statistics in Medicine 17, method 10).

    The distances from the difference d to its limits come from the score intervals (l, u) of the shares:
    d - sqrt((p1 - l1)^2 + (u2 - p2)^2) and d + sqrt((u1 - p1)^2 + (p2 - l2)^2).

    Args:
        first, second: successes and trials of each sample.

    Raises:
        ValueError: as `wilson`.
    """
    one, two = (wilson(*sample, confidence=confidence) for sample in (first, second))
    p1, p2 = first[0] / first[1], second[0] / second[1]
    low = p1 - p2 - math.hypot(p1 - one.low, two.high - p2)
    high = p1 - p2 + math.hypot(one.high - p1, p2 - two.low)
    return Interval(max(-1.0, low), min(1.0, high), "newcombe")
