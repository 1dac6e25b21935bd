"""Write the small tables of an audit, from which DVC and the report draw. Used by: the parts of safety_audit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from codex_ml.core.csv_file import write_csv

SIGNIFICANT = 6  # digits; further ones depend on the batch and the rounding of the hardware


def significant(value: float) -> float:
    """Round to `SIGNIFICANT` significant digits.

    >>> significant(1234.56789), significant(0.000123456789)
    (1234.57, 0.000123457)
    """
    return float(f"{value:.{SIGNIFICANT}g}")


def write_plot_table(file: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file with these columns; without rows its header alone. None is an empty cell."""
    cells = ([row[column] for column in columns] for row in rows)
    write_csv(file, columns, cells, number=lambda value: repr(significant(value)))
