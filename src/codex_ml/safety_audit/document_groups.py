"""The groups of the documents that windows come from: documents of one repository are not independent evidence.

Used by: the part membership of safety_audit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from codex_ml.documents.document import opened
from codex_ml.modeling.stream_documents import StreamDocuments
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.audit_windows import AuditWindow


def with_groups(job: AuditJob, windows: Sequence[AuditWindow], *, held_out: bool) -> list[AuditWindow]:
    """Return the windows with the groups of their documents; unchanged if the documents are not known.

    Args:
        held_out: whether the windows are of held-out text, or of train text.

    Raises:
        UserError: when the file of the documents is missing or damaged.
    """
    data = job.data
    known = (data.held_out, data.held_out_rows, "test") if held_out else (data.train, data.train_rows, "train")
    file, rows, split = known
    if file is None or rows is None:
        return list(windows)
    stream = StreamDocuments.open(rows, data.packed, split) if data.packed else StreamDocuments(rows.canaries)
    row_of = {number: stream.row_of(number) for number in {window.document for window in windows}}
    groups = read_groups(file, {row for row in row_of.values() if row is not None})
    numbers = [row_of[window.document] for window in windows]
    return [
        window if row is None else replace(window, group=groups.get(row, ""))
        for window, row in zip(windows, numbers, strict=True)
    ]


def read_groups(path: Path, numbers: Collection[int]) -> dict[int, str]:
    """Read the groups of some documents of a Parquet file: row number -> group. Only their column is read.

    Raises:
        UserError: when the file is missing or damaged.
    """
    wanted, found, begin = np.array(sorted(numbers), dtype=np.int64), dict[int, str](), 0
    with opened(path) as file:
        for number in range(file.num_row_groups):
            end = begin + file.metadata.row_group(number).num_rows
            inside = wanted[(wanted >= begin) & (wanted < end)]
            if len(inside):
                column = file.read_row_group(number, columns=["group"]).column("group").take(inside - begin)
                found |= zip(inside.tolist(), column.to_pylist(), strict=True)
            begin = end
    return found
