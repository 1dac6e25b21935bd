"""Contract of a comparison of evaluation results: results/comparison.json, and what `codex-ml compare --json` prints.

Used by: evaluate, which writes it, report, `codex-ml compare`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from codex_ml.core.contract import Contract

COMPARISON = "comparison.json"  # in the folder `results` of a result folder
Verdict = Literal["better", "worse", "no evidence", "equal", "not compared"]
InputKind = Literal["params", "data", "code", "environment", "settings"]


class ComparedSide(Contract):
    """One of the two results.

    Attributes:
        name: as the user wrote it.
        kind: what the name stands for.
        commit: of a revision or an experiment.
        model: digest of the model that was evaluated.
    """

    name: str
    kind: Literal["folder", "workspace", "revision", "experiment", "model"]
    commit: str = ""
    model: str = ""


class ComparedMetric(Contract):
    """One metric of one task: both values and the paired difference.

    Attributes:
        a, b: the values of the two results on the items that both have; absent if a result has no value.
        difference: b - a, with its interval; the interval is absent if there are too few units.
        method: of the interval; "score" is Tango's of two pass rates.
        units: number of units that were resampled and tested.
        p: two-sided, exact or by randomisation; `p_holm` is corrected for the number of metrics (Holm 1979).
        verdict: about b, from `p_holm` and the direction of the metric.
        why: the reason if the metric is not compared, or if its interval is absent.
        notes: what a reader must know, such as windows that differ.
    """

    task: str
    metric: str
    higher_is_better: bool
    verdict: Verdict
    units: int
    a: float | None = None
    b: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    method: Literal["bootstrap", "exact", "score"] | None = None
    test: Literal["mcnemar", "randomisation"] | None = None
    p: float | None = None
    p_holm: float | None = None
    why: str = ""
    notes: list[str] = Field(default_factory=list)


class ChangedItem(Contract):
    """One item whose value differs.

    Attributes:
        a, b: its values; difference: b - a.
        row_a, row_b: its row in the tables results/<task>.parquet of the two results, from 0.
    """

    item: str
    source: str
    path: str
    a: float
    b: float
    difference: float
    row_a: int
    row_b: int


class ItemChanges(Contract):
    """The items of one task that one metric changed most on.

    Attributes:
        flips: whether the metric is 0 or 1 per item, so that each change is a flip such as fail to pass.
        better, worse: number of items on which b is better or worse.
        gains, losses: the largest of them; equal ones in the order of the items.
    """

    task: str
    metric: str
    higher_is_better: bool
    flips: bool
    better: int
    worse: int
    gains: list[ChangedItem]
    losses: list[ChangedItem]


class InputDifference(Contract):
    """One input that differs; absent on the side that lacks it."""

    kind: InputKind
    name: str
    a: str | None = None
    b: str | None = None


class ComparedTask(Contract):
    """One task that both results have.

    Attributes:
        items: number of items in both results, which were compared.
        only_a, only_b: number of items of one result alone, which were left out (`--common`).
        settings: those that differ, values as JSON.
    """

    task: str
    items: int
    units: int
    only_a: int = 0
    only_b: int = 0
    settings: list[InputDifference] = Field(default_factory=list)


class Comparison(Contract):
    """Result b against result a."""

    a: ComparedSide
    b: ComparedSide
    tasks: list[ComparedTask]
    metrics: list[ComparedMetric]
    changes: list[ItemChanges]
    inputs: list[InputDifference]
    notes: list[str] = Field(default_factory=list)


class Comparisons(Contract):
    """Each result against the first one.

    Attributes:
        family: number of p-values that the correction of Holm counts, over all comparisons.
        resamples, confidence, seed: of the intervals and the tests. A verdict needs p_holm < 1 - confidence.
    """

    written_by = "evaluate"

    confidence: float
    resamples: int
    seed: int
    family: int
    comparisons: list[Comparison]
