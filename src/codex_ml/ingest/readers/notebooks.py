"""The code of a Jupyter notebook, without outputs, prose and the JSON around them. Used by: ingest."""

from __future__ import annotations

import json
from typing import Any

from codex_ml.core.errors import Reason, reason_of
from codex_ml.core.strict_json import parse_json


def code_of_notebook(data: bytes) -> str:
    """The non-empty code cells, unchanged (magics too), joined by one blank line.

    It reads format 3 (cells in worksheets, code under `input`) and format 4 (cells at the top, code under `source`). A
    text is a string or a list of strings (https://nbformat.readthedocs.io/en/latest/format_description.html).

    Raises:
        ValueError: a short reason why this is not a notebook.
    """
    notebook = _parsed(data)
    version = notebook.get("nbformat")
    if version not in (3, 4) or isinstance(version, bool):
        raise ValueError(Reason("not a notebook of format 3 or 4 (nbformat)"))
    sheets = [notebook] if version == 4 else notebook.get("worksheets", [])
    key = "source" if version == 4 else "input"
    code = [_text(cell.get(key, "")) for cell in _cells(sheets) if cell.get("cell_type") == "code"]
    return _joined([text for text in code if text.strip()])


def _joined(texts: list[str]) -> str:
    """Join cells with one blank line; a cell that ends with a line end needs one line end less."""
    parts = [text + ("\n" if text.endswith("\n") else "\n\n") for text in texts[:-1]]
    return "".join(parts + texts[-1:])


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        notebook = parse_json(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError(Reason("not JSON (not UTF-8)")) from None
    except json.JSONDecodeError as error:
        raise ValueError(Reason("not JSON (line {})", error.lineno)) from None
    except ValueError as error:
        raise ValueError(Reason("not JSON: {}", reason_of(error))) from None
    if not isinstance(notebook, dict):
        raise ValueError(Reason("not a notebook: no JSON object"))
    return notebook


def _cells(sheets: Any) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = []
    for sheet in sheets if isinstance(sheets, list) else [None]:
        found = sheet.get("cells", []) if isinstance(sheet, dict) else None
        if not isinstance(found, list) or not all(isinstance(cell, dict) for cell in found):
            raise ValueError(Reason("not a notebook: cells is not a list of objects"))
        cells += found
    return cells


def _text(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "".join(value)
    if not isinstance(value, str):
        raise ValueError(Reason("not a notebook: the source of a cell is neither a text nor a list of texts"))
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(Reason("a lone surrogate is not text")) from None
    return value
