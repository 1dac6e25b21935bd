"""Paired tests: is B better than A on the same units? And Holm's correction for several tests. Used by: evaluate, cli.

The unit is what was drawn: a document, a family of near-duplicates, or a task. Items and samples of one unit are added
first, because repeated samples are not further evidence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from codex_ml.statistics.bootstrap import Aggregate, Floats, Interval, paired_sums

EXACT_UNITS = 14  # at most 2^14 assignments are enumerated; above, PERMUTATIONS are drawn
PERMUTATIONS = 9_999
CELLS = 1 << 20  # assignments times units per draw
NEARLY = 1e-9  # two differences closer than this share of their terms are equal: their sums are rounded differently


def randomisation_test(a: ArrayLike, b: ArrayLike, aggregate: Aggregate, *, seed: int) -> float:
    """Return the two-sided p-value of aggregate(b) - aggregate(a) when the labels A and B are exchangeable per unit.

    Fisher 1935; Yeh 2000 for corpus metrics. Exact by enumeration up to `EXACT_UNITS` units that differ; above, the
    Monte Carlo p-value (b + 1) / (m + 1) of Phipson and Smyth 2010 over m = `PERMUTATIONS` draws.

    Args:
        a, b: (u, k), one row per unit, in the same order of units.

    Raises:
        ValueError: if the shapes differ, there are no units, or the difference is not finite.
    """
    first, second = paired_sums(a, b)
    if len(first) == 0:
        raise ValueError("no units to compare")
    totals = np.stack([first.sum(axis=0), second.sum(axis=0)])
    values = aggregate(totals)
    if not np.isfinite(values).all():
        raise ValueError(f"the values to compare are not finite: {values[0]} and {values[1]}")
    observed = abs(float(values[1] - values[0]))
    gaps = (second - first)[np.any(first != second, axis=1)]
    if len(gaps) == 0:
        return 1.0
    extreme = count = 0
    # Swapping the units of a set moves the sum of their gaps from B to A. All 2^u sets come in pairs of equal size of
    # the difference (a set and its complement), so half of them are enough for the exact test.
    exact = len(gaps) <= EXACT_UNITS
    for swapped in _all_swaps(len(gaps)) if exact else _random_swaps(len(gaps), seed):
        moved = swapped @ gaps
        differences = aggregate(totals[1] - moved) - aggregate(totals[0] + moved)
        slack = NEARLY * max(observed, float(np.abs(values).max()))
        extreme += int(np.count_nonzero(~(np.abs(differences) < observed - slack)))
        count += len(swapped)
    return extreme / count if exact else (extreme + 1) / (count + 1)


def _all_swaps(units: int) -> Iterator[Floats]:
    """Yield the (2^(units - 1), units) sets in which the first unit keeps its labels."""
    rest = np.array(list(itertools.product([0.0, 1.0], repeat=units - 1))).reshape(2 ** (units - 1), units - 1)
    yield np.concatenate([np.zeros((len(rest), 1)), rest], axis=1)


def _random_swaps(units: int, seed: int) -> Iterator[Floats]:
    """Yield `PERMUTATIONS` random sets in chunks (r, units)."""
    random = np.random.Generator(np.random.PCG64(seed))
    step = max(1, CELLS // units)
    for start in range(0, PERMUTATIONS, step):
        size = min(step, PERMUTATIONS - start)
        bits = np.unpackbits(random.integers(256, size=(size, -(-units // 8)), dtype=np.uint8), axis=1)
        yield bits[:, :units].astype(np.float64)


def sign_flip(differences: ArrayLike, *, seed: int = 1) -> float:
    """Return the two-sided p-value of the mean of paired differences (n,) under flips of their signs.

    >>> sign_flip([1, 1, 1, 1, 1, 1, 1, 1, -1])
    0.0390625
    """
    gaps = np.asarray(differences, dtype=np.float64).reshape(-1, 1)
    return randomisation_test(np.zeros_like(gaps), gaps, lambda sums: sums[..., 0], seed=seed)


def mcnemar(b: int, c: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (McNemar 1947; binomial form).

    Args:
        b: units that only the first model has right.
        c: units that only the second model has right.

    >>> round(mcnemar(5, 15), 6)
    0.041389

    Raises:
        ValueError: if a count is negative.
    """
    from scipy.stats import binomtest  # imported here, because it takes 0.9 s

    if b < 0 or c < 0:
        raise ValueError(f"counts of {b} and {c}; they must be at least 0")
    return float(binomtest(b, b + c).pvalue) if b + c else 1.0


def paired_proportions(both: int, only_a: int, only_b: int, neither: int, *, confidence: float = 0.95) -> Interval:
    """Return the interval of the share that B has right minus the share that A has right, of the same units.

    Newcombe 1998 (Statistics in Medicine 17:2635), method 10: the score intervals of both shares, joined with their
    correlation. It holds with any number of units and of flips, where a bootstrap sees too few flips.

    >>> round(paired_proportions(36, 2, 12, 0).low, 4)
    0.0569

    Raises:
        ValueError: if a count is negative or all are 0.
    """
    units = both + only_a + only_b + neither
    if min(both, only_a, only_b, neither) < 0 or units == 0:
        raise ValueError(f"counts of {both}, {only_a}, {only_b} and {neither}; they must be at least 0, and not all 0")
    a, b = (both + only_a) / units, (both + only_b) / units
    score_a, score_b = (_score_interval(share, units, confidence) for share in (a, b))
    product = math.sqrt((both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither))
    excess = float(both * neither - only_a * only_b)
    if excess > 0:
        excess = max(excess - units / 2, 0.0)  # the correction for continuity
    correlation = excess / product if product else 0.0
    down_a, up_a, down_b, up_b = a - score_a.low, score_a.high - a, b - score_b.low, score_b.high - b
    below = math.sqrt(max(0.0, down_b**2 - 2 * correlation * down_b * up_a + up_a**2))
    above = math.sqrt(max(0.0, up_b**2 - 2 * correlation * up_b * down_a + down_a**2))
    return Interval(b - a - below, b - a + above)


def _score_interval(share: float, units: int, confidence: float) -> Interval:
    """Return Wilson's score interval of one proportion."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = share + z * z / (2 * units)
    reach = z * math.sqrt(share * (1 - share) / units + z * z / (4 * units * units))
    return Interval((centre - reach) / (1 + z * z / units), (centre + reach) / (1 + z * z / units))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number, in the given order (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Raises:
        ValueError: if one is not between 0 and 1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p-values {list(p_values)}; each must be between 0 and 1")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(values[order] * (len(values) - np.arange(len(values))))
    return [float(value) for value in np.minimum(adjusted, 1.0)]
