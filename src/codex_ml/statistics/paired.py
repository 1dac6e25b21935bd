"""Paired tests: is B better than A on the same units? And Holm's correction for several tests. Used by: evaluate, cli.

The unit is what was drawn: a document, a family of near-duplicates, or a task. Items and samples of one unit are added
first, because repeated samples are not further evidence.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from codex_ml.statistics.bootstrap import Aggregate, Floats, paired_sums

EXACT_UNITS = 14  # at most 2^14 assignments are enumerated; above, PERMUTATIONS are drawn
PERMUTATIONS = 9_999
BLOCK = 1024  # units whose random sets are drawn at once: 1.3 MB
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
    with np.errstate(all="ignore"):  # sums without a value, or too large for a double, are refused below
        totals = np.stack([first.sum(axis=0), second.sum(axis=0)])
        values = aggregate(totals)
    if not np.isfinite(values).all():
        raise ValueError(f"the values to compare are not finite: {values[0]} and {values[1]}")
    observed = abs(float(values[1] - values[0]))
    gaps = (second - first)[np.any(first != second, axis=1)]
    if len(gaps) == 0:
        return 1.0
    # Swapping the units of a set moves the sum of their gaps from B to A. All 2^u sets come in pairs of equal size of
    # the difference (a set and its complement), so half of them are enough for the exact test.
    exact = len(gaps) <= EXACT_UNITS
    moved = _all_swaps(len(gaps)) @ gaps if exact else _random_moves(gaps, seed)
    with np.errstate(all="ignore"):  # a set of swaps that leaves no value counts as extreme
        differences = aggregate(totals[1] - moved) - aggregate(totals[0] + moved)
    slack = NEARLY * max(observed, float(np.abs(values).max()))
    extreme = int(np.count_nonzero(~(np.abs(differences) < observed - slack)))
    return extreme / len(moved) if exact else (extreme + 1) / (len(moved) + 1)


def _all_swaps(units: int) -> Floats:
    """Return the (2^(units - 1), units) sets in which the first unit keeps its labels."""
    rest = np.array(list(itertools.product([0.0, 1.0], repeat=units - 1))).reshape(2 ** (units - 1), units - 1)
    return np.concatenate([np.zeros((len(rest), 1)), rest], axis=1)


def _random_moves(gaps: Floats, seed: int) -> Floats:
    """Return (`PERMUTATIONS`, k) sums of the gaps (u, k) over random sets of units.

    Eight units have 256 subsets. Their sums are in a table, and a random byte picks one: per set, eight units cost one
    look-up and one addition per column instead of eight multiplications. Units are read block by block, so that memory
    does not grow with them.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    subsets = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float64)
    moved = np.zeros((PERMUTATIONS, gaps.shape[1]))
    picked = np.empty_like(moved)
    for start in range(0, len(gaps), BLOCK):
        block = gaps[start : start + BLOCK]
        padded = np.pad(block, ((0, -len(block) % 8), (0, 0))).reshape(-1, 8, gaps.shape[1])
        choices = random.integers(256, size=(len(padded), PERMUTATIONS), dtype=np.uint8)
        for eight, choice in zip(padded, choices, strict=True):
            np.take(subsets @ eight, choice, axis=0, out=picked, mode="clip")
            moved += picked
    return moved


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
