"""The CSV files that codex-ml writes. No spreadsheet, terminal or web page obeys what is in them.

Cells may hold names of unknown origin: of sources, languages, benchmarks, metrics. A spreadsheet evaluates a cell that
begins like a formula (OWASP, "CSV Injection"). A terminal obeys control characters. `dvc plots show` puts the cells
into a script of its page without an escape, so a cell with `</script>` would end that script.

Used by: evaluate, safety_audit, `codex-ml sweep`.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from codex_ml.core.errors import safe_line
from codex_ml.core.io import write_text
from codex_ml.core.publication import published

# Where a cell may begin: at its start, and after `;`, which separates cells where the comma is the decimal mark.
FORMULA = re.compile(r"(^|;)(\s*)(?=[=+\-@\t\r\n＝＋－＠])")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
MARKUP = str.maketrans({"<": "‹", ">": "›"})
ENTITY = re.compile(r"&(?=#?\w+;)")


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, number: Callable[[float], str] = repr) -> str:
    """A table as CSV (RFC 4180, with "\\n" between lines); its texts pass the gate of `core.publication`.

    Args:
        rows: values in the order of the columns. None and NaN are empty cells.
        number: writes a number that is not an integer.

    >>> print(csv_text(["source", "bits"], [["=1+1", -1.5], ["<b>", None]]), end="")
    source,bits
    '=1+1,-1.5
    ‹b›,
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(safe_cell(published(name)) for name in columns)
    table.writerows([_cell(published(value), number) for value in row] for row in rows)
    return text.getvalue()


def write_csv(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, number: Callable[[float], str] = repr
) -> None:
    """Write `csv_text` atomically."""
    write_text(path, csv_text(columns, rows, number=number))


def safe_cell(text: str) -> str:
    """A text that is only a text in a cell.

    A formula gets an apostrophe; a number stays a number. Control and bidirectional characters, line ends and tabs are
    escapes. `<` and `>` become the quotation marks that look like them, and so does the `&` of an HTML entity.

    >>> safe_cell("-1.5"), safe_cell("-1+1"), safe_cell("</script>"), safe_cell("R&D &lt;")
    ('-1.5', "'-1+1", '‹/script›', 'R&D ＆lt;')
    """
    if NUMBER.fullmatch(text):
        return text
    return ENTITY.sub("＆", safe_line(FORMULA.sub(r"\1'\2", text)).translate(MARKUP))


def _cell(value: Any, number: Callable[[float], str]) -> str:
    if value is None or (isinstance(value, Real) and math.isnan(value)):
        return ""
    if isinstance(value, Integral):
        return str(value)
    return number(float(value)) if isinstance(value, Real) else safe_cell(str(value))
