"""`evaluate.compare_to`: the result of another model, which each evaluation is compared with. Used by: evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from codex_ml.core.csv_file import write_csv
from codex_ml.core.errors import UserError
from codex_ml.documents.document import read_documents
from codex_ml.evaluate.comparison import CompareSettings, compare_results
from codex_ml.evaluate.config import Evaluate
from codex_ml.evaluate.item_tables import content_hash
from codex_ml.evaluate.paired_items import ItemKeys, pair_items, text_keys
from codex_ml.evaluate.paired_metric import Inference
from codex_ml.evaluate.result_folder import ResultFolder, result_at
from codex_ml.inference.comparison_files import COMPARISON, ComparedMetric, Comparisons
from codex_ml.inference.evaluate_files import DOCUMENTS, PLOTS, RESULTS

COMPARED_PLOT = "compared.csv"
COLUMNS = ("task", "metric", "difference", "low", "high", "p_holm", "verdict")


def open_baseline(settings: Evaluate, test: Path) -> ResultFolder | None:
    """Open the stored result before the work of an evaluation; None where `evaluate.compare_to` is empty.

    Raises:
        UserError: when it is not a whole result, or was made on other documents than `test` holds.
    """
    if not settings.compare_to:
        return None
    baseline = result_at(settings.compare_to, Path(settings.compare_to))
    try:
        pair_items(DOCUMENTS, baseline.table(DOCUMENTS).keys(baseline.name), _keys(test), common=False)
    except UserError as error:
        said = str(error).partition("; `--common`")[0]
        raise UserError(f"evaluate.compare_to: {said}; name a result on this test split, or set it to ''") from None
    return baseline


def _keys(test: Path) -> ItemKeys:
    """What the documents of a test split are paired by, as the table of documents has it."""
    item = text_keys(document.id for document in read_documents(test))
    content = text_keys(content_hash(document.content) for document in read_documents(test))
    table = pd.DataFrame({"item": item, "content": content, "unit": item})
    return ItemKeys("the test split", table, lambda rows: list(_ids(test, rows)))


def _ids(test: Path, rows: Sequence[int]) -> Iterator[str]:
    for row, document in enumerate(read_documents(test)):
        if row in rows:
            yield document.id


def compare_with(baseline: ResultFolder, out: Path, settings: Evaluate, seed: int) -> Comparisons:
    """Compare a result that was just written with the baseline, which is A.

    Writes results/comparison.json and plots/compared.csv.

    Args:
        out: the result folder.
    """
    inference = Inference(settings.bootstrap, settings.confidence, seed)
    found = compare_results([baseline, result_at("this model", out)], CompareSettings(inference))
    found.write(out / RESULTS / COMPARISON)
    (comparison,) = found.comparisons
    write_compared(out / PLOTS, comparison.metrics)
    return found


def write_compared(plots: Path, metrics: Sequence[ComparedMetric]) -> None:
    """Write compared.csv: the metrics that have a difference, one row each; no interval is an empty cell.

    Args:
        metrics: none for a result that is compared with nothing.
    """
    rows = [[getattr(metric, name) for name in COLUMNS] for metric in metrics if metric.difference is not None]
    write_csv(plots / COMPARED_PLOT, COLUMNS, rows, number="{:.6g}".format)
