"""Choose metrics by name: the built-in ones, and those of installed packages (entry points `codex_ml.metrics`).

A built-in metric wins over one of a package with the same name. A package's metric that cannot be used is a listed
failure, and an error where the user named it: a result without it would look complete.

Used by: evaluate.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError, one_line
from codex_ml.core.plugins import Plugin, UnusablePlugin, installed, only
from codex_ml.evaluate.metrics.plugin_probe import ROUNDING, MetricPlugin, UnusableMetric, outside, probe
from codex_ml.evaluate.metrics.protocol import Inputs, Metric, Pair, ScoredDocument
from codex_ml.inference.evaluate_files import PlugIn


@dataclass(frozen=True)
class MetricFailure:
    """A metric of an installed package that gives no value, and why."""

    name: str
    distribution: str
    version: str
    why: str


@dataclass
class Metrics:
    """The chosen metrics, and the numbers that they need of each item.

    Attributes:
        chosen: in the order of the user's list, or built-in ones first.
        named: the names that the user gave; a failure of one of them is an error.
        plugins: the metrics among `chosen` that packages provide, by name.
        failures: metrics of packages that give no value, by name; `measure` adds to it.
        messages: one line per name of a package's metric that a built-in one has.
    """

    chosen: tuple[Metric, ...]
    named: frozenset[str] = frozenset()
    plugins: dict[str, MetricPlugin] = field(default_factory=dict)
    failures: dict[str, MetricFailure] = field(default_factory=dict)
    messages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._of: dict[str, tuple[Metric, ...]] = {"score": (), "pair": ()}
        for metric in self.chosen:
            self._of[metric.inputs] += (metric,)
        self._columns = {
            inputs: tuple(dict.fromkeys(column for metric in metrics for column in metric.columns))
            for inputs, metrics in self._of.items()
        }

    def __getitem__(self, name: str) -> Metric:
        return next(metric for metric in self.chosen if metric.name == name)

    def of(self, inputs: Inputs) -> tuple[Metric, ...]:
        """The chosen metrics on one kind of item."""
        return self._of[inputs]

    def columns(self, inputs: Inputs) -> tuple[str, ...]:
        """Names of the numbers that `measure` returns for one kind of item; a shared column is there once."""
        return self._columns[inputs]

    def places(self, metric: Metric) -> list[int]:
        """Where the columns of a metric are among `columns`."""
        columns = self.columns(metric.inputs)
        return [columns.index(column) for column in metric.columns]

    def measure(self, item: ScoredDocument | Pair) -> list[float]:
        """Return the numbers of one item, in the order of `columns`. NaN stands for those of a failed plug-in.

        Raises:
            UserError: when a metric fails that the user named.
        """
        inputs: Inputs = "pair" if isinstance(item, Pair) else "score"
        numbers: dict[str, float] = {}
        for metric in self.of(inputs):
            if metric.name not in self.plugins:
                numbers |= zip(metric.columns, map(float, metric.measure(item)), strict=True)
            elif metric.name not in self.failures:
                numbers |= self._measure_plugin(metric, item, numbers)
        return [numbers.get(column, math.nan) for column in self.columns(inputs)]

    def _measure_plugin(self, metric: Metric, item: Any, known: dict[str, float]) -> dict[str, float]:
        try:
            own = dict(zip(metric.columns, metric.measure(item), strict=True))
            for column, number in own.items():
                if column in known and number != known[column] and not math.isnan(known[column]):
                    raise UnusableMetric(f"column {column!r} of another metric holds another number for the same item")
        except UnusableMetric as error:
            self._fail(metric, error.why)
            return {}
        return {column: number for column, number in own.items() if column not in known}

    def _fail(self, metric: Metric, why: str) -> None:
        self.failures[metric.name] = _failed(self.plugins[metric.name], why, named=metric.name in self.named)

    def aggregate(self, metric: Metric, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values (...) of a metric for sums (..., columns) of its columns.

        The value is NaN where there is nothing to divide by, and for a failed plug-in.

        Raises:
            UserError: when a metric fails that the user named.
            ValueError: when the sums are not those of the metric's columns.
        """
        sums = np.asarray(sums, dtype=np.float64)
        if sums.shape[-1] != len(metric.columns):
            raise ValueError(f"{metric.name} has {len(metric.columns)} columns, found sums of shape {sums.shape}")
        if metric.name not in self.plugins:
            return metric.aggregate(sums)
        if metric.name not in self.failures:
            try:
                return metric.aggregate(sums)
            except UnusableMetric as error:
                self._fail(metric, error.why)
        return np.full(sums.shape[:-1], np.nan)

    def value(self, metric: Metric, sums: NDArray[np.float64]) -> float:
        """Return the value of a metric for the sums (columns,) of all items, inside its bounds; raises as `aggregate`.

        `aggregate` alone leaves the bounds out: intervals take derivatives, also at a bound.
        """
        value = float(self.aggregate(metric, sums))
        low, high = metric.bounds
        if metric.name in self.plugins and (value < low - ROUNDING or value > high + ROUNDING):
            self._fail(metric, outside(value, metric.bounds))
            return math.nan
        return value

    def aggregate_of(self, metric: Metric) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        """`aggregate` of one metric as a function of the sums, as `codex_ml.statistics` takes it."""
        return partial(self.aggregate, metric)


def load_metrics(names: Sequence[str] = ()) -> Metrics:
    """Load the named metrics in their order; without names, every metric that loads.

    Raises:
        UserError: when a name is unknown or given twice, or when a named metric cannot be used.
    """
    built_in, offered, named = built_in_metrics(), _installed(), frozenset(names)
    _refuse_wrong_names(names, [*built_in, *offered])
    chosen: dict[str, Metric] = {name: metric for name, metric in built_in.items() if not named or name in named}
    plugins: dict[str, MetricPlugin] = {}
    failures: dict[str, MetricFailure] = {}
    shadowed: list[str] = []
    for name, offers in offered.items():
        if name in built_in:
            shadowed += [f"{_plugin(p).label} is not used: a built-in metric has this name" for p in offers]
        elif not named or name in named:
            try:
                chosen[name] = plugins[name] = _load(name, offers)
            except UnusableMetric as error:
                failures[name] = _failed(_plugin(offers[0]), error.why, named=name in named)
    order = [name for name in names if name in chosen] if named else list(chosen)
    return Metrics(tuple(chosen[name] for name in order), named, plugins, failures, tuple(shadowed))


def plugins_to_use(names: Sequence[str] = ()) -> list[MetricPlugin]:
    """The metrics of packages that `load_metrics(names)` would try. None is imported, so they measure nothing."""
    offered = _installed()
    built_in = built_in_metrics() if offered else {}
    return [
        _plugin(offers[0]) for name, offers in offered.items() if name not in built_in and (not names or name in names)
    ]


def listed_name(metric: MetricPlugin | MetricFailure | PlugIn) -> str:
    """How the notes of a result name the metric of a package: "metric NAME of PACKAGE VERSION"."""
    return f"metric {metric.name} of {metric.distribution} {metric.version}"


def _installed() -> dict[str, list[Plugin]]:
    """Name -> the plug-ins of all installed packages that have it, in an order that does not change."""
    found: dict[str, list[Plugin]] = {}
    for plugin in installed("metrics"):
        found.setdefault(plugin.name, []).append(plugin)
    return found


def built_in_metrics() -> dict[str, Metric]:
    """The metrics of codex-ml itself, by name."""
    from codex_ml.evaluate.metrics.bleu_chrf import BLEU_CHRF
    from codex_ml.evaluate.metrics.likelihood_metrics import LIKELIHOOD
    from codex_ml.evaluate.metrics.overlap import OVERLAP
    from codex_ml.evaluate.metrics.python_source import PYTHON_SOURCE
    from codex_ml.evaluate.metrics.repetition import REPETITION

    metrics: tuple[Metric, ...] = (*LIKELIHOOD, *OVERLAP, *BLEU_CHRF, *PYTHON_SOURCE, *REPETITION)
    return {metric.name: metric for metric in metrics}


def _refuse_wrong_names(names: Sequence[str], known: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known are: {', '.join(sorted(known))}"
            raise UserError(f"evaluate.metrics: there is no metric {name!r}; {hint}")
        if count > 1:
            raise UserError(f"evaluate.metrics: {name!r} is there {count} times; name each metric once")


def _load(name: str, offers: list[Plugin]) -> MetricPlugin:
    """Import a metric and try it on examples.

    Raises:
        UnusableMetric: says why it cannot be used.
    """
    try:
        found = only("metrics", name, offers).load()
        metric = found() if isinstance(found, type) else found
    except UnusablePlugin as error:
        raise UnusableMetric(error.why) from None
    except (Exception, SystemExit) as error:
        raise UnusableMetric(f"cannot be made: {type(error).__name__}: {one_line(error)} ({offers[0].value})") from None
    probe(name, metric)
    return _plugin(offers[0], metric)


def _plugin(plugin: Plugin, metric: Any = None) -> MetricPlugin:
    return MetricPlugin(plugin.name, plugin.distribution or "unknown", plugin.version or "unknown", metric)


def _failed(plugin: MetricPlugin, why: str, *, named: bool) -> MetricFailure:
    """The failure of a plug-in, to be listed.

    Raises:
        UserError: instead, when the user named the metric.
    """
    if named:
        advice = "mend or update the package, or take the name out"
        raise UserError(f"evaluate.metrics: {plugin.label} cannot be used: {why}; {advice}")
    return MetricFailure(plugin.name, plugin.distribution, plugin.version, why)
