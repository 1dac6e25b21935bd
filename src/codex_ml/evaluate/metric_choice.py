"""Which metrics of two results can be compared, and why the others cannot. Used by: evaluate.comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from codex_ml.evaluate.metrics.code_metrics import code_metric
from codex_ml.evaluate.metrics.protocol import Metric
from codex_ml.evaluate.metrics.registry import load_metrics
from codex_ml.evaluate.paired_items import Pairing
from codex_ml.evaluate.paired_metric import Aggregate
from codex_ml.evaluate.result_folder import ResultFolder
from codex_ml.inference.evaluate_files import CODE, MetricValue, table_stem

# Metrics of these columns alone know no model.
BASELINE = frozenset({"zlib_bits", "ngram_bits", "bytes", "words"}) | frozenset(
    {"reference_parse_rate", "reference_parse_rate_items", "reference_complexity", "reference_functions"}
)
WITHOUT_EFFECT = ("batch_size",)  # settings that change the last bits only

Results: TypeAlias = tuple[ResultFolder, ResultFolder]


@dataclass(frozen=True)
class MetricChoice:
    """One metric of a task.

    Attributes:
        metric: None if it is not compared, and `why` then gives the reason.
        aggregate: its function of the sums; NaN from a plug-in that fails.
        a, b: the values in the two results; None where a result has none.
        notes: what a reader must know to compare the values.
    """

    name: str
    higher_is_better: bool
    metric: Metric | None
    aggregate: Aggregate
    a: float | None
    b: float | None
    why: str
    notes: list[str]


def compared_metrics(results: Results, task: str, pairing: Pairing) -> list[MetricChoice]:
    """The metrics of a task in the order of the first result, then those of the second alone, without baselines."""
    metrics = load_metrics()
    known = {metric.name: metric for metric in metrics.chosen}
    listed = [result.evaluation.tasks[task].metrics for result in results]
    settings = list(_settings_notes(results, task))
    chosen = []
    for name in dict.fromkeys([*listed[0], *listed[1]]):
        values = listed[0].get(name), listed[1].get(name)
        metric = code_metric(name) if table_stem(task) == CODE else known.get(name)
        if metric and set(metric.columns) <= BASELINE:
            continue
        why = _why_not(name, metric, values, results) or _other_tokens(metric, results, task, pairing)
        one = values[0] or values[1]
        assert one is not None
        chosen.append(
            MetricChoice(
                name,
                one.higher_is_better,
                None if why else metric,
                metrics.aggregate_of(metric) if metric else np.asarray,
                values[0].value if values[0] else None,
                values[1].value if values[1] else None,
                why,
                settings,
            )
        )
    return chosen


def _settings_notes(results: Results, task: str) -> Iterator[str]:
    a, b = (result.evaluation.tasks[task].settings for result in results)
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name) and name not in WITHOUT_EFFECT:
            yield f"{name} differs: {a.get(name, 'none')} and {b.get(name, 'none')}"


def _why_not(
    name: str,
    metric: Metric | None,
    values: tuple[MetricValue | None, MetricValue | None],
    results: Results,
) -> str:
    """Why a metric is not compared; "" if it can be."""
    for value, result in zip(values, results, strict=True):
        if value is None:
            return f"{result.name} has no {name}"
        if value.value is None:
            return f"{result.name} has no value: {value.why}"
    assert values[0] is not None
    assert values[1] is not None
    if values[0].signature != values[1].signature:
        return f"the signatures differ: {values[0].signature} and {values[1].signature}"
    if metric is None:
        return f"no metric {name} is installed here, so it cannot be computed; install its package"
    # a task may add to the signature of a metric what else decided its value, such as the n-gram model
    if not f"{values[0].signature}|".startswith(f"{metric.signature}|"):
        return f"both have the signature {values[0].signature}, but {name} has {metric.signature} here"
    return ""


def _other_tokens(metric: Metric | None, results: Results, task: str, pairing: Pairing) -> str:
    """Why a metric that counts tokens is not compared; "" if both results count the same tokens on every item."""
    if metric is None or metric.inputs != "score":  # metrics of texts have words of their own
        return ""
    columns = [name for name in metric.columns if name.endswith("tokens")]
    if not columns:
        return ""
    a, b = (result.table(task).numbers(columns).sum(axis=1) for result in results)
    different = int(np.count_nonzero(a[pairing.rows_a] != b[pairing.rows_b]))
    if not different:
        return ""
    return f"{different} of {len(pairing.rows_a)} items have another number of tokens, and this metric is per token"
