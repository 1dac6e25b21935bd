"""Confidence intervals by resampling: the symmetric studentised bootstrap of a function of sums.

A metric is a function of sums over items (`Aggregate`). What is drawn is the unit: a document, or a family of
near-duplicates, because items of one unit are not independent.

The interval is value +- q s, where s is the jackknife's standard error and q the quantile of |value* - value| / s* over
resamples (Hall 1988; Efron and Tibshirani 1993, section 12.5). A resample has its own standard error s*, by the
infinitesimal jackknife (Davison and Hinkley 1997, section 2.7.2), so q is large where few units carry most of the
bytes: there the percentile interval covers 85 to 90 % instead of 95 %. Both errors come from the sums alone, because
the influence of a unit is the derivative of the aggregate times the unit's distance from the mean.
`benchmarks/interval_coverage.py` measures the coverage, and sets the two constants.

Used by: evaluate, safety_audit, cli.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codex_ml.statistics.proportions import Interval, binomial_interval

Floats: TypeAlias = NDArray[np.float64]
Aggregate: TypeAlias = Callable[[Floats], Floats]  # sums (..., k) -> values (...), both float64

SMALLEST_UNITS = 20  # from here on the interval covers what it says; with fewer units none is given
VARIED_UNITS = 8  # units that must differ from the most common one; two passes of 164 are too few for a bootstrap
UNBOUNDED = (-math.inf, math.inf)
CELLS = 1 << 18  # resamples times units per draw: 2 MB per array, which stays in the cache
LARGEST_EXPONENT = 709.0  # exp of more is no double
STEP = 1e-4  # of a sum, for its derivative
ROUNDING = 1e-9  # numbers closer than this share of them are equal: their sums are rounded differently
TINY = 1e-12  # a standard error below this share of the values is rounding
FLAT = 1e-6  # a resample's standard error below this share of the sample's is that of central differences


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


@np.errstate(divide="ignore", invalid="ignore", over="ignore")  # of sums without a value, or too large for a double
def interval(
    sums: ArrayLike,
    aggregate: Aggregate,
    *,
    resamples: int,
    confidence: float,
    seed: int,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Interval | None:
    """Return the interval of aggregate(sums.sum(axis=0)), where units are the sample.

    With two finite `bounds` the exact binomial interval takes over where a bootstrap cannot know: if each unit is a
    trial (all at one of the bounds, such as passed or failed), or if fewer than `VARIED_UNITS` units differ from the
    rest, such as 164 tasks that all fail; in both cases only if the units count alike. It is wider than needed for
    values between the bounds.

    Args:
        sums: (u, k), one row per unit, as `unit_sums` returns them. Only `counted_units` are the sample.
        bounds: lowest and highest possible value; the interval does not leave them.

    Returns:
        None with fewer than `SMALLEST_UNITS` units (trials: any number will do), with too few units that differ, at a
        bound without trials, or where the value is not finite. Width 0 if all units are equal and the value is at no
        bound.

    Raises:
        ValueError: if `sums` does not have two dimensions, or the value is outside the bounds.
    """
    rows = np.asarray(sums, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"sums of shape {rows.shape}; they must be (units, columns)")
    rows = counted_units(rows, aggregate)
    value = float(aggregate(rows.sum(axis=0))) if len(rows) else math.nan
    if not (math.isfinite(value) and np.isfinite(rows).all()):
        return None
    low, high = bounds
    slack = ROUNDING * max(abs(value), 1.0)
    if not low - slack <= value <= high + slack:
        raise ValueError(f"the value {value} is outside of its bounds {low} and {high}")
    value = float(_snapped(np.asarray(value), bounds))
    if math.isfinite(high - low) and _is_binomial(rows, aggregate, value, bounds):
        ones = (value - low) / (high - low) * len(rows)
        share = binomial_interval(round(ones, 9), len(rows), confidence)
        return Interval(low + share.low * (high - low), low + share.high * (high - low), "exact")
    if value in bounds:  # no unit differs, and no count of trials says how far away the true value may be
        return None
    found = _studentised(rows, aggregate, abs(value), resamples=resamples, confidence=confidence, seed=seed)
    return found and Interval(max(low, found.low), min(high, found.high), found.method)


def exponential_interval(
    sums: ArrayLike, exponent: Aggregate, *, resamples: int, confidence: float, seed: int
) -> Interval | None:
    """Return the interval of exp(exponent(sums.sum(axis=0))), such as a perplexity, as exp of that of the exponent.

    An interval that is symmetric around a perplexity reaches below 0, and of words that cost 20 nats on average, half
    of them more or less, it covers 90 %; this one covers 94 %. Raises as `interval`.

    Returns:
        None also where the upper limit is too large for a double.
    """
    found = interval(sums, exponent, resamples=resamples, confidence=confidence, seed=seed)
    if found is None or found.high > LARGEST_EXPONENT:
        return None
    return Interval(math.exp(found.low), math.exp(found.high), found.method)


def _snapped(values: Floats, bounds: tuple[float, float]) -> Floats:
    """Return the values; one that only rounding keeps from a bound is that bound, such as a BLEU of 100 + 4e-14."""
    size = bounds[1] - bounds[0]
    for bound in filter(math.isfinite, bounds):
        near = ROUNDING * (size if math.isfinite(size) else abs(bound))
        values = np.where(np.abs(values - bound) <= near, bound, values)
    return values


@np.errstate(divide="ignore", invalid="ignore", over="ignore")  # of sums without a value, or too large for a double
def counted_units(rows: Floats, aggregate: Aggregate) -> Floats:
    """Return the units that a metric counts: (n, k), without those that add nothing and have no value of their own.

    The rate of Python files that parse does not count other files: with 3 Python files among 100 documents there are 3
    trials, not 100.
    """
    if rows.all():
        return rows
    return rows[rows.any(axis=1) | ~np.isnan(aggregate(rows))]


def _is_binomial(rows: Floats, aggregate: Aggregate, value: float, bounds: tuple[float, float]) -> bool:
    """Return whether the units are trials that count alike, or too few of them differ for a bootstrap."""
    if not count_alike(rows, aggregate):
        return False
    each = _snapped(aggregate(rows), bounds)
    if np.isin(each, bounds).all():
        return True
    return len(rows) >= SMALLEST_UNITS and 0 < _varied(_deviations(rows, aggregate)) < VARIED_UNITS


@np.errstate(divide="ignore", invalid="ignore", over="ignore")  # of sums without a value, or too large for a double
def count_alike(rows: Floats, aggregate: Aggregate) -> bool:
    """Return whether the value is the plain mean of the values of the units, all of them and without any one.

    The mean alone is not enough: of the weights 1, 1, 100, 100, one half of each pair may be right by chance. Where all
    units have one value, any weights give that mean, so the rows must be equal: ten wrong answers of which one counts
    a hundred times are not ten trials.

    Args:
        rows: (u, k), the columns of each unit.
    """
    each, total = aggregate(rows), rows.sum(axis=0)
    if (each == each[0]).all():
        return bool((rows == rows[0]).all())
    left_out = (each.sum() - each) / (len(rows) - 1)
    alike = np.isclose(aggregate(total - rows), left_out, rtol=ROUNDING, atol=TINY)
    return bool(alike.all()) and math.isclose(
        float(each.mean()), float(aggregate(total)), rel_tol=ROUNDING, abs_tol=TINY
    )


@np.errstate(divide="ignore", invalid="ignore", over="ignore")  # of sums without a value, or too large for a double
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
    larger = float(np.abs(aggregate(both.sum(axis=0).reshape(2, width))).max())
    return _studentised(both, difference, larger, resamples=resamples, confidence=confidence, seed=seed)


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
    rows: Floats, aggregate: Aggregate, scale: float, *, resamples: int, confidence: float, seed: int
) -> Interval | None:
    """Return the interval of the bootstrap; `scale` is the size of the values, beside which errors are rounding."""
    rows = counted_units(rows, aggregate)
    if len(rows) < SMALLEST_UNITS:
        return None
    value = float(aggregate(rows.sum(axis=0)))
    deviations = _deviations(rows, aggregate)
    error = math.sqrt((len(rows) - 1) / len(rows) * float(np.square(deviations).sum()))
    if not math.isfinite(value) or not math.isfinite(error):
        return None
    if error <= TINY * scale:
        return Interval(value, value, "bootstrap")
    if _varied(deviations) < VARIED_UNITS:
        return None
    pivots = np.empty(resamples)
    done = 0
    for counts in _resample_counts(len(rows), resamples, seed):
        values, errors = _value_and_error(rows, counts, aggregate)
        spread = np.where(errors > FLAT * error, errors, 0.0)
        pivots[done : done + len(counts)] = np.abs(values - value) / spread
        done += len(counts)
    # A resample without a value or without spread could be anywhere: it counts as infinitely far.
    pivots[np.isnan(pivots)] = math.inf
    reach = float(np.quantile(pivots, confidence, method="higher")) * error
    return Interval(value - reach, value + reach, "bootstrap") if math.isfinite(reach) else None


def _deviations(rows: Floats, aggregate: Aggregate) -> Floats:
    """Return (u,) the values without one unit, minus their mean."""
    without = aggregate(rows.sum(axis=0) - rows)
    centred: Floats = without - without.mean()
    return centred


def _varied(deviations: Floats) -> int:
    """Return how many units have another influence on the value than the most common one."""
    scale = float(np.abs(deviations).max())
    if not scale > 0:
        return 0
    return len(deviations) - int(np.unique(np.round(deviations / scale, 9), return_counts=True)[1].max())


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
