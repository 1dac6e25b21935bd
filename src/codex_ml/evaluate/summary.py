"""Values of metrics with their intervals, from the sums of the units of a table. Used by: the tasks of evaluate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.evaluate.job import Job
from codex_ml.evaluate.metrics.likelihood_metrics import Perplexity
from codex_ml.evaluate.metrics.protocol import Inputs, Metric
from codex_ml.evaluate.metrics.registry import Metrics
from codex_ml.evaluate.units import pooled_sums, read_pools
from codex_ml.inference.evaluate_files import MetricValue
from codex_ml.statistics.bootstrap import SMALLEST_UNITS, VARIED_UNITS, counted_units, exponential_interval, interval

DECIMALS = 9  # of a value; the further ones depend on the order of additions


@dataclass(frozen=True)
class Resampling:
    """How intervals are made."""

    resamples: int
    confidence: float
    seed: int


def summarise(
    job: Job, table: Path, inputs: Inputs, *, absent: Mapping[str, str] | None = None
) -> dict[str, MetricValue]:
    """Return the values of all metrics on one kind of item, computed from a table.

    The columns are read metric by metric, so that memory holds those of one metric.

    Args:
        table: its Parquet file.
        absent: metrics that cannot be given, and why.
    """
    units, how = read_pools(table), resampling(job)
    values = {}
    for metric in job.metrics.of(inputs):
        sums = pooled_sums(table, metric.columns, units)
        found = metric_value(job.metrics, metric, sums, how, (absent or {}).get(metric.name))
        values[metric.name] = found.model_copy(update={"units": units.count})
    return values


def resampling(job: Job) -> Resampling:
    """How the intervals of a job are made."""
    return Resampling(job.settings.bootstrap, job.settings.confidence, job.seed)


def metric_value(
    metrics: Metrics, metric: Metric, sums: NDArray[np.float64], how: Resampling, absent: str | None = None
) -> MetricValue:
    """Return the value of one metric with its interval.

    Args:
        sums: (units or pools of units, columns), the columns of this metric.
        absent: why there is no value.
    """
    value = math.nan if absent else metrics.value(metric, sums.sum(axis=0))
    optional: dict[str, Any] = {}
    if math.isfinite(value):
        chosen: Any = {"resamples": how.resamples, "confidence": how.confidence, "seed": how.seed}
        aggregate = metrics.aggregate_of(metric)
        if isinstance(metric, Perplexity):
            found = exponential_interval(sums, metric.exponent, **chosen)
        else:
            found = interval(sums, aggregate, **chosen, bounds=metric.bounds)
        if found:
            low, high = round(found.low, DECIMALS), round(found.high, DECIMALS)
            optional = {"low": low, "high": high, "method": found.method}
        why = None if found else why_no_interval(len(counted_units(sums, aggregate)))
    else:
        why = absent or ("not finite: too large for a double" if math.isinf(value) else "nothing to divide by")
    if metric.name in metrics.failures:  # also one that failed while the interval was computed
        value, optional, why = math.nan, {}, metrics.failures[metric.name].why
    if why:
        optional["why"] = why
    return MetricValue(
        value=round(value, DECIMALS) if math.isfinite(value) else None,
        units=len(sums),
        signature=metric.signature,
        higher_is_better=metric.higher_is_better,
        **optional,
    )


def why_no_interval(units: int) -> str:
    """Why a value has no interval."""
    if units < SMALLEST_UNITS:
        return f"no interval: {units} independent units; at least {SMALLEST_UNITS} are needed"
    return f"no interval: fewer than {VARIED_UNITS} of {units} units differ, or resamples have no value or no spread"
