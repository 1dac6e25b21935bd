"""The paired difference of one metric between two results, with its interval and p-value.

Used by: evaluate.comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from codex_ml.evaluate.paired_items import Pairing
from codex_ml.statistics.bootstrap import count_alike, paired_interval, unit_sums
from codex_ml.statistics.paired import mcnemar, randomisation_test
from codex_ml.statistics.proportions import Interval, paired_proportions

Numbers = NDArray[np.float64]
Aggregate = Callable[[Any], Any]  # sums (..., k) -> values (...)


@dataclass(frozen=True)
class Inference:
    """How intervals and p-values are computed."""

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 1

    @property
    def level(self) -> float:
        """A p-value below it is evidence of a difference."""
        return 1 - self.confidence


@dataclass(frozen=True)
class PairedDifference:
    """Values of two results on the same items, and what the difference b - a is worth.

    Attributes:
        items_a, items_b: (n,) the metric of each item alone; NaN where an item has no value.
        is_binary: whether the metric is a mean of 0 and 1 over items.
        interval: None if there are too few units.
    """

    a: float
    b: float
    items_a: Numbers
    items_b: Numbers
    is_binary: bool
    interval: Interval | None
    test: Literal["mcnemar", "randomisation"]
    p: float

    @property
    def difference(self) -> float:
        return self.b - self.a

    @property
    def is_equal(self) -> bool:
        """Whether every item, and all together, have the same value in both."""
        return self.a == self.b and bool(np.array_equal(self.items_a, self.items_b, equal_nan=True))


def paired_difference(
    aggregate: Aggregate, a: Numbers, b: Numbers, pairing: Pairing, inference: Inference, *, one_model: bool = False
) -> PairedDifference | None:
    """Compare two results of one metric on the same items; None if one of them has no finite value.

    The unit is what `pairing` keeps together. Where each unit is one item and the metric is a mean of 0 and 1, such as
    exact match or pass@1, the p-value is McNemar's exact one: the randomisation test of such a metric in closed form.
    Its interval is Tango's, which needs no smallest number of units.

    Args:
        aggregate: sums of the columns (..., k) -> the metric (...).
        a, b: (n, k) the numbers of the items, in the order of `pairing`.
        one_model: whether both results are of one model: then the difference is 0 where no item differs. Two models
            that pass the same items may still differ on others, so their interval has a width.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # an item without tokens has no value
        items_a, items_b = _values(aggregate, a), _values(aggregate, b)
        value_a, value_b = float(aggregate(a.sum(axis=0))), float(aggregate(b.sum(axis=0)))
    if not (np.isfinite(value_a) and np.isfinite(value_b)):
        return None
    is_binary = all(
        bool(np.isin(items, (0, 1)).all()) and count_alike(rows, aggregate)
        for items, rows in ((items_a, a), (items_b, b))
    )
    sums_a, sums_b = unit_sums(a, pairing.units), unit_sums(b, pairing.units)
    test: Literal["mcnemar", "randomisation"]
    interval: Interval | None
    if is_binary and len(items_a) == pairing.unit_count:
        test, (interval, p) = "mcnemar", _of_passes(items_a == 1, items_b == 1, inference.confidence)
        if one_model and np.array_equal(items_a, items_b):
            interval = Interval(0.0, 0.0, "score")
    else:
        test, p = "randomisation", randomisation_test(sums_a, sums_b, aggregate, seed=inference.seed)
        interval = paired_interval(
            sums_a,
            sums_b,
            aggregate,
            resamples=inference.resamples,
            confidence=inference.confidence,
            seed=inference.seed,
        )
    return PairedDifference(value_a, value_b, items_a, items_b, is_binary, interval, test, p)


def _of_passes(a: NDArray[np.bool_], b: NDArray[np.bool_], confidence: float) -> tuple[Interval, float]:
    """Return interval and p-value of units that pass or fail."""
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return paired_proportions(only_a, only_b, len(a), confidence=confidence), mcnemar(only_a, only_b)


def _values(aggregate: Aggregate, numbers: Numbers) -> Numbers:
    return np.asarray(aggregate(numbers), dtype=np.float64)
