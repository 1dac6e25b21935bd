"""Which row of its split each document of a stream is.

Used by: safety_audit, `codex-ml pack`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.core.errors import UserError
from codex_ml.core.strict_json import parse_json
from codex_ml.modeling.pack_files import RECORDS
from codex_ml.modeling.rows import Rows


@dataclass(frozen=True)
class StreamDocuments:
    """The documents of a stream: those of its split without the dropped ones, and canaries among them.

    Attributes:
        canaries: numbers of the documents that are canaries, ascending.
        dropped: rows of the split that are not in the stream, ascending.
    """

    canaries: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()

    @classmethod
    def open(cls, rows: Rows, packed: Path, split: str = "train") -> StreamDocuments:
        """Read which rows of a split stage pack dropped.

        Args:
            rows: the stream of the split.
            packed: the folder that holds it.
            split: "train", "val" or "test".

        Raises:
            UserError: when the list of dropped records is missing.
        """
        return cls(rows.canaries, tuple(_dropped(packed / RECORDS, split)))

    def row_of(self, document: int) -> int | None:
        """Return the row of the split that a document of the stream is; None for a canary.

        >>> [StreamDocuments(canaries=(1,), dropped=(0, 3)).row_of(document) for document in range(4)]
        [1, None, 2, 4]
        """
        before = bisect_left(self.canaries, document)
        if before < len(self.canaries) and self.canaries[before] == document:
            return None
        number = document - before
        # Kept rows before the dropped row number i: dropped[i] - i.
        return number + bisect_right(range(len(self.dropped)), number, key=lambda place: self.dropped[place] - place)

    def document_of_row(self, row: int) -> int | None:
        """Return the document of the stream that a row of the split is; None for a dropped one. Undoes `row_of`.

        >>> [StreamDocuments(canaries=(1,), dropped=(0, 3)).document_of_row(row) for row in range(5)]
        [None, 0, 2, None, 3]
        """
        document = row - bisect_left(self.dropped, row)
        for canary in self.canaries:
            document += canary <= document
        return document if self.row_of(document) == row else None


def _dropped(records: Path, split: str) -> Iterator[int]:
    if not records.is_file():
        raise UserError(f"{records} is missing; `dvc repro pack` makes it")
    with records.open("rb") as lines:
        for line in lines:
            record: dict[str, Any] = parse_json(line)
            if record["split"] == split and record["action"] == "drop":
                yield record["row"]
