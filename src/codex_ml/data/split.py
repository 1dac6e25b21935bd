"""From the corpus to the splits: screen every document, deal what passed, write the result.

Memory holds some 60 bytes a document; texts are held a row group at a time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from codex_ml.data.deal import DROPPED, PARTS, Candidates, Dealt
from codex_ml.data.dedup import Rows, Sketches
from codex_ml.data.documents import PUBLISHED, SCHEMA, documents_of, opened, parquet_writer, table_of
from codex_ml.data.screen import Screened, Settings, Task, redacted, redacted_name, screen
from codex_ml.io import atomic_file, ndjson_line
from codex_ml.parallel import ordered_map
from codex_ml.progress import Advance


@dataclass(frozen=True)
class Pool:
    """The screened corpus of n documents, of which p passed.

    Attributes:
        reason: (n,) object, "" for those that passed.
        size: (n,) int64, bytes of content.
        changed: (n,) bool, whether the policy redacts something in it.
        passed: (p,) int64, rows of the corpus.
        candidates: what dealing needs to know of those that passed.
        findings: of the policy, counted by "rule: action".
        items: (benchmark, item) of what was found of benchmarks.
        holders: how many documents hold such items.
        strata: values of the field of split.stratify; "" stands for none.
    """

    reason: NDArray[np.object_]
    size: NDArray[np.int64]
    changed: NDArray[np.bool_]
    passed: Rows
    candidates: Candidates
    findings: Counter[str]
    items: set[tuple[str, str]]
    holders: int
    strata: set[str]


def size_of(corpus: Path) -> int:
    """Bytes of content of a corpus."""
    with opened(corpus) as file:
        return sum(int(pc.sum(file.read_row_group(g, columns=["size"])[0]).as_py()) for g in range(file.num_row_groups))


def screen_corpus(
    corpus: Path, settings: Settings, sketches: Sketches, folder: Path, *, workers: int, advance: Advance
) -> Pool:
    """Screen all row groups, fill `sketches`, and write findings.ndjson and overlaps.ndjson.

    Args:
        folder: for the two files.
        advance: is told the bytes.
    """
    with opened(corpus) as file:
        tasks = [Task(corpus, group, settings) for group in range(file.num_row_groups)]
        verdicts = _Verdicts(file.metadata.num_rows)
    with (
        atomic_file(folder / "findings.ndjson") as findings,
        atomic_file(folder / "overlaps.ndjson") as overlaps,
    ):
        for _, part in ordered_map(screen, tasks, workers=workers, folder=sketches.folder):
            sketches.add(part.lengths, part.shingles, part.keys)
            findings.writelines(map(ndjson_line, part.findings))
            overlaps.writelines(map(ndjson_line, part.overlaps))
            verdicts.add(part)
            advance(int(part.sizes.sum()))
    sketches.seal()
    return verdicts.pool()


class _Verdicts:
    """What `screen` says of all documents. Arrays are made once: small ones between large ones fragment the memory."""

    def __init__(self, rows: int) -> None:
        self.reason = np.full(rows, "", dtype=object)
        self.size, self.changed = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=bool)
        self.hashes = np.zeros((4, rows), dtype=np.uint64)
        self.grouped, self.stratum = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=np.int32)
        self.strata: dict[str, int] = {}
        self.findings: Counter[str] = Counter()
        self.items: set[tuple[str, str]] = set()
        self.row = self.passed = self.holders = 0

    def add(self, part: Screened) -> None:
        here = slice(self.row, self.row + len(part.sizes))
        self.reason[here] = [intern(reason) for reason in part.reasons]  # a few texts, not a few a part
        self.size[here], self.changed[here] = part.sizes, part.changed
        there = slice(self.passed, self.passed + len(part.hashes))
        self.hashes[:, there], self.grouped[there] = part.hashes.T, part.grouped
        self.stratum[there] = [self.strata.setdefault(stratum, len(self.strata)) for stratum in part.strata]
        self.findings.update(f"{finding['rule']}: {finding['action']}" for finding in part.findings)
        self.items.update((overlap["benchmark"], overlap["item"]) for overlap in part.overlaps)
        self.holders += part.holders
        self.row, self.passed = here.stop, there.stop

    def pool(self) -> Pool:
        high, low, place, unit = self.hashes[:, : self.passed]
        return Pool(
            reason=self.reason,
            size=self.size,
            changed=self.changed,
            passed=np.flatnonzero(self.reason == ""),
            candidates=Candidates(
                high=high,
                low=low,
                place=place,
                unit=unit,
                grouped=self.grouped[: self.passed],
                stratum=self.stratum[: self.passed],
            ),
            findings=self.findings,
            items=self.items,
            holders=self.holders,
            strata=set(self.strata),
        )


@dataclass
class Outcome:
    """Where every document of the corpus went; all arrays (n,).

    Attributes:
        part: int8, index in PARTS, or DROPPED.
        reason: object, why it was dropped.
        kept_by: int64, the row that stands for it, or -1.
    """

    part: NDArray[np.int8]
    reason: NDArray[np.object_]
    kept_by: Rows


def outcome(pool: Pool, dealt: Dealt) -> Outcome:
    """The verdicts on the candidates, in terms of rows of the corpus."""
    part = np.full(len(pool.size), DROPPED, dtype=np.int8)
    kept_by = np.full(len(pool.size), -1, dtype=np.int64)
    reason = pool.reason.copy()
    part[pool.passed], reason[pool.passed] = dealt.part, dealt.reason
    has_keeper = dealt.kept_by >= 0
    kept_by[pool.passed[has_keeper]] = pool.passed[dealt.kept_by[has_keeper]]
    return Outcome(part, reason, kept_by)


def _hash_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")


class Counts:
    """What a split consists of, for the manifest."""

    def __init__(self) -> None:
        self.documents = self.bytes = 0
        self.by: dict[str, Counter[str]] = {name: Counter() for name in ("licence", "language", "source")}
        self.groups: set[int] = set()

    def add(self, table: pa.Table, sizes: NDArray[np.int64]) -> None:
        self.documents += table.num_rows
        self.bytes += int(sizes.sum())
        for name, counter in self.by.items():
            counter.update(table.column(name).to_pylist())
        self.groups.update(_hash_of(group) for group in set(table.column("group").to_pylist()) if group)

    def as_dict(self) -> dict[str, Any]:
        tables = {f"{name}s": dict(sorted(counter.items())) for name, counter in self.by.items()}
        return {"documents": self.documents, "bytes": self.bytes, "groups": len(self.groups), **tables}


def write_splits(
    folder: Path, corpus: Path, result: Outcome, pool: Pool, settings: Settings, *, advance: Advance
) -> dict[str, Counts]:
    """Write train.parquet, val.parquet and test.parquet, redacted, in the order of the corpus."""
    writers = {part: parquet_writer(folder / f"{part}.parquet", SCHEMA) for part in PARTS}
    counts = {part: Counts() for part in PARTS}
    try:
        for start, table in _row_groups(corpus, PUBLISHED):
            rows = np.arange(start, start + table.num_rows)
            table = _clean(table, pool.changed[rows], result.part[rows], settings)
            for number, part in enumerate(PARTS):
                chosen = np.flatnonzero(result.part[rows] == number)
                if len(chosen):
                    piece = table.take(chosen)
                    writers[part].write_table(piece)
                    counts[part].add(piece, pool.size[rows[chosen]])
            advance(int(pool.size[rows].sum()))
    finally:
        for writer in writers.values():
            writer.close()
    return counts


def _row_groups(corpus: Path, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    start = 0
    with opened(corpus) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns)
            yield start, table.cast(pa.schema([SCHEMA.field(name) for name in columns]))
            start += table.num_rows


def _clean(table: pa.Table, changed: NDArray[np.bool_], part: NDArray[np.int8], settings: Settings) -> pa.Table:
    if not (changed & (part != DROPPED)).any():
        return table
    documents = list(documents_of(table))
    for row in np.flatnonzero(changed & (part != DROPPED)).tolist():
        documents[row] = redacted(documents[row], settings)[0]
    return table_of(documents)


def dropped_rows(corpus: Path, result: Outcome, settings: Settings) -> Iterator[dict[str, str]]:
    """What was left out: source, path, id, reason, and the id of the document that stands for it; ids redacted."""
    wanted = set(np.unique(result.kept_by[result.kept_by >= 0]).tolist())
    names = {row: redacted_name(name, settings) for row, name in _places(corpus, wanted)}
    for start, table in _row_groups(corpus, ["source", "path", "id"]):
        for offset, (source, path, name) in enumerate(zip(*(c.to_pylist() for c in table.columns), strict=True)):
            row = start + offset
            if result.part[row] == DROPPED:
                keeper = names.get(int(result.kept_by[row]), "")
                name = redacted_name(name, settings)
                yield {"source": source, "path": path, "id": name, "reason": result.reason[row], "kept": keeper}


def _places(corpus: Path, wanted: set[int]) -> Iterator[tuple[int, str]]:
    for start, table in _row_groups(corpus, ["id"]):
        for offset, name in enumerate(table.column("id").to_pylist()):
            if start + offset in wanted:
                yield start + offset, name
