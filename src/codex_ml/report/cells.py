"""A table of the report, and the format of numbers in cells and sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codex_ml.core.errors import safe_line
from codex_ml.inference.evaluate_files import MetricValue


@dataclass(frozen=True)
class Table:
    """A table of texts, each on one line.

    Attributes:
        kinds: kind of each column: "text", "status", "number" (right-aligned), "code" (paths, commands), "code key" or
            "code hash"; the page has a style for each.
    """

    title: str
    head: tuple[str, ...]
    kinds: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def table(title: str, columns: dict[str, str], rows: list[tuple[Any, ...]]) -> Table:
    """Return a table whose cells are one line each. `columns` maps the head of a column to its kind."""
    cells = tuple(tuple(safe_line(str(cell)) for cell in row) for row in rows)
    assert all(len(row) == len(columns) for row in cells)
    return Table(title, tuple(columns), tuple(columns.values()), cells)


def percent(share: float, digits: int = 1) -> str:
    """Return a share as a percentage: 0.087 is "8.7 %"."""
    return f"{100 * share:.{digits}f} %"


def between(found: MetricValue, digits: int = 3) -> str:
    """Return the two limits of an interval: "1.712 to 1.768"; "–" if there is none."""
    if found.low is None or found.high is None:
        return "–"
    return f"{found.low:.{digits}f} to {found.high:.{digits}f}"


def percents(found: MetricValue) -> str:
    """Return the two limits of an interval of shares as percentages; "–" if there is none."""
    if found.low is None or found.high is None:
        return "–"
    return f"{percent(found.low, 2)} to {percent(found.high, 2)}"
