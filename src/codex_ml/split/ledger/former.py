"""Read the former form of the ledger, `data/split_ledger.ndjson`, for `codex-ml ledger convert`.

    {"schema": "codex-ml/ledger/1", "salt": "5d41402abc4b2a76"}
    {"content": "<32 hex>", "place": "<16 hex>", "unit": "<16 hex>", "split": "train", "kept": true}

If a content has two lines, the later one counts. Used by: ledger.edits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import UserError
from codex_ml.core.strict_json import parse_json
from codex_ml.split.ledger.line_format import LETTERS, SIDES, Columns, Text, lines_of, no_lines

SCHEMA = "codex-ml/ledger/1"
KEYS = ("content", "place", "unit", "split", "kept")
LINE_LIMIT = 1 << 12  # bytes
_HEX = re.compile(r"[0-9a-f]+")


def read_former(path: Path) -> Text:
    """The lines that count, in the present form. It keeps 12 of 16 bytes of a content, and 4 of 8 of a place.

    Raises:
        UserError: for a malformed line, which the message names, or a missing header.
    """
    salt, latest = "", {}
    for where, value in _values(path):
        if salt:
            content, rest = _entry(value, where)
            latest[content] = rest
        else:
            salt = _salt(value, where)
    if not latest:
        return Text(salt, no_lines())
    numbers = [(content >> 64, content >> 32 & 0xFFFFFFFF, *rest) for content, rest in latest.items()]
    high, low, unit, place, rank = zip(*numbers, strict=True)
    columns = Columns(
        np.array(high, np.uint64), np.array(low, np.uint32), np.array(unit, np.uint64), np.array(place, np.uint32),
        np.array(rank, np.uint8),
    )  # fmt: skip
    return Text(salt, lines_of(columns))


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as lines:
        number = 0
        while line := lines.readline(LINE_LIMIT):
            number += 1
            where = f"{path}:{number}"
            try:
                yield where, parse_json(line)
            except ValueError as error:
                refuse_conflict(line, str(path), first_line=number)
                raise UserError(
                    f"{where} is not JSON ({error}); take the file from another commit or from DVC"
                ) from None


def _salt(value: Any, where: str) -> str:
    salt = value.get("salt") if isinstance(value, dict) and value.get("schema") == SCHEMA else None
    if not isinstance(salt, str) or len(salt) != 16 or not _HEX.fullmatch(salt):
        raise UserError(f'{where}: the first line must be {{"schema": "{SCHEMA}", "salt": "<16 digits>"}}')
    return salt


def _entry(value: Any, where: str) -> tuple[int, tuple[int, int, int]]:
    """(content, (unit, place, rank))."""
    if not isinstance(value, dict) or sorted(value) != sorted(KEYS):
        raise UserError(f"{where}: a line of this ledger must have exactly the keys {', '.join(KEYS)}")
    for key, length in (("content", 32), ("place", 16), ("unit", 16)):
        text = value[key]
        if not isinstance(text, str) or len(text) != length or not _HEX.fullmatch(text):
            raise UserError(f"{where}: {key} must be {length} hexadecimal digits")
    if value["split"] not in SIDES or not isinstance(value["kept"], bool):
        raise UserError(f"{where}: split must be one of {', '.join(SIDES)}, and kept true or false")
    rank = 2 * SIDES.index(value["split"]) + (not value["kept"])
    assert rank < len(LETTERS)
    return int(value["content"], 16), (int(value["unit"], 16), int(value["place"], 16) >> 32, rank)
