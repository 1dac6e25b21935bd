"""The small tables in the folder `plots` of a result, from which DVC and the report draw. Used by: evaluate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from codex_ml.evaluate.groups import LENGTH, rank, write_table_csv
from codex_ml.evaluate.item_tables import number_batches
from codex_ml.evaluate.metrics.likelihood_metrics import CalibrationError

CALIBRATION = CalibrationError()
BITS = ("bits_per_byte", "zlib_bits_per_byte", "ngram_bits_per_byte")


def write_plots(folder: Path, groups: pd.DataFrame, table: Path) -> None:
    """Write by_source.csv, by_length.csv and calibration.csv.

    Args:
        groups: see `codex_ml.evaluate.groups.groups_table`.
        table: Parquet file of the documents.
    """
    sources, lengths = _bits_by(groups, "source", "source"), _bits_by(groups, LENGTH, "length")
    write_table_csv(folder / "by_source.csv", sources.sort_values("source"))
    write_table_csv(folder / "by_length.csv", lengths.sort_values("length", key=lambda names: names.map(rank)))
    write_table_csv(folder / "calibration.csv", calibration(table))


def calibration(table: Path) -> pd.DataFrame:
    """Confidence and accuracy of the predictions in each bin of confidence that has some.

    Returns:
        columns: confidence (mean), accuracy, tokens (number of predictions).
    """
    sums = sum(numbers.sum(axis=0) for numbers in number_batches(table, CALIBRATION.columns)).reshape(-1, 3)
    tokens, confidence, correct = sums[sums[:, 0] > 0].T
    return pd.DataFrame(
        {"confidence": confidence / tokens, "accuracy": correct / tokens, "tokens": tokens.astype(np.int64)}
    )


def _bits_by(groups: pd.DataFrame, by: str, name: str) -> pd.DataFrame:
    """Bits per byte of the values of one column: empty where the model has none."""
    columns = ["value", "documents", "bytes", "bits_per_byte", "bits_per_byte_low", "bits_per_byte_high", *BITS[1:]]
    part = groups[groups["by"] == by].reindex(columns=columns)
    return part.rename(columns={"value": name, "bits_per_byte_low": "low", "bits_per_byte_high": "high"})
