"""Read the objects of a JSON Lines file, plain or .gz. Used by: split, evaluate."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import UserError, one_line
from codex_ml.core.strict_json import parse_json

LONGEST_LINE = 64 << 20  # bytes; a small .gz can hold a line that fills the memory


def object_lines(path: Path, *, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) of each line that is not blank.

    Args:
        key: what names the file, such as a key of params.yaml, for messages.

    Raises:
        UserError: when there is no such file; with file and line, for a line that is not a JSON object in UTF-8 or
            longer than LONGEST_LINE, and for a damaged .gz.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file; {key} takes a file in JSON Lines")
    line = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while raw := file.readline(LONGEST_LINE + 1):
                line += 1
                if len(raw) > LONGEST_LINE:
                    raise UserError(f"{path}:{line}: the line is longer than {LONGEST_LINE >> 20} MiB; split the file")
                if raw.strip():
                    yield line, _object(path, line, raw, key)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}:{line + 1}: damaged gzip file ({error}); fetch it again") from None


def _object(path: Path, line: int, raw: bytes, key: str) -> dict[str, Any]:
    try:
        record = parse_json(raw.decode("utf-8-sig" if line == 1 else "utf-8"))
    except ValueError as error:
        refuse_conflict(raw, str(path), first_line=line)
        reason = one_line(error)
    else:
        if isinstance(record, dict):
            return record
        reason = f"a JSON {type(record).__name__}"
    raise UserError(
        f"{path}:{line}: not a JSON object ({reason}); {key} takes JSON Lines, one object per line: correct the line, "
        "or name only such files"
    )
