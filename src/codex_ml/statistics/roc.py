"""How well a score tells two samples apart: area under the ROC curve, true positives at few false ones, intervals.

A low score says "positive". The area is the chance that a positive scores below a negative, ties one half: the
statistic of Mann and Whitney divided by the number of pairs. If the score knows nothing, its standard error is
sqrt((n1 + n2 + 1) / (12 n1 n2)). Intervals are percentiles of a bootstrap that draws both samples. It draws units, such
as repositories, where the scores of a unit are not independent.

Used by: safety_audit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codex_ml.statistics.bootstrap import CELLS
from codex_ml.statistics.proportions import Interval

RESAMPLES = 1000
SLACK = 1e-9  # 0.01 * 100 false positives are one, whatever its last bits
Floats = NDArray[np.float64]
Units = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """The scores of two samples, sorted.

    Attributes:
        positives, negatives: (n1,) and (n2,) float64, ascending, at least one of each.
        units: of both, (n1,) and (n2,) int64, the number of the unit of each score, from 0; None: each is a unit.
    """

    positives: Floats
    negatives: Floats
    units: tuple[Units | None, Units | None] = (None, None)

    @classmethod
    def of(
        cls, positives: ArrayLike, negatives: ArrayLike, *, units: tuple[ArrayLike, ArrayLike] | None = None
    ) -> Scores:
        """Sort scores in any order.

        Args:
            units: the unit of each score, of both samples; any type that numpy sorts.

        Raises:
            ValueError: if a sample is empty, a score is not a finite number, or there is not one unit per score.
        """
        both = [np.asarray(sample, dtype=np.float64).ravel() for sample in (positives, negatives)]
        if not all(len(sample) and np.isfinite(sample).all() for sample in both):
            raise ValueError("expected finite scores, at least one per sample")
        order = [np.argsort(sample, kind="stable") for sample in both]
        first, second = (sample[at] for sample, at in zip(both, order, strict=True))
        if units is None:
            return cls(first, second)
        one, two = (_numbered(names, at) for names, at in zip(units, order, strict=True))
        return cls(first, second, (one, two))

    def trials(self) -> tuple[int, int]:
        """Number of units of the positives and of the negatives."""
        one, two = (
            len(sample) if unit is None else int(unit.max()) + 1
            for sample, unit in zip((self.positives, self.negatives), self.units, strict=True)
        )
        return one, two

    def area(self) -> float:
        """The area under the ROC curve.

        >>> Scores.of([1, 2], [2, 3]).area()
        0.875
        """
        return float(self._areas(np.ones((1, len(self.positives))), np.ones((1, len(self.negatives))))[0])

    def area_interval(self, *, confidence: float, seed: int) -> Interval:
        """The interval of the area; its width is 0 if no pair differs from another."""
        return self._bootstrap(self._areas, confidence, seed)

    def true_positives(self, false_positives: float) -> float:
        """The share of positives that a threshold finds if it takes at most this share of the negatives.

        >>> Scores.of([1, 2, 5], [3, 4, 6, 7]).true_positives(0.25)
        0.6666666666666666
        """
        weights = np.ones((1, len(self.positives))), np.ones((1, len(self.negatives)))
        return float(self._shares(*weights, false_positives)[0])

    def true_positives_interval(self, false_positives: float, *, confidence: float, seed: int) -> Interval:
        """The interval of `true_positives`."""
        return self._bootstrap(lambda one, two: self._shares(one, two, false_positives), confidence, seed)

    def curve(self) -> tuple[Floats, Floats]:
        """Shares of false and of true positives at each threshold, from (0, 0) to (1, 1): two arrays of one length."""
        thresholds = np.unique(np.concatenate([self.positives, self.negatives]))
        shares = (
            np.searchsorted(sample, thresholds, side="right") / len(sample)
            for sample in (self.negatives, self.positives)
        )
        false, true = (np.concatenate([[0.0], share]) for share in shares)
        return false, true

    def _areas(self, first: Floats, second: Floats) -> Floats:
        """Areas (r,) where positives and negatives count as often as `first` (r, n1) and `second` (r, n2) say."""
        below = _cumulated(second)  # negatives before each place of their order
        at_most, under = (np.searchsorted(self.negatives, self.positives, side=side) for side in ("right", "left"))
        won = below[:, -1:] - (below[:, at_most] + below[:, under]) / 2
        areas: Floats = (first * won).sum(axis=1) / (first.sum(axis=1) * second.sum(axis=1))
        return areas

    def _shares(self, first: Floats, second: Floats, false_positives: float) -> Floats:
        """`true_positives` (r,), with counts as in `_areas`."""
        totals = _cumulated(second)
        allowed = np.floor(false_positives * totals[:, -1] + SLACK)
        beyond = totals[:, 1:] > allowed[:, None]  # the first negative that the threshold must not take
        limits = np.where(beyond.any(axis=1), self.negatives[beyond.argmax(axis=1)], math.inf)
        found = _cumulated(first)
        taken = np.searchsorted(self.positives, limits, side="left")
        shares: Floats = found[np.arange(len(found)), taken] / found[:, -1]
        return shares

    def _bootstrap(self, statistic: Callable[[Floats, Floats], Floats], confidence: float, seed: int) -> Interval:
        random = np.random.Generator(np.random.PCG64(seed))
        sizes, counts = (len(self.positives), len(self.negatives)), self.trials()
        step = max(1, CELLS // max(sizes))
        values = np.empty(RESAMPLES)
        for start in range(0, RESAMPLES, step):
            part = values[start : start + step]
            drawn = (_drawn(random, count, len(part)) for count in counts)
            first, second = (
                times if unit is None else times[:, unit] for times, unit in zip(drawn, self.units, strict=True)
            )
            part[:] = statistic(first, second)
        low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Interval(float(low), float(high), "bootstrap")


def _numbered(names: ArrayLike, order: Units) -> Units | None:
    """The numbers of units in another order; None if each score is a unit.

    Raises:
        ValueError: unless there is one name per score.
    """
    labels = np.asarray(names)
    if labels.shape != order.shape:
        raise ValueError(f"{labels.shape} units for {order.shape} scores")
    unique, number = np.unique(labels, return_inverse=True)
    return None if len(unique) == len(labels) else number[order]


def _drawn(random: np.random.Generator, size: int, resamples: int) -> Floats:
    """How often each of `size` units occurs in each resample: (resamples, size)."""
    draws = random.integers(size, size=(resamples, size)) + np.arange(resamples)[:, None] * size
    return np.bincount(draws.ravel(), minlength=resamples * size).reshape(resamples, size).astype(np.float64)


def _cumulated(counts: Floats) -> Floats:
    """Sums of the first 0, 1, ..., n of each row: (r, n + 1)."""
    return np.concatenate([np.zeros((len(counts), 1)), np.cumsum(counts, axis=1)], axis=1)


def documents_needed(difference: float, confidence: float) -> int:
    """The smallest n for which n positives and n negatives tell an area of 0.5 + `difference` from one of 0.5.

    The interval of a score that knows nothing reaches 0.5 + z sqrt((2 n + 1) / (12 n^2)).

    >>> documents_needed(0.1, 0.95)
    65
    """
    from scipy.special import ndtri  # imported here, because only some numbers need it

    # n^2 >= z^2 (2 n + 1) / (12 d^2), a quadratic inequality in n
    factor = float(ndtri((1 + confidence) / 2)) ** 2 / (12 * difference**2)
    return math.ceil(factor + math.sqrt(factor * factor + factor))
