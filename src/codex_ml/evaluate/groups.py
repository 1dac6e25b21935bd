"""Metrics by source, language, licence, group and size of the test documents, in one long table.

Used by: evaluate.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from codex_ml.core.csv_file import write_csv
from codex_ml.core.io import atomic_file
from codex_ml.evaluate.item_tables import read_columns, read_numbers
from codex_ml.evaluate.job import Job
from codex_ml.evaluate.metrics.protocol import Metric
from codex_ml.evaluate.summary import metric_value, resampling
from codex_ml.evaluate.units import read_pools, text_hashes
from codex_ml.inference.evaluate_files import MetricValue

BY = ("source", "language", "licence", "group")
LENGTH = "bytes"
BORDERS = (0, 256, 1024, 4096, 16384, 65536)  # bytes of UTF-8; a document of 256 bytes is in "256 to 1023"
MAX_VALUES = 100  # rows per column: those with most documents, so that the time is bounded
ONLY_WHOLE = ("calibration_error",)  # with few targets in a bin it is too large by chance


def groups_table(job: Job, table: Path, given: dict[str, MetricValue]) -> pd.DataFrame:
    """Compute all metrics of parts of the test documents.

    Args:
        table: Parquet file of the documents.
        given: metrics of all documents; only those with a value are computed for parts.

    Returns:
        columns: by, value, documents, bytes, and for each metric its value, <metric>_low and <metric>_high (NaN where
        there are too few units). Sorted by column, then by value.
    """
    metrics = [m for m in job.metrics.of("score") if given[m.name].value is not None and m.name not in ONLY_WHOLE]
    columns = list(dict.fromkeys(["bytes", *(name for metric in metrics for name in metric.columns)]))
    numbers, units = read_numbers(table, columns), read_pools(table)
    rows = []
    for by, value, chosen in _parts(table, numbers[:, 0]):
        pools, places = np.unique(units.pool[chosen], return_inverse=True)
        sums = np.stack([np.bincount(places, column[chosen], len(pools)) for column in numbers.T], axis=1)
        total = {"documents": len(chosen), "bytes": int(sums[:, 0].sum())}
        rows.append({"by": by, "value": value, **total, **_row(job, metrics, pd.DataFrame(sums, columns=columns))})
    return pd.DataFrame(rows)


def _parts(table: Path, size: NDArray[np.float64]) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """(column, value, rows of the table) for the values with most documents; an empty value does not count.

    Memory holds a hash of the value of each row, and the texts of the values that are shown.
    """
    for by in BY:
        hashes = read_columns(table, [by], lambda batch: text_hashes(batch.column(0)))
        chosen = _largest(hashes, text_hashes(pa.array([""]))[0])
        names = _names(table, by, list(chosen))
        for name, key in sorted((name, key) for key, name in names.items()):
            yield by, name, chosen[key]
    buckets = length_bucket(size)
    for name in sorted(np.unique(buckets), key=rank):
        yield LENGTH, str(name), np.flatnonzero(buckets == name)


def _largest(hashes: NDArray[np.uint64], empty: np.uint64) -> dict[int, NDArray[np.int64]]:
    """Rows by value, for the `MAX_VALUES` values that have most rows."""
    values, codes, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    counts[values == empty] = 0
    order = [k for k in np.argsort(-counts, kind="stable")[:MAX_VALUES] if counts[k]]
    return {int(values[k]): np.flatnonzero(codes == k) for k in order}


def _names(table: Path, by: str, wanted: list[int]) -> dict[int, str]:
    """The texts of these hashes."""
    found: dict[int, str] = {}

    def look(batch: pa.RecordBatch | pa.Table) -> NDArray[np.uint64]:
        hashes, rows = np.unique(text_hashes(batch.column(0)), return_index=True)
        for place in np.flatnonzero(np.isin(hashes, np.array(wanted, dtype=np.uint64))):
            found.setdefault(int(hashes[place]), batch.column(0)[int(rows[place])].as_py())
        return hashes[:0]

    read_columns(table, [by], look)
    return found


def length_bucket(size: NDArray[np.float64]) -> NDArray[np.str_]:
    """Name of the bucket of each size: (n,) texts such as "256 to 1023"."""
    names = [f"{low} to {high - 1}" for low, high in pairwise(BORDERS)] + [f"{BORDERS[-1]} and more"]
    return np.array(names)[np.searchsorted(BORDERS, size, side="right") - 1]


def rank(bucket: str) -> int:
    """The place of a bucket of length among the others.

    >>> sorted(["1024 to 4095", "256 to 1023"], key=rank)
    ['256 to 1023', '1024 to 4095']
    """
    return BORDERS.index(int(bucket.split(" ")[0]))


def _row(job: Job, metrics: list[Metric], sums: pd.DataFrame) -> dict[str, float]:
    found = {}
    for metric in metrics:
        result = metric_value(job.metrics, metric, sums[list(metric.columns)].to_numpy(), resampling(job))
        for name, number in (("", result.value), ("_low", result.low), ("_high", result.high)):
            found[metric.name + name] = np.nan if number is None else number
    return found


def write_table_csv(file: Path, frame: pd.DataFrame) -> None:
    """Write a table as CSV with six significant digits; see `codex_ml.core.csv_file`."""
    write_csv(file, list(frame.columns), frame.itertuples(index=False, name=None), number="{:.6g}".format)


def write_groups(folder: Path, frame: pd.DataFrame) -> None:
    """Write groups.csv and groups.parquet; the Parquet file has the values as they are."""
    write_table_csv(folder / "groups.csv", frame)
    with atomic_file(folder / "groups.parquet") as file:
        frame.to_parquet(file, index=False, compression="zstd")
