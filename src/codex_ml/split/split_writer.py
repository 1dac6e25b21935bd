"""Write the result of `split`: three redacted Parquet files, and the list of dropped documents.

Worker processes encode row groups of the corpus; the parent process only appends their bytes.
Used by: stages/split.py.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codex_ml.core.io import atomic_file
from codex_ml.core.parallel import ordered_map
from codex_ml.core.strict_json import ndjson_line
from codex_ml.documents.document import PUBLISHED, SCHEMA, documents_of, number_column, opened, table_of
from codex_ml.documents.parquet_join import EncodedGroup, Joiner, encoded
from codex_ml.split.candidates import DROPPED, PARTS, DocumentKeys
from codex_ml.split.crew import Crew
from codex_ml.split.redaction import ScreenSettings, redacted, redacted_name
from codex_ml.split.splits import CorpusSplit, Pool

COUNTED = ("licence", "language", "source")


@dataclass
class Counts:
    """Numbers of documents, bytes and groups of a split, for the manifest."""

    documents: int = 0
    bytes: int = 0
    groups: int = 0
    by: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in COUNTED})

    def add(self, other: Counts) -> None:
        self.documents += other.documents
        self.bytes += other.bytes
        for name in COUNTED:
            self.by[name].update(other.by[name])

    def as_dict(self) -> dict[str, Any]:
        tables = {f"{name}s": dict(sorted(counter.items())) for name, counter in self.by.items()}
        return {"documents": self.documents, "bytes": self.bytes, "groups": self.groups, **tables}


@dataclass(frozen=True)
class GroupTask:
    """A row group of n documents, and the verdicts on them.

    Attributes:
        part: (n,) int8, index in PARTS, or DROPPED.
        changed: (n,) bool, whether the policy redacts something.
        size: (n,) int64, bytes of content.
        names: (n,) bool, whether dropped.ndjson needs the id.
    """

    corpus: Path
    group: int
    settings: ScreenSettings
    part: NDArray[np.int8]
    changed: NDArray[np.bool_]
    size: NDArray[np.int64]
    names: NDArray[np.bool_]


@dataclass(frozen=True)
class Encoded:
    """A row group, encoded.

    Attributes:
        files: index in PARTS -> documents, as `parquet_join.encoded` writes them.
        counts: index in PARTS -> counts of these documents.
        names: redacted ids that dropped.ndjson needs, in order.
    """

    files: dict[int, EncodedGroup]
    counts: dict[int, Counts]
    names: list[bytes]


def encode_split_group(task: GroupTask) -> Encoded:
    """Redact and encode one row group. Runs in a worker."""
    table = _read(task.corpus, task.group, PUBLISHED)
    ids = table.column("id").take(number_column(np.flatnonzero(task.names))).to_pylist()
    table, place = _clean(table, np.flatnonzero(task.changed & (task.part != DROPPED)), task.settings)
    files, counts = {}, {}
    for number in range(len(PARTS)):
        rows = np.flatnonzero(task.part == number)
        if len(rows):
            piece = table.take(number_column(place[rows]))
            files[number] = encoded(piece)
            by = {name: Counter(piece.column(name).to_pylist()) for name in COUNTED}
            counts[number] = Counts(len(rows), int(task.size[rows].sum()), by=by)
    return Encoded(files, counts, [redacted_name(name, task.settings).encode("utf-8") for name in ids])


def _read(corpus: Path, group: int, columns: list[str]) -> pa.Table:
    with opened(corpus) as file:
        table = file.read_row_group(group, columns=columns)
    return table.cast(pa.schema([SCHEMA.field(name) for name in columns]))


def _clean(table: pa.Table, rows: NDArray[np.int64], settings: ScreenSettings) -> tuple[pa.Table, NDArray[np.int64]]:
    """(the table with redacted copies of `rows` appended, (n,) row number of each document's published form)."""
    place = np.arange(table.num_rows)
    if not len(rows):
        return table, place
    place[rows] = table.num_rows + np.arange(len(rows))
    clean = table_of([redacted(document, settings)[0] for document in documents_of(table.take(number_column(rows)))])
    return pa.concat_tables([table, clean]).combine_chunks(), place


def write_splits(
    folder: Path, corpus: Path, result: CorpusSplit, pool: Pool, settings: ScreenSettings, crew: Crew
) -> dict[str, Counts]:
    """Write train.parquet, val.parquet, test.parquet and dropped.ndjson, redacted, in the order of the corpus.

    Returns:
        name of the split -> its counts.
    """
    names = _Names(folder / "names", np.unique(result.kept_by[result.kept_by >= 0]))
    counts = {part: Counts() for part in PARTS}
    with ExitStack() as stack:
        advance = stack.enter_context(crew.watch("split: write", int(pool.size.sum()), "bytes"))
        stack.enter_context(names)
        files = [stack.enter_context(Joiner(folder / f"{part}.parquet", SCHEMA)) for part in PARTS]
        tasks = (
            GroupTask(corpus, group, settings, result.part[rows], pool.changed[rows], pool.size[rows], named)
            for group, rows in _row_groups(corpus)
            for named in [names.needed(rows)]
        )
        for task, done in ordered_map(encode_split_group, tasks, workers=crew.workers, folder=folder):
            for number, data in done.files.items():
                files[number].add(data)
                counts[PARTS[number]].add(done.counts[number])
            names.write(done.names)
            advance(int(task.size.sum()))
        names.seal()
        with atomic_file(folder / "dropped.ndjson") as lines:
            dropped = _dropped_tasks(corpus, result, settings, names)
            lines.writelines(
                data for _, data in ordered_map(dropped_lines, dropped, workers=crew.workers, folder=folder)
            )
    for number, groups in enumerate(_groups(pool.candidates, result.part[pool.passed])):
        counts[PARTS[number]].groups = groups
    return counts


def _groups(candidates: DocumentKeys, part: NDArray[np.int8]) -> list[int]:
    """Number of groups per split."""
    return [len(np.unique(candidates.unit[candidates.grouped & (part == number)])) for number in range(len(PARTS))]


def _row_groups(corpus: Path) -> Iterator[tuple[int, slice]]:
    """Yield the number of each row group, and its rows in the corpus."""
    with opened(corpus) as file:
        rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    start = 0
    for group, count in enumerate(rows):
        yield group, slice(start, start + count)
        start += count


class _Names:
    """Redacted ids of the documents that represent a dropped one. They are in a file, because an id can be long.

    Args:
        rows: (n,) int32, rows of the corpus, ascending. `write` expects their names in this order.
    """

    def __init__(self, path: Path, rows: NDArray[np.int32]) -> None:
        self.path, self.rows = path, rows
        self.edges = np.zeros(len(rows) + 1, dtype=np.int64)  # name i is in the bytes edges[i] to edges[i + 1]
        self._count = 0

    def __enter__(self) -> _Names:
        self._file = self.path.open("wb")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self.path.unlink()

    def needed(self, rows: slice) -> NDArray[np.bool_]:
        result = np.zeros(rows.stop - rows.start, dtype=bool)
        first, last = np.searchsorted(self.rows, (rows.start, rows.stop))
        result[self.rows[first:last] - rows.start] = True
        return result

    def write(self, names: Sequence[bytes]) -> None:
        ends = self.edges[self._count] + np.cumsum([len(name) for name in names], dtype=np.int64)
        self.edges[self._count + 1 : self._count + 1 + len(names)] = ends
        self._count += len(names)
        self._file.writelines(names)

    def seal(self) -> None:
        """Flush the file. Call once after the last `write`."""
        self._file.flush()

    def bytes_of(self, rows: NDArray[np.int32]) -> NDArray[np.int64]:
        """(n, 2) int64: start and end of the names of these rows in the file; an empty range for row -1."""
        place = np.searchsorted(self.rows, rows)
        found = np.stack([self.edges[np.minimum(place, len(self.rows))], self.edges[place + (rows >= 0)]], axis=1)
        return np.where((rows >= 0)[:, None], found, 0)


@dataclass(frozen=True)
class DroppedTask:
    """The m dropped documents of a row group.

    Attributes:
        rows: (m,) int64, row numbers in the row group.
        reasons: m texts.
        file: the file of `_Names`.
        names: (m, 2) int64, start and end in `file` of the id of the document that represents the dropped one.
    """

    corpus: Path
    group: int
    settings: ScreenSettings
    rows: NDArray[np.int64]
    reasons: list[str]
    file: Path
    names: NDArray[np.int64]


def _dropped_tasks(corpus: Path, result: CorpusSplit, settings: ScreenSettings, names: _Names) -> Iterator[DroppedTask]:
    for group, rows in _row_groups(corpus):
        dropped = np.flatnonzero(result.part[rows] == DROPPED)
        if len(dropped):
            reasons = [result.reasons[number] for number in result.reason[rows][dropped].tolist()]
            where = names.bytes_of(result.kept_by[rows][dropped])
            yield DroppedTask(corpus, group, settings, dropped, reasons, names.path, where)


def dropped_lines(task: DroppedTask) -> bytes:
    """Lines of dropped.ndjson: source, path, id, reason, and the id of the document that is kept instead.

    The names are redacted. Runs in a worker.
    """
    table = _read(task.corpus, task.group, ["source", "path", "id"]).take(number_column(task.rows))
    columns = [column.to_pylist() for column in table.columns]
    lines = []
    kept_names = os.open(task.file, os.O_RDONLY)
    try:
        for source, path, id, reason, (start, end) in zip(*columns, task.reasons, task.names.tolist(), strict=True):
            kept = os.pread(kept_names, end - start, start).decode("utf-8")
            names = {"source": source, "path": path, "id": id}
            line = {key: redacted_name(name, task.settings) for key, name in names.items()}
            lines.append(ndjson_line({**line, "reason": reason, "kept": kept}))
    finally:
        os.close(kept_names)
    return b"".join(lines)
