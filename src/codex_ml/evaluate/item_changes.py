"""The items on which two results differ most, or that flipped between fail and pass. Used by: evaluate.comparison."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codex_ml.evaluate.paired_items import Pairing
from codex_ml.evaluate.paired_metric import PairedDifference
from codex_ml.evaluate.result_folder import TaskTable
from codex_ml.inference.comparison_files import ChangedItem, ComparedMetric, ItemChanges

LABELS = ("item", "source", "path")
DECIMALS = 9  # of a value; the further ones depend on the order of additions


def item_changes(
    row: ComparedMetric, found: PairedDifference, tables: tuple[TaskTable, TaskTable], pairing: Pairing, top: int
) -> ItemChanges:
    """The items that changed most, `top` gains and `top` losses; equal changes in the order of the items."""
    with np.errstate(invalid="ignore"):  # infinite in both, such as the perplexity of one impossible token
        change = found.items_b - found.items_a
    gain = change if row.higher_is_better else -change
    gain = np.where(np.isfinite(gain), gain, 0.0)  # an item without a value in one result did not change
    better, worse = int((gain > 0).sum()), int((gain < 0).sum())
    return ItemChanges(
        task=row.task,
        metric=row.metric,
        higher_is_better=row.higher_is_better,
        flips=found.is_binary,
        better=better,
        worse=worse,
        gains=_listed(np.argsort(-gain, kind="stable")[: min(top, better)], found, tables, pairing),
        losses=_listed(np.argsort(gain, kind="stable")[: min(top, worse)], found, tables, pairing),
    )


def _listed(
    pairs: NDArray[np.intp], found: PairedDifference, tables: tuple[TaskTable, TaskTable], pairing: Pairing
) -> list[ChangedItem]:
    texts = tables[0].texts(LABELS, pairing.rows_a[pairs].tolist())
    listed = []
    for pair, labels in zip(pairs.tolist(), texts, strict=True):
        row_a, row_b = int(pairing.rows_a[pair]), int(pairing.rows_b[pair])
        a, b = round(float(found.items_a[pair]), DECIMALS), round(float(found.items_b[pair]), DECIMALS)
        listed.append(
            ChangedItem(
                item=labels["item"],
                source=labels["source"],
                path=labels["path"],
                a=a,
                b=b,
                difference=round(b - a, DECIMALS),
                row_a=int(tables[0].rows[row_a]),
                row_b=int(tables[1].rows[row_b]),
            )
        )
    return listed
