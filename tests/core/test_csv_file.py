"""The CSV files that codex-ml writes: a name is a text in every cell, and a number is a number."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest

import codex_ml
from codex_ml.core.csv_file import csv_text, safe_cell, write_csv

# What Excel, LibreOffice and Google Sheets evaluate (OWASP, "CSV Injection"), in the middle of a line too.
FORMULAS = {
    "=1+1": "'=1+1",
    "+1+1": "'+1+1",
    "-2+3+cmd|' /C calc'!A0": "'-2+3+cmd|' /C calc'!A0",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": "'\\t=1",
    "\r=1": "'\\r=1",
    "\n=1": "'\\n=1",
    "  =1": "'  =1",
    "＝1+1": "'＝1+1",
    "＋1+1": "'＋1+1",
    "－1+1": "'－1+1",
    "＠SUM(A1)": "'＠SUM(A1)",
    "a;=1+1": "a;'=1+1",
    "a; @x;-y": "a;' @x;'-y",
    '=HYPERLINK("http://127.0.0.1/?"&A1,"x")': '\'=HYPERLINK("http://127.0.0.1/?"&A1,"x")',
}
NUMBERS = ["-1", "+1", "-1.5e-3", "1e5", "-.5", "0"]
TEXTS = ["z", "a,b", 'say "so"', "nan", "NA", " x", "ü", "\U0001f600", "a-b", "x=y", "C++", "R&D", "a;b", "1.2.3"]
ESCAPED = {
    "b\r": "b\\r",
    "line\nend": "line\\nend",
    "\x1b[31mred": "\\x1b[31mred",
    "\u009b31m": "\\x9b31m",
    "a\u202egnp.exe": "a\\u202egnp.exe",
    "a\u2028b": "a\\u2028b",
    "\ud800": "\\ud800",
    "</script><img src=x onerror=alert(1)>": "‹/script›‹img src=x onerror=alert(1)›",
    "<!--": "‹!--",
    "&lt;b&gt; &#60;": "＆lt;b＆gt; ＆#60;",
}


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


@pytest.mark.parametrize(("name", "cell"), [*FORMULAS.items(), *ESCAPED.items(), *((x, x) for x in TEXTS + NUMBERS)])
def test_a_name_is_a_text_in_its_cell(name: str, cell: str) -> None:
    assert safe_cell(name) == cell
    assert read(csv_text([name, "b"], [[name, 0.5]])) == [[cell, "b"], [cell, "0.5"]]
    assert "\r" not in csv_text([name], [[name]])


@pytest.mark.parametrize("separator", ",;\t")
def test_no_cell_of_any_separator_is_a_formula(separator: str) -> None:
    """Where the comma is the decimal mark, a spreadsheet separates the cells of the same file at `;`."""
    text = csv_text(["source", "n", "also"], [[name, 1, name] for name in FORMULAS])
    cells = [cell for row in csv.reader(io.StringIO(text), delimiter=separator) for cell in row]
    assert [cell for cell in cells if cell.lstrip()[:1] in tuple("=+-@＝＋－＠")] == []


def test_numbers_stay_numbers() -> None:
    row = [-1, -1.5, np.float32(-0.5), np.int64(-3), 1e-05, True, None, float("nan"), np.nan, 0.0]
    assert csv_text(list("abcdefghij"), [row]) == "a,b,c,d,e,f,g,h,i,j\n-1,-1.5,-0.5,-3,1e-05,True,,,,0.0\n"
    assert csv_text(["a"], [[-1234567.891]], number="{:.6g}".format) == "a\n-1.23457e+06\n"


def test_a_file_without_rows_has_its_columns(tmp_path) -> None:
    write_csv(tmp_path / "a.csv", ["a", "b"], [])
    assert (tmp_path / "a.csv").read_bytes() == b"a,b\n"


def test_all_csv_files_have_one_writer() -> None:
    """DVCLive writes the curves, whose names and values are ours."""
    source = Path(codex_ml.__file__).parent
    writes = re.compile(r"\.to_csv\(|csv\.(writer|DictWriter)\(")
    found = [
        file.relative_to(source).as_posix() for file in source.rglob("*.py") if writes.search(file.read_text("utf-8"))
    ]
    assert found == ["core/csv_file.py"]
