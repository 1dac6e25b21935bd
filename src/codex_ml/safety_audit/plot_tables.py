"""Write the small tables of an audit, from which DVC and the report draw. Used by: the parts of safety_audit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from codex_ml.core.io import write_text

SIGNIFICANT = 6  # digits; further ones depend on the batch and the rounding of the hardware


def significant(value: float) -> float:
    """Round to `SIGNIFICANT` significant digits.

    >>> significant(1234.56789), significant(0.000123456789)
    (1234.57, 0.000123457)
    """
    return float(f"{value:.{SIGNIFICANT}g}")


def write_plot_table(file: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file with these columns; without rows its header alone. None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = (row[column] for column in columns)
        writer.writerow([significant(cell) if isinstance(cell, float) else cell for cell in cells])
    write_text(file, text.getvalue())
