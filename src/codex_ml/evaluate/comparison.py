"""Compare evaluation results of two models on the same items: is B better than A, on what, and by how much?

Each metric is computed again from the tables of both results, over the pairs of items. Used by: stages/evaluate.py
(`evaluate.compare_to`), `codex-ml compare`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codex_ml.core.errors import UserError
from codex_ml.core.strict_json import dump_json
from codex_ml.evaluate.input_differences import Flat, differences, input_differences
from codex_ml.evaluate.item_changes import DECIMALS, item_changes
from codex_ml.evaluate.metric_choice import MetricChoice, compared_metrics
from codex_ml.evaluate.metrics.protocol import Metric
from codex_ml.evaluate.paired_items import NoSharedItem, Pairing, pair_items
from codex_ml.evaluate.paired_metric import Inference, Numbers, PairedDifference, paired_difference
from codex_ml.evaluate.result_folder import AGAIN, ResultFolder, TaskTable
from codex_ml.inference.comparison_files import (
    ComparedMetric,
    ComparedTask,
    Comparison,
    Comparisons,
    InputDifference,
    ItemChanges,
)
from codex_ml.inference.evaluate_files import DETAILS
from codex_ml.statistics.bootstrap import SMALLEST_UNITS
from codex_ml.statistics.paired import holm

AGREES = 1e-6  # relative difference between a value of details.json and its table that rounding explains
RANKED = ("bits_per_byte", "perplexity", "pass_at_1", "solution_bits_per_byte", "chrf", "edit_similarity")


@dataclass(frozen=True)
class CompareSettings:
    """How results are compared.

    Attributes:
        common: compare the items that both results have, instead of refusing where they differ.
        top: number of gains, and of losses, that are listed per metric.
    """

    inference: Inference = field(default_factory=Inference)
    common: bool = False
    top: int = 5


def compare_results(results: Sequence[ResultFolder], settings: CompareSettings) -> Comparisons:
    """Compare each result with the first one; Holm's correction counts the metrics of all comparisons.

    Raises:
        UserError: when a result is not whole, two share no task, or they were made on different items. With `common`, a
            task without a shared item is left out and noted, and only if no other is left this is an error.
    """
    first, *others = results
    comparisons = [_compared(first, other, settings) for other in others]
    p_values = [metric.p for each in comparisons for metric in each.metrics if metric.p is not None]
    adjusted, inference = iter(holm(p_values)), settings.inference
    return Comparisons(
        confidence=inference.confidence,
        resamples=inference.resamples,
        seed=inference.seed,
        family=len(p_values),
        comparisons=[
            each.model_copy(update={"metrics": [_judged(m, adjusted, inference.level) for m in each.metrics]})
            for each in comparisons
        ],
    )


def _judged(metric: ComparedMetric, adjusted: Iterator[float], level: float) -> ComparedMetric:
    """Add the corrected p-value and the verdict of a metric that has a p-value."""
    if metric.p is None or metric.difference is None:
        return metric
    p_holm, verdict = next(adjusted), metric.verdict
    if p_holm < level:
        verdict = "better" if (metric.difference > 0) == metric.higher_is_better else "worse"
    return metric.model_copy(update={"p_holm": round(p_holm, DECIMALS), "verdict": verdict})


def _compared(a: ResultFolder, b: ResultFolder, settings: CompareSettings) -> Comparison:
    shared = [task for task in a.evaluation.tasks if task in b.evaluation.tasks]
    if not shared:
        have = " and ".join(f"{side.name} has {', '.join(side.evaluation.tasks)}" for side in (a, b))
        raise UserError(f"{have}: they share no task, so there is nothing to compare")
    parts, left_out = [], []
    for task in shared:
        try:
            parts.append(_task(task, a, b, settings))
        except NoSharedItem as error:
            if not settings.common:
                raise
            left_out.append(str(error))
    if not parts:
        raise UserError(f"{left_out[0]}, so there is nothing to compare")
    notes = [f"{reason}, so the task is left out" for reason in left_out]
    return Comparison(
        a=a.side.model_copy(update={"model": a.evaluation.model}),
        b=b.side.model_copy(update={"model": b.evaluation.model}),
        tasks=[task for task, _, _ in parts],
        metrics=[metric for _, metrics, _ in parts for metric in metrics],
        changes=[change for _, _, changes in parts for change in changes],
        inputs=input_differences(a.records, b.records),
        notes=list(dict.fromkeys([*_alike(a, b), *notes, *a.notes, *b.notes])),
    )


def _alike(a: ResultFolder, b: ResultFolder) -> Iterator[str]:
    """A note where both results are of one model, and one per task that only one of them has."""
    if a.evaluation.model == b.evaluation.model:
        yield f"both are results of one model (SHA-256 {a.evaluation.model[:12]})"
    for one, other in ((a, b), (b, a)):
        for task in one.evaluation.tasks:
            if task not in other.evaluation.tasks:
                yield f"only {one.name} has the task {task}; it is not compared"


def _task(
    task: str, a: ResultFolder, b: ResultFolder, settings: CompareSettings
) -> tuple[ComparedTask, list[ComparedMetric], list[ItemChanges]]:
    tables = a.table(task), b.table(task)
    pairing = pair_items(task, tables[0].keys(a.name), tables[1].keys(b.name), settings.common)
    about = ComparedTask(
        task=task,
        items=len(pairing.rows_a),
        units=pairing.unit_count,
        only_a=pairing.only_a,
        only_b=pairing.only_b,
        settings=_differing(tables[0].result.settings, tables[1].result.settings),
    )
    choices = compared_metrics((a, b), task, pairing)
    pairs = _Pairs(tables, pairing, settings.inference, one_model=a.evaluation.model == b.evaluation.model)
    found = {choice.name: pairs.difference(choice, choice.metric) for choice in choices if choice.metric}
    rows = [_row(choice, found.get(choice.name), about) for choice in choices]
    graded = {name for name, difference in found.items() if difference and not difference.is_binary}
    ranked = next((name for name in RANKED if name in graded), "")
    changes = [
        item_changes(row, difference, tables, pairing, settings.top)
        for row in rows
        if (difference := found.get(row.metric)) and (difference.is_binary or row.metric == ranked)
    ]
    return about, rows, [change for change in changes if change.better or change.worse]


def _differing(a: dict[str, Any], b: dict[str, Any]) -> list[InputDifference]:
    """The settings that differ, by name."""
    flat: list[Flat] = [
        {("settings", name): dump_json(value, indent=None).strip() for name, value in side.items()} for side in (a, b)
    ]
    return differences(flat[0], flat[1])


@dataclass(frozen=True)
class _Pairs:
    """The tables of both results for one task, and which rows are compared how."""

    tables: tuple[TaskTable, TaskTable]
    pairing: Pairing
    inference: Inference
    one_model: bool

    def difference(self, choice: MetricChoice, metric: Metric) -> PairedDifference | None:
        numbers = []
        for table, rows in zip(self.tables, (self.pairing.rows_a, self.pairing.rows_b), strict=True):
            whole = table.numbers(metric.columns)
            _refuse_another_run(choice, table, whole)
            numbers.append(whole[rows])
        a, b = numbers
        return paired_difference(choice.aggregate, a, b, self.pairing, self.inference, one_model=self.one_model)


def _refuse_another_run(choice: MetricChoice, table: TaskTable, numbers: Numbers) -> None:
    """Raise UserError where a table does not give the value that details.json has."""
    listed = table.result.metrics[choice.name].value
    if listed is not None and not np.isfinite(numbers).all():
        raise UserError(f"{table.file} lacks numbers of {choice.name}, which {DETAILS} gives as {listed:.6g}; {AGAIN}")
    value = float(choice.aggregate(numbers.sum(axis=0)))
    if listed is not None and math.isfinite(value) and not math.isclose(value, listed, rel_tol=AGREES, abs_tol=AGREES):
        raise UserError(
            f"{table.file} gives {choice.name} {value:.6g}, but {DETAILS} beside its folder says {listed:.6g}: "
            f"the files are of two runs; {AGAIN}"
        )


def _row(choice: MetricChoice, found: PairedDifference | None, about: ComparedTask) -> ComparedMetric:
    """One metric without the correction of its p-value, and with the verdict that it has without evidence."""
    values = {side: value for side, value in (("a", choice.a), ("b", choice.b)) if value is not None}
    row = ComparedMetric(
        task=about.task,
        metric=choice.name,
        higher_is_better=choice.higher_is_better,
        verdict="not compared",
        units=about.units,
        why=choice.why,
        notes=choice.notes,
    ).model_copy(update=values)
    if choice.metric is None:
        return row
    if found is None:
        return row.model_copy(update={"why": "it has no finite value on the items that both results have"})
    update: dict[str, Any] = {
        "a": round(found.a, DECIMALS),
        "b": round(found.b, DECIMALS),
        "difference": round(found.difference, DECIMALS),
        "test": found.test,
        "p": round(found.p, DECIMALS),
        "verdict": "equal" if found.is_equal else "no evidence",
    }
    if found.interval:
        low, high = round(found.interval.low, DECIMALS), round(found.interval.high, DECIMALS)
        update |= {"low": low, "high": high, "method": found.interval.method}
    else:
        few = f"{about.units} independent units; at least {SMALLEST_UNITS} are needed"
        update["why"] = f"no interval: {few if about.units < SMALLEST_UNITS else 'too few units differ'}"
    return row.model_copy(update=update)
