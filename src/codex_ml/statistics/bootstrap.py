"""Confidence intervals: the studentised bootstrap of a function of sums, and the exact binomial interval.

A metric is a function of sums over items (`Aggregate`). What is drawn is the unit: a document, or a family of
near-duplicates, because items of one unit are not independent. Used by: evaluate, safety_audit, cli.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Aggregate: TypeAlias = Callable[[Floats], Floats]  # sums (..., k) -> values (...), both float64

SMALLEST_UNITS = 10  # with fewer units no interval is given
CHUNK = 256  # resamples per draw of `bootstrap_ratio`
CELLS = 1 << 20  # resamples times units per draw: 8 MB per array
STEP = 1e-4  # of a sum, for its derivative


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float


def unit_sums(columns: ArrayLike, units: ArrayLike) -> Floats:
    """Add the rows of each unit.

    Args:
        columns: (n, k), the numbers of each item.
        units: (n,), the unit of each item; any type that numpy sorts.

    Returns:
        (u, k) float64, one row per unit, in sorted order of the units.

    >>> unit_sums([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], ["b", "a", "b"]).tolist()
    [[3.0, 4.0], [6.0, 8.0]]

    Raises:
        ValueError: unless `columns` has two dimensions and `units` has one entry per row.
    """
    rows, names = np.asarray(columns, dtype=np.float64), np.asarray(units)
    if rows.ndim != 2 or names.shape != rows.shape[:1]:
        raise ValueError(f"columns of shape {rows.shape} with units of shape {names.shape}")
    unique, index = np.unique(names, return_inverse=True)
    sums = np.empty((len(unique), rows.shape[1]))
    for column in range(rows.shape[1]):
        sums[:, column] = np.bincount(index, weights=rows[:, column], minlength=len(unique))
    return sums


def interval(sums: ArrayLike, aggregate: Aggregate, *, resamples: int, confidence: float, seed: int) -> Interval | None:
    """Return the interval of aggregate(sums.sum(axis=0)) by the studentised bootstrap over units.

    Efron and Tibshirani 1993, section 12.5; the standard error is the infinitesimal jackknife's, in the sample and in
    each resample (Davison and Hinkley 1997, section 2.7.2).

    Args:
        sums: (u, k), one row per unit, as `unit_sums` returns them.

    Returns:
        None with fewer than `SMALLEST_UNITS` units, or where the value is not finite.
    """
    rows = np.asarray(sums, dtype=np.float64)
    return _studentised(rows, aggregate, resamples=resamples, confidence=confidence, seed=seed)


def paired_interval(
    a: ArrayLike, b: ArrayLike, aggregate: Aggregate, *, resamples: int, confidence: float, seed: int
) -> Interval | None:
    """Return the interval of aggregate(b) - aggregate(a): both models are drawn with the same units.

    Args:
        a, b: (u, k), one row per unit, in the same order of units.

    Raises:
        ValueError: if the shapes differ.
    """
    first, second = paired_sums(a, b)
    width = first.shape[1]

    def difference(sums: Floats) -> Floats:
        return aggregate(sums[..., width:]) - aggregate(sums[..., :width])

    both = np.concatenate([first, second], axis=1)
    return _studentised(both, difference, resamples=resamples, confidence=confidence, seed=seed)


def paired_sums(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    """Return both as float64 arrays of equal shape (u, k).

    Raises:
        ValueError: if the shapes differ or are not two-dimensional.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(f"sums of shape {first.shape} against sums of shape {second.shape}")
    return first, second


def _studentised(
    rows: Floats, aggregate: Aggregate, *, resamples: int, confidence: float, seed: int
) -> Interval | None:
    if len(rows) < SMALLEST_UNITS:
        return None
    value, error = (float(part[0]) for part in _value_and_error(rows, np.ones((1, len(rows))), aggregate))
    if not math.isfinite(value) or not math.isfinite(error):
        return None
    if error <= 1e-12 * abs(value):
        return Interval(value, value)
    pivots = np.empty(resamples)
    done = 0
    for counts in _resample_counts(len(rows), resamples, seed):
        values, errors = _value_and_error(rows, counts, aggregate)
        with np.errstate(divide="ignore", invalid="ignore"):
            pivots[done : done + len(counts)] = (values - value) / errors
        done += len(counts)
    pivots = pivots[np.isfinite(pivots)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(pivots, [tail, 1 - tail])
    return Interval(float(value - high * error), float(value - low * error))


def _resample_counts(units: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield (r, units) float64: how often each unit occurs in each of r resamples."""
    random = np.random.Generator(np.random.PCG64(seed))
    step = max(1, CELLS // units)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        draws = random.integers(units, size=(size, units))
        draws += np.arange(size)[:, None] * units
        yield np.bincount(draws.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)


def _value_and_error(rows: Floats, counts: Floats, aggregate: Aggregate) -> tuple[Floats, Floats]:
    """Return the value (r,) and its standard error (r,) for counts (r, u).

    The influence of unit i is gradient . (x_i - mean); the variance of the value is the sum of its squares.
    """
    sums = counts @ rows
    gradient = _gradient(sums, np.abs(rows).sum(axis=0), aggregate)
    influence = gradient @ rows.T
    influence -= (np.einsum("ru,ru->r", counts, influence) / rows.shape[0])[:, None]
    variance = np.einsum("ru,ru,ru->r", counts, influence, influence)
    return aggregate(sums), np.sqrt(variance)


def _gradient(sums: Floats, scale: Floats, aggregate: Aggregate) -> Floats:
    """Return the derivatives (r, k) of the aggregate at sums (r, k), by central differences."""
    gradient = np.zeros_like(sums)
    for column in np.flatnonzero(scale):
        step = STEP * np.where(sums[:, column] == 0, scale[column], np.abs(sums[:, column]))
        moved = sums.copy()
        moved[:, column] += step
        above = aggregate(moved)
        moved[:, column] -= 2 * step
        gradient[:, column] = (above - aggregate(moved)) / (2 * step)
    return gradient


def bootstrap_ratio(
    numerators: ArrayLike, denominators: ArrayLike, *, resamples: int, confidence: float, seed: int
) -> Interval:
    """Return the percentile-bootstrap interval of sum(numerators) / sum(denominators), resampling documents.

    Efron and Tibshirani 1993, section 13.3. Tokens of one document are not independent, so whole documents are drawn.

    Args:
        numerators, denominators: (n_documents,), one entry per document.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    random = np.random.Generator(np.random.PCG64(seed))
    even = np.full(len(above), 1 / len(above))
    ratios = np.empty(resamples)
    for start in range(0, resamples, CHUNK):
        counts = random.multinomial(len(above), even, size=min(CHUNK, resamples - start)).astype(np.float64)
        ratios[start : start + len(counts)] = (counts @ above) / (counts @ below)
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Interval(float(low), float(high))


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Return the exact interval of a binomial proportion (Clopper and Pearson 1934).

    Raises:
        ValueError: unless 0 <= successes <= trials and trials is at least 1.
    """
    from scipy.stats import binomtest  # imported here, because it takes 0.9 s and only the audit needs it

    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes of {trials} trials")
    interval = binomtest(successes, trials).proportion_ci(confidence, method="exact")
    return Interval(float(interval.low), float(interval.high))
