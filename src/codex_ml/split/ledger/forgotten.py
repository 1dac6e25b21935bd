"""Read and write `forgotten.txt`: tombstones, one per line, of contents whose ledger lines do not count.

Used by: split, check, and the commands `codex-ml ledger` and `codex-ml merge`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import UserError
from codex_ml.core.io import write_text
from codex_ml.core.paths import FORGOTTEN
from codex_ml.split.ledger.line_format import HEADER, Contents, columns_of, content_keys, no_lines

REASON_LIMIT = 200  # characters

_TOMBSTONE = re.compile(r"([A-Za-z0-9_-]{16}) (\S(?:.*\S)?)")


def read_forgotten(path: Path) -> Contents:
    """Contents whose lines do not count, sorted and distinct; an empty array if the file does not exist.

    Raises:
        UserError: see `read_tombstones`.
    """
    contents = [content for content, _ in read_tombstones(path.read_bytes(), str(path))] if path.is_file() else []
    return contents_of(contents)


def contents_of(texts: Sequence[str]) -> Contents:
    """(n,) S12: contents as bytes, sorted and distinct, from their 16 characters in a line."""
    filler = b" AAAAAAAAAAA AAAAAA R"
    columns = columns_of(np.array([text.encode() + filler for text in sorted(set(texts))], dtype=no_lines().dtype))
    assert columns is not None
    return np.unique(content_keys(columns.high, columns.low))


def read_tombstones(data: bytes, name: str) -> list[tuple[str, str]]:
    """(content, reason) of each line of forgotten.txt, distinct and sorted.

    Raises:
        UserError: for a malformed line; the message names file and line.
    """
    found = set()
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), start=1):
        line = line.removesuffix("\r")
        entry = _TOMBSTONE.fullmatch(line)
        if entry and line.isprintable():
            found.add((entry[1], entry[2]))
        elif line and not line.startswith(HEADER):
            refuse_conflict(line, name, first_line=number)
            raise UserError(
                f"{name}:{number}: a forgotten content must be `<content> <reason>`, 16 characters and a text; "
                "take the file from another commit, then run `codex-ml ledger forget` again"
            )
    return sorted(found)


def add_tombstones(folder: Path, contents: Sequence[str], reason: str) -> list[str]:
    """Write tombstones, and return the contents that had none before.

    Args:
        contents: 16 characters each, as in a line of the ledger.

    Raises:
        UserError: see `checked_reason`.
    """
    reason = checked_reason(reason)
    path = folder / FORGOTTEN
    old = read_tombstones(path.read_bytes(), str(path)) if path.is_file() else []
    before = {content for content, _ in old}
    new = sorted(set(contents) - before)
    if new:
        write_tombstones(path, sorted({*old, *((content, reason) for content in new)}))
    return new


def checked_reason(reason: str) -> str:
    """The reason without white space at its ends, as a tombstone holds it.

    Raises:
        UserError: when it is empty, too long or more than one line.
    """
    if not reason.strip() or len(reason) > REASON_LIMIT or not reason.isprintable():
        raise UserError(f"--reason must be one line of 1 to {REASON_LIMIT} characters without control characters")
    return reason.strip()


def write_tombstones(path: Path, lines: Sequence[tuple[str, str]]) -> None:
    """Write (content, reason) pairs, unless the file already holds exactly these."""
    data = "".join(f"{content} {reason}\n" for content, reason in lines)
    if not path.is_file() or path.read_bytes() != data.encode():
        write_text(path, data)
