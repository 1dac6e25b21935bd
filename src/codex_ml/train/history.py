"""The history of a run: the points of its curves, one JSON object per line of a file, in the order of the steps.

A checkpoint holds the length and the SHA-256 of the lines before it, not the lines. So its size and time do not grow
with the number of steps, and no part of the history stays in memory. A run that resumes repeats the steps after its
newest checkpoint, so it first cuts off their lines.

Used by: run (resume, save) and checkpoint (verification, export).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from codex_ml.core.errors import naming
from codex_ml.core.hashing import CHUNK
from codex_ml.core.io import fsync_folder
from codex_ml.core.strict_json import ndjson_line, parse_json

HISTORY = "history.ndjson"
Mark = dict[str, Any]


class History:
    """Appends points to a file: one JSON object {"step": global_step, curve: value, ...} per line."""

    def __init__(self, file: Path, kept: int = 0) -> None:
        """Keep the first `kept` bytes of the file and cut off the rest; a missing file is created.

        Raises:
            OSError: when the file cannot be read or written.
        """
        self.file, self.bytes = file, kept
        file.parent.mkdir(parents=True, exist_ok=True)
        with naming(file), file.open("ab") as handle:
            handle.truncate(kept)
            os.fsync(handle.fileno())
        fsync_folder(file.parent)
        self._sha256 = hashlib.sha256()
        for piece in _pieces(file, kept):
            self._sha256.update(piece)

    def append(self, point: dict[str, Any]) -> None:
        """Add a point. It is durable after the next `mark`."""
        line = ndjson_line(point)
        with naming(self.file), self.file.open("ab") as handle:
            handle.write(line)
        self._sha256.update(line)
        self.bytes += len(line)

    def mark(self) -> Mark:
        """Flush all points to disk; return {"bytes", "sha256"} of the file so far, for a checkpoint."""
        with naming(self.file), self.file.open("ab") as handle:
            os.fsync(handle.fileno())
        return {"bytes": self.bytes, "sha256": self._sha256.hexdigest()}

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield the points from the first to the last."""
        return read_points(self.file, self.bytes)


def read_points(file: Path, size: int) -> Iterator[dict[str, Any]]:
    """Yield the points in the first `size` bytes of a history file."""
    with naming(file), file.open("rb") as handle:
        for line in takewhile(lambda _: handle.tell() <= size, iter(handle.readline, b"")):
            yield parse_json(line)


def damage_of(file: Path, mark: Mark) -> str | None:
    """Return what is wrong with the part of a history file that a checkpoint refers to, or None."""
    if not file.is_file():
        return f"{HISTORY} is missing"
    sha256, size = hashlib.sha256(), 0
    for piece in _pieces(file, mark["bytes"]):
        sha256.update(piece)
        size += len(piece)
    if size < mark["bytes"]:
        return f"{HISTORY} ends too early"
    return None if sha256.hexdigest() == mark["sha256"] else f"{HISTORY} does not match its SHA-256"


def copy_history(file: Path, target: Path, size: int) -> None:
    """Copy the first `size` bytes of a history file."""
    with naming(target), target.open("wb") as handle:
        handle.writelines(_pieces(file, size))


def _pieces(file: Path, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a file, in pieces of at most CHUNK."""
    with naming(file), file.open("rb") as handle:
        while size and (piece := handle.read(min(CHUNK, size))):
            size -= len(piece)
            yield piece
