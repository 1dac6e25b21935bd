"""Read the sources into spill files: workers read tasks, their results come back in order, bad records are counted.

Used by: the stage `ingest`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codex_ml.core.errors import Reason, UserError, naming
from codex_ml.core.parallel import ordered_map
from codex_ml.core.progress import Advance
from codex_ml.documents.document import Document, Refused, number_column, numbers_of
from codex_ml.documents.ingest_files import IngestDetails
from codex_ml.ingest.config import Ingest, Source
from codex_ml.ingest.corpus import SPILL_BITS, SeenIds, Spills, id_hashes, measured, pieces_of, table_of_pieces
from codex_ml.ingest.readers import names_seen, plan_source
from codex_ml.ingest.readers.tasks import BatchTask, ReadTask


@dataclass
class Tally:
    """Counts of what was read. Reasons are counted by kind: a kind holds no value of a document, and there are few."""

    documents: int = 0
    bytes: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    seen: names_seen.NamesSeen = field(default_factory=names_seen.NamesSeen)  # of the source that is read

    def add(self, cut: SpillPieces) -> None:
        self.documents += cut.documents
        self.bytes += cut.bytes
        self.licences.update(cut.licences)

    def refuse(self, item: Refused) -> None:
        self.refused += 1
        self.reasons[Reason(item.reason).kind] += 1

    def require_documents(self, settings: Ingest) -> None:
        """Check that there is at least one document.

        Raises:
            UserError: when there is none, with the most common reasons.
        """
        if not self.documents:
            paths = ", ".join(source.path for source in settings.sources)
            why = ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common(3))
            raise UserError(
                f"no document in {paths} ({self.refused} refused{': ' + why if why else ''}); check ingest.sources: "
                "kind, path and glob"
            )

    def details(self) -> IngestDetails:
        """The counts as reports/ingest/details.json has them."""
        return IngestDetails(
            documents=self.documents,
            megabytes=round(self.bytes / 1e6, 3),
            refused=self.refused,
            refused_by_reason=dict(sorted(self.reasons.items())),
        )


@dataclass(frozen=True)
class SpillPieces:
    """Documents, cut for the spill files (see `corpus.pieces_of`), and their counts for `Tally`."""

    pieces: dict[int, bytes]
    documents: int
    bytes: int  # of content
    licences: Counter[str]

    @classmethod
    def of(cls, table: pa.Table) -> SpillPieces:
        """Cut and count a table with `corpus.SPILL_SCHEMA`."""
        return cls(
            pieces=pieces_of(table),
            documents=table.num_rows,
            bytes=int(np.sum(numbers_of(table, "size"))),
            licences=Counter(table.column("licence").to_pylist()),
        )


@dataclass(frozen=True)
class ReadTaskResult:
    """The result of a task with n documents.

    Attributes:
        cut: the documents. The parent process handles them as bytes, not as a table.
        ids, keys: (n,) uint64, hashes of id and content, in the order of the file.
        refused: records and files that did not become a document, in the order of the file.
        refused_at: for each of `refused`, the number of documents before it.
        seen: globs and fields of the settings that the task found in the source.
    """

    cut: SpillPieces
    ids: NDArray[np.uint64]
    keys: NDArray[np.uint64]
    refused: list[Refused]
    refused_at: list[int]
    seen: names_seen.NamesSeen

    def table(self) -> pa.Table:
        """The documents in the order of the file, with `corpus.SPILL_SCHEMA`."""
        order = np.argsort(self.keys >> np.uint64(64 - SPILL_BITS), kind="stable")  # the order of `pieces_of`
        return table_of_pieces(self.cut.pieces).take(number_column(np.argsort(order)))


def read_task(task: ReadTask, most_bad: int | None = None) -> ReadTaskResult:
    """Read one task. Runs in a worker.

    Args:
        most_bad: stop reading after more bad records than this, because `read_sources` then ends the run.
    """
    documents: list[Document] = []
    ids: list[str] = []
    refused: list[Refused] = []
    refused_at: list[int] = []
    bad = 0
    for part in task.tasks if isinstance(task, BatchTask) else (task,):
        file = part.file
        with naming(file):
            for item in part.read():
                if isinstance(item, Document):
                    documents.append(item)
                    ids.append(f"{file}\0{item.id}")  # another file of a batch may use the same id
                    continue
                refused.append(item)
                refused_at.append(len(documents))
                bad += item.bad
                if most_bad is not None and bad > most_bad:
                    break
        if most_bad is not None and bad > most_bad:
            break
    table = measured(documents)
    return ReadTaskResult(
        SpillPieces.of(table), id_hashes(ids), numbers_of(table, "key"), refused, refused_at, names_seen.here
    )


def _without_repeated(result: ReadTaskResult, again: NDArray[np.bool_]) -> tuple[SpillPieces, list[Refused]]:
    """Move the documents that `again`, (n,) bool, marks to the refused ones, which stay in the order of the file."""
    table = result.table()
    reason = "this file has the id already, with another text"
    rows = np.flatnonzero(again).tolist()
    refused = [(place, 0, item) for place, item in zip(result.refused_at, result.refused, strict=True)]
    refused += [(row, 1, _refused_row(table.slice(row, 1), reason)) for row in rows]
    refused.sort(key=lambda item: item[:2])
    return SpillPieces.of(table.filter(number_column(~again))), [item for _, _, item in refused]


def read_sources(
    settings: Ingest, spills: Spills, tally: Tally, *, workers: int, advance: Advance
) -> Iterator[dict[str, Any]]:
    """Spill the documents of all sources and yield the refused ones as rows of refused.ndjson.

    Raises:
        UserError: for a bad record of a source with `bad_records: fail`, for too many bad records, and for a glob or a
            field in the settings that nothing in its source has.
    """
    for number, source in enumerate(settings.sources):
        bad, unread = 0, False
        for item in _read_source(source, settings, spills, tally, workers=workers, advance=advance):
            tally.refuse(item)
            bad += item.bad
            unread = unread or (item.bad and item.line is None)
            if item.bad and source.bad_records == "fail":
                raise UserError(
                    f"{_place(item)}: {item.reason}; correct it, or set bad_records: skip for its source in "
                    "ingest.sources"
                )
            if bad > source.max_bad_records:
                raise UserError(
                    f"ingest.sources: {source.path} has more than max_bad_records = {source.max_bad_records} bad "
                    f"records, the last is {_place(item)}: {item.reason}"
                )
            yield item.row
        if not unread:  # a file that could not be read may hold the missing names
            names_seen.refuse_unmatched_names(source, number, tally.seen)


def _place(item: Refused) -> str:
    file = item.place or item.path or item.source
    return file if item.line is None else f"{file}:{item.line}"


def _read_source(
    source: Source,
    settings: Ingest,
    spills: Spills,
    tally: Tally,
    *,
    workers: int,
    advance: Advance,
) -> Iterator[Refused]:
    tally.seen.clear()
    names_seen.here.clear()
    tasks = plan_source(source, max_bytes=settings.max_document_bytes)
    most_bad = 0 if source.bad_records == "fail" else source.max_bad_records
    file, seen = "", SeenIds()
    for task, result in ordered_map(
        partial(read_task, most_bad=most_bad), tasks, workers=workers, folder=spills.folder
    ):
        tally.seen.add(result.seen)
        cut, refused = result.cut, result.refused
        if task.file != file:
            file, seen = task.file, SeenIds()
        again = seen.repeated(result.ids, result.keys)
        if again.any():
            cut, refused = _without_repeated(result, again)
        yield from refused
        spills.add(cut.pieces)
        tally.add(cut)
        advance(task.bytes)
    tally.seen.add(names_seen.here)


def _refused_row(row: pa.Table, reason: str) -> Refused:
    values = {name: row.column(name)[0].as_py() for name in ("source", "path", "place")}
    place, _, line = values["place"].rpartition(":")
    number = int(line) if line.isdigit() else None
    return Refused(
        values["source"], values["path"] or (place if number is not None else values["place"]), number, reason
    )
