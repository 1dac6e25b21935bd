"""A metric of another package: tried on examples before any work, and each number that it returns is checked."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError, one_line
from codex_ml.evaluate.metrics.protocol import Inputs, Metric, Pair, ScoredDocument

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,63}\Z")
# Text columns of the result tables; a number column cannot have the same name.
TEXT_COLUMNS = frozenset((
    "item", "unit", "source", "path", "language", "licence", "group", "content",
    "split_at", "prompt", "output", "reference", "finished", "text", "verdict",
))  # fmt: skip
ROUNDING = 1e-9  # by which a value may be outside of its bounds
_EXAMPLES: dict[str, tuple[Any, ...]] = {
    "score": (
        ScoredDocument(12.5, 8, 5, 7, 30, 6, 200.0, 70.0, np.array([[0.0, 0.0, 0.0]] * 9 + [[8.0, 7.5, 5.0]])),
        ScoredDocument(0.25, 1, 1, 1, 0, 1, 64.0, 0.0, np.array([[0.0, 0.0, 0.0]] * 9 + [[1.0, 0.95, 1.0]])),
    ),
    "pair": (
        Pair("def double(x):\n", "    return x * 2\n", "    return 2 * x\n", "python"),
        Pair("", "", "", "text", 0.5),
    ),
}


class UnusableMetric(UserError):
    """A metric of another package breaks the protocol; `why` says how, the message also which one."""

    def __init__(self, why: str, label: str = "") -> None:
        self.why = one_line(why)
        super().__init__(f"{label} cannot be used: {self.why}" if label else self.why)


@dataclass(frozen=True)
class MetricPlugin:
    """A metric of an installed package, with its results checked; `version` is the package's.

    `measure` and `aggregate` raise `UnusableMetric` whatever the metric does, so that no caller gets its exceptions.
    """

    name: str
    distribution: str
    version: str
    _metric: Any = None

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"metric {self.name!r} of the package {self.distribution} {self.version}"

    @property
    def inputs(self) -> Inputs:
        return self._metric.inputs

    @property
    def columns(self) -> tuple[str, ...]:
        return self._metric.columns

    @property
    def higher_is_better(self) -> bool:
        return self._metric.higher_is_better

    @property
    def signature(self) -> str:
        return self._metric.signature

    @property
    def bounds(self) -> tuple[float, float]:
        return self._metric.bounds

    def measure(self, item: Any) -> Sequence[float]:
        try:
            return checked_numbers(self._metric, item)
        except UnusableMetric as error:
            raise UnusableMetric(error.why, self.label) from None

    def aggregate(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        try:
            return checked_values(self._metric, sums)
        except UnusableMetric as error:
            raise UnusableMetric(error.why, self.label) from None


def probe(name: str, metric: Any) -> None:
    """Check that an object is a metric of this name, and that it measures and aggregates two examples.

    Raises:
        UnusableMetric: names the first attribute, or the call, that breaks the protocol.
    """
    try:
        _check_attributes(name, metric)
    except UnusableMetric:
        raise
    except (Exception, SystemExit) as error:  # an attribute may be a property with code of its own
        raise UnusableMetric(f"its attributes cannot be read: {type(error).__name__}") from None
    rows = np.array([checked_numbers(metric, item) for item in _EXAMPLES[metric.inputs]])
    sums = np.stack([rows.sum(0), rows[0]])
    together, alone = checked_values(metric, sums), [checked_values(metric, row) for row in sums]
    if not np.allclose(together, alone, rtol=1e-9, atol=0, equal_nan=True):
        raise UnusableMetric("aggregate gives a row of sums another value alone than among others")
    low, high = metric.bounds
    for value in together[(together < low - ROUNDING) | (together > high + ROUNDING)]:
        raise UnusableMetric(outside(float(value), metric.bounds))


def _check_attributes(name: str, metric: Any) -> None:
    for attribute in ("name", "inputs", "columns", "higher_is_better", "signature", "bounds", "measure", "aggregate"):
        if not hasattr(metric, attribute):
            raise UnusableMetric(f"it has no `{attribute}`")
    problems = {
        f"its name is {metric.name!r}; the entry point says {name!r}": metric.name != name,
        "its name must match [a-zA-Z][a-zA-Z0-9_]{0,63}": not _NAME.match(name),
        f"its inputs are {metric.inputs!r}; allowed are 'score' and 'pair'": metric.inputs not in ("score", "pair"),
        "its columns must be a tuple of different names that match [a-zA-Z][a-zA-Z0-9_]{0,63}": not _columns(
            metric.columns
        ),
        f"its columns must not be named as a text of the result tables: {', '.join(sorted(TEXT_COLUMNS))}": bool(
            TEXT_COLUMNS & set(metric.columns)
        ),
        "its higher_is_better must be True or False": not isinstance(metric.higher_is_better, bool),
        "its bounds must be two numbers, the lower one first": not _bounds(metric.bounds),
        "its signature must be a text of 1 to 200 printable characters": not _is_short_line(metric.signature),
    }
    if wrong := [problem for problem, there in problems.items() if there]:
        raise UnusableMetric(wrong[0])


def checked_numbers(metric: Metric, item: Any) -> list[float]:
    """Return what `measure` returns for an item: one finite number per column.

    Raises:
        UnusableMetric: otherwise. The message leaves out the plug-in's own error text: it may quote a document.
    """
    try:
        numbers = [float(number) for number in metric.measure(item)]
    except (Exception, SystemExit) as error:
        raise UnusableMetric(f"measure failed: {type(error).__name__}") from None
    if len(numbers) != len(metric.columns):
        raise UnusableMetric(f"measure returned {len(numbers)} numbers for {len(metric.columns)} columns")
    for column, number in zip(metric.columns, numbers, strict=True):
        if not math.isfinite(number):
            raise UnusableMetric(f"measure returned {number} for the column {column!r}; numbers must be finite")
    return numbers


def outside(value: float, bounds: tuple[float, float]) -> str:
    """What is wrong with a value outside of its bounds."""
    return f"its value {value:.6g} is outside of its bounds, {bounds[0]} to {bounds[1]}"


def checked_values(metric: Metric, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what `aggregate` returns for sums (..., columns): (...) values.

    Raises:
        UnusableMetric: when it raises, or returns another shape.
    """
    try:
        with np.errstate(all="ignore"):
            values = np.asarray(metric.aggregate(sums), dtype=np.float64)
    except (Exception, SystemExit) as error:
        raise UnusableMetric(f"aggregate failed: {type(error).__name__}") from None
    if values.shape != sums.shape[:-1]:
        raise UnusableMetric("aggregate must return one value per row: shape (...) for sums of shape (..., columns)")
    return values


def _columns(columns: Any) -> bool:
    return (
        isinstance(columns, tuple)
        and all(isinstance(column, str) and _NAME.match(column) for column in columns)
        and 0 < len(columns) == len(set(columns))
    )


def _bounds(bounds: Any) -> bool:
    return isinstance(bounds, tuple) and len(bounds) == 2 and float(bounds[0]) < float(bounds[1])


def _is_short_line(text: Any) -> bool:
    return isinstance(text, str) and 0 < len(text) <= 200 and text.isprintable()
