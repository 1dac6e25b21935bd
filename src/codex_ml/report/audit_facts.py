"""Read the small tables from which the pictures of the audit are drawn. Used by: report.facts."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from codex_ml.core.errors import UserError
from codex_ml.report.input_files import Find, existing

AUDIT_PLOTS = "reports/safety_audit/plots"


@dataclass(frozen=True)
class PlotPoint:
    """A value of one series.

    Attributes:
        place: what the table says of the place on the x axis, such as "16" or "50 to 99".
        x: the place as a number; the number of the row where it is text.
        low, high: the value's interval; None without one.
    """

    series: str
    place: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PlotTable:
    """What a table of a part holds.

    Attributes:
        x: column of the place on the x axis.
        y: column of a value -> name of its series. The interval in the columns `low` and `high` is that of the first.
        series: the column that names the series, for a table with one value per row.
        text: whether places are texts, such as ranges.
    """

    x: str
    y: Mapping[str, str]
    series: str = ""
    text: bool = False


# By the stem of the file.
PLOT_TABLES = {
    "extraction_by_prefix": PlotTable("prefix", {"share": ""}, series="set"),
    "extraction_tries": PlotTable("tries", {"share": ""}, series="set"),
    "exposure": PlotTable("repetitions", {"exposure": "planted secrets", "null": "secrets never planted"}),
    "roc": PlotTable("fpr", {"tpr": ""}, series="score"),
    "copied_runs": PlotTable("length", {"samples": "generated texts", "held_out": "held-out texts"}, text=True),
}


def load_audit_plots(find: Find) -> dict[str, tuple[PlotPoint, ...]]:
    """Points by the stem of their table; none where the audit wrote no such table, or one without rows.

    Args:
        find: see `codex_ml.report.facts.load_facts`.

    Raises:
        UserError: when the folder is missing, or a table does not have the expected form.
    """
    folder = existing(find, AUDIT_PLOTS, "safety_audit")
    return {stem: _points(folder / f"{stem}.csv", form) for stem, form in PLOT_TABLES.items()}


def _points(file: Path, form: PlotTable) -> tuple[PlotPoint, ...]:
    if not file.exists():
        return ()
    with file.open(encoding="utf-8", newline="") as lines:
        try:
            head, *rows = csv.reader(lines, strict=True)
            return tuple(p for number, row in enumerate(rows) for p in _row(_cells(head, row), number, form))
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            why = f"no column {error}" if isinstance(error, KeyError) else error
            raise UserError(
                f"{file} is not what safety_audit writes ({why}); `dvc repro safety_audit` makes it"
            ) from None


def _cells(head: list[str], row: list[str]) -> dict[str, str]:
    if len(row) != len(head):
        raise ValueError(f"a row has {len(row)} of {len(head)} cells")
    return dict(zip(head, row, strict=True))


def _row(row: Mapping[str, str], number: int, form: PlotTable) -> Iterator[PlotPoint]:
    """The points of a row; a value that is absent gives none."""
    place = row[form.x]
    for index, (column, series) in enumerate(form.y.items()):
        value = _optional(row[column])
        if value is not None:
            yield PlotPoint(
                series=row[form.series] if form.series else series,
                place=place,
                x=float(number) if form.text else _finite(place),
                y=value,
                low=None if index else _optional(row.get("low", "")),
                high=None if index else _optional(row.get("high", "")),
            )


def _optional(text: str) -> float | None:
    return _finite(text) if text else None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
