"""The small tables in the folder `plots` of a result, from which DVC and the report draw. Used by: evaluate."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from codex_ml.core.io import write_text
from codex_ml.evaluate.groups import LENGTH, csv_text

BITS = ("bits_per_byte", "zlib_bits_per_byte", "ngram_bits_per_byte")


def write_plots(folder: Path, groups: pd.DataFrame) -> None:
    """Write by_source.csv and by_length.csv.

    Args:
        groups: see `codex_ml.evaluate.groups.groups_table`.
    """
    for by, name in (("source", "source"), (LENGTH, "length")):
        write_text(folder / f"by_{name}.csv", csv_text(_bits_by(groups, by, name)))


def _bits_by(groups: pd.DataFrame, by: str, name: str) -> pd.DataFrame:
    """Bits per byte of the values of one column, sorted by value: empty where the model has none."""
    columns = ["value", "documents", "bytes", "bits_per_byte", "bits_per_byte_low", "bits_per_byte_high", *BITS[1:]]
    part = groups[groups["by"] == by].reindex(columns=columns).sort_values("value")
    return part.rename(columns={"value": name, "bits_per_byte_low": "low", "bits_per_byte_high": "high"})
