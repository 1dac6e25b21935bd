"""Metrics by source, language, licence, group and size of the test documents, in one long table.

Used by: evaluate.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from codex_ml.core.errors import safe_text
from codex_ml.core.io import atomic_file, write_text
from codex_ml.evaluate.item_tables import read_columns, read_numbers, read_units
from codex_ml.evaluate.job import Job
from codex_ml.evaluate.metrics.protocol import Metric
from codex_ml.evaluate.summary import metric_value, resampling
from codex_ml.inference.evaluate_files import MetricValue
from codex_ml.statistics.bootstrap import unit_sums

BY = ("source", "language", "licence", "group")
LENGTH = "bytes"
BORDERS = (0, 256, 1024, 4096, 16384, 65536)  # bytes of UTF-8; a document of 256 bytes is in "256 to 1023"
MAX_VALUES = 1000  # rows per column; those with most documents
ONLY_WHOLE = ("calibration_error",)  # with few targets in a bin it is too large by chance
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the begin of a formula


def groups_table(job: Job, table: Path, given: dict[str, MetricValue]) -> pd.DataFrame:
    """Compute all metrics of parts of the test documents.

    Args:
        table: Parquet file of the documents.
        given: metrics of all documents; only those with a value are computed for parts.

    Returns:
        columns: by, value, documents, bytes, and for each metric its value, <metric>_low and <metric>_high (NaN where
        there are too few units). Sorted by column, then by number of documents, then by value.
    """
    metrics = [m for m in job.metrics.of("score") if given[m.name].value is not None and m.name not in ONLY_WHOLE]
    columns = list(dict.fromkeys(["bytes", *(name for metric in metrics for name in metric.columns)]))
    numbers, units = read_numbers(table, columns), read_units(table)
    rows = []
    for by, keys in _keys(table, numbers[:, 0]):
        for value, chosen in _largest(keys):
            total = {"documents": len(chosen), "bytes": int(numbers[chosen, 0].sum())}
            sums = pd.DataFrame(unit_sums(numbers[chosen], units[chosen]), columns=columns)
            rows.append({"by": by, "value": value, **total, **_row(job, metrics, sums)})
    return pd.DataFrame(rows)


def _keys(table: Path, size: NDArray[np.float64]) -> Iterator[tuple[str, pd.Series]]:
    for by in BY:
        yield by, pd.Series(read_columns(table, [by], lambda b: np.array(b.column(0).to_pylist(), dtype=object)))
    yield LENGTH, pd.Series(length_bucket(size))


def length_bucket(size: NDArray[np.float64]) -> NDArray[np.object_]:
    """Name of the bucket of each size: (n,) texts such as "256 to 1023"."""
    names = [f"{low} to {high - 1}" for low, high in pairwise(BORDERS)] + [f"{BORDERS[-1]} and more"]
    return np.array(names, dtype=object)[np.searchsorted(BORDERS, size, side="right") - 1]


def _largest(keys: pd.Series) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """(value, its rows) for the values with most documents; an empty value is no value."""
    codes, values = pd.factorize(keys, sort=True)
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=len(values))
    starts = np.cumsum(counts) - counts
    chosen = [k for k in np.argsort(-counts, kind="stable") if values[k] != ""]
    for k in chosen[:MAX_VALUES]:
        yield str(values[k]), order[starts[k] : starts[k] + counts[k]]


def _row(job: Job, metrics: list[Metric], sums: pd.DataFrame) -> dict[str, float]:
    found = {}
    for metric in metrics:
        result = metric_value(job.metrics, metric, sums[list(metric.columns)].to_numpy(), resampling(job))
        for name, number in (("", result.value), ("_low", result.low), ("_high", result.high)):
            found[metric.name + name] = np.nan if number is None else number
    return found


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV that no spreadsheet takes for formulas: a text that begins like one gets an apostrophe.

    Control characters become escapes: pandas does not quote a lone carriage return, and the commit hook for line
    endings refuses a file that holds one.
    """
    safe = frame.copy()
    for name in safe.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in safe.dtypes]]:
        safe[name] = [safe_cell(value) for value in safe[name]]
    return str(safe.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def safe_cell(text: str) -> str:
    """A text that is safe in a cell of a spreadsheet."""
    shown = safe_text(text)
    return f"'{shown}" if text.startswith(FORMULA) else shown


def write_groups(folder: Path, frame: pd.DataFrame) -> None:
    """Write groups.csv and groups.parquet; the Parquet file has the values as they are."""
    write_text(folder / "groups.csv", csv_text(frame))
    with atomic_file(folder / "groups.parquet") as file:
        frame.to_parquet(file, index=False, compression="zstd")
