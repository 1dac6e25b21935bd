"""Screen the corpus, and join the verdicts on all documents. `deal` deals, and `split_writer` writes the result.

Memory holds about 100 bytes per document, and at the peak up to 220: when lines of the ledger are sorted, and when
leakage is counted (measured with a million short documents, without about 60 MiB that the allocator keeps). During
screening, the table of `ShingleSets` is added. Texts are held for one row group at a time.
Used by: stages/split.py.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from codex_ml.core.io import atomic_file
from codex_ml.core.parallel import ordered_map
from codex_ml.core.private_data import keep_private
from codex_ml.documents.document import opened
from codex_ml.policy.key import warning
from codex_ml.split.candidates import DROPPED, KEPT, REASONS, Dealt, DocumentKeys
from codex_ml.split.config import Split
from codex_ml.split.crew import Crew
from codex_ml.split.duplicates.shingle_sets import RowNumbers, ShingleSets, slot_bits
from codex_ml.split.redaction import ScreenSettings
from codex_ml.split.screen import Screened, ScreenTask, screen

log = logging.getLogger("codex_ml")


@dataclass(frozen=True)
class Pool:
    """The screened corpus of n documents, of which p passed.

    Attributes:
        reason: (n,) int8, index in `reasons`; 0 if the document passed.
        reasons: why documents did not pass; reasons[0] is "".
        size: (n,) int64, bytes of content.
        changed: (n,) bool, whether the policy redacts something.
        passed: (p,) int64, rows of the corpus that passed.
        candidates: keys of the documents that passed, for dealing.
        findings: "rule: action" -> number of findings of the policy.
        items: (benchmark, item) of the benchmark items that were found.
        holders: number of documents that hold such items.
        strata: values of the field split.stratify; "" means that the document has no value.
    """

    reason: NDArray[np.int8]
    reasons: list[str]
    size: NDArray[np.int64]
    changed: NDArray[np.bool_]
    passed: RowNumbers
    candidates: DocumentKeys
    findings: Counter[str]
    items: set[tuple[str, str]]
    holders: int
    strata: set[str]


def corpus_bytes(corpus: Path) -> int:
    """Bytes of content of all documents of a corpus."""
    with opened(corpus) as file:
        return sum(int(pc.sum(file.read_row_group(g, columns=["size"])[0]).as_py()) for g in range(file.num_row_groups))


def column_bytes(corpus: Path) -> int:
    """Bytes of all columns of a corpus before they are compressed."""
    with opened(corpus) as file:
        return sum(int(file.metadata.row_group(group).total_byte_size) for group in range(file.num_row_groups))


@contextmanager
def shingle_sets(folder: Path, corpus: Path) -> Iterator[ShingleSets]:
    """Open empty shingle sets in a new folder, which is removed at the end."""
    with ShingleSets(folder, bits=slot_bits(corpus_bytes(corpus))) as sets:
        yield sets
    sets.delete()


def warn_of_policy(options: Split, key: Path, corpus: Path) -> None:
    """Warn when the policy is off, or when the published redaction key is used for the user's own data."""
    if options.policy == "off":
        log.warning("split: WARNING: split.policy is off: secrets and personal data stay in the training text")
    elif note := warning(key, _places(corpus)):
        log.warning("split: WARNING: %s", note)


def _places(corpus: Path) -> Iterator[str]:
    """The place from which each document was read: a path relative to the repository, and a position in that file."""
    with opened(corpus) as file:
        for batch in file.iter_batches(columns=["place"]):
            yield from batch.column(0).to_pylist()


def screen_corpus(corpus: Path, settings: ScreenSettings, sets: ShingleSets, folder: Path, crew: Crew) -> Pool:
    """Screen all row groups, fill `sets`, and write findings.ndjson and overlaps.ndjson to `folder`."""
    keep_private(corpus.parent)
    with opened(corpus) as file:
        tasks = [ScreenTask(corpus, group, settings, sets.bits) for group in range(file.num_row_groups)]
        verdicts = _Verdicts(file.metadata.num_rows)
    with (
        atomic_file(folder / "findings.ndjson") as findings,
        atomic_file(folder / "overlaps.ndjson") as overlaps,
        crew.watch("split: screen", corpus_bytes(corpus), "bytes") as advance,
    ):
        for _, part in ordered_map(screen, tasks, workers=crew.workers, folder=sets.folder):
            sets.add(part.shingles)
            findings.write(part.findings)
            overlaps.write(part.overlaps)
            verdicts.add(part)
            advance(int(part.sizes.sum()))
    sets.seal()
    return verdicts.pool()


class _Verdicts:
    """Collects the results of `screen`. Arrays are allocated once: small ones between large ones fragment memory."""

    def __init__(self, rows: int) -> None:
        self.reason = np.zeros(rows, dtype=np.int8)
        self.size, self.changed = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=bool)
        self.hashes = np.zeros((4, rows), dtype=np.uint64)
        self.grouped, self.stratum = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=np.int32)
        self.reasons: dict[str, int] = {"": 0}
        self.strata: dict[str, int] = {}
        self.findings: Counter[str] = Counter()
        self.items: set[tuple[str, str]] = set()
        self.row = self.passed = self.holders = 0

    def add(self, part: Screened) -> None:
        rows = slice(self.row, self.row + len(part.sizes))
        self.reason[rows] = part.reasons.numbers_in(self.reasons)
        self.size[rows], self.changed[rows] = part.sizes, part.changed
        passed_rows = slice(self.passed, self.passed + len(part.hashes))
        self.hashes[:, passed_rows], self.grouped[passed_rows] = part.hashes.T, part.grouped
        self.stratum[passed_rows] = part.strata.numbers_in(self.strata)
        self.findings.update(part.kinds)
        self.items |= part.items
        self.holders += part.holders
        self.row, self.passed = rows.stop, passed_rows.stop

    def pool(self) -> Pool:
        high, low, place, unit = self.hashes[:, : self.passed]
        return Pool(
            reason=self.reason,
            reasons=list(self.reasons),
            size=self.size,
            changed=self.changed,
            passed=np.flatnonzero(self.reason == 0),
            candidates=DocumentKeys(
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
class CorpusSplit:
    """The verdict on every document of the corpus; all arrays (n,).

    Attributes:
        part: int8, index in PARTS, or DROPPED.
        reason: int8, index in `reasons`; 0 if the document is kept.
        kept_by: int32, row of the document that represents a dropped one, or -1.
        reasons: texts of the reasons.
    """

    part: NDArray[np.int8]
    reason: NDArray[np.int8]
    kept_by: NDArray[np.int32]
    reasons: list[str]

    def dropped(self) -> dict[str, int]:
        """Reason -> number of documents that were dropped for it."""
        counts = np.bincount(self.reason, minlength=len(self.reasons)).tolist()
        return {text: count for text, count in zip(self.reasons, counts, strict=True) if text and count}


def corpus_split(pool: Pool, dealt: Dealt) -> CorpusSplit:
    """Join the results of screening and of dealing, by row of the corpus.

    For example, of three documents the second was blocked in screening, and the third is a copy of the first:
    pool.passed is [0, 2], dealt.part [TRAIN, DROPPED] and dealt.kept_by [-1, 0]. The result has part
    [TRAIN, DROPPED, DROPPED] and kept_by [-1, -1, 0].
    """
    part = np.full(len(pool.size), DROPPED, dtype=np.int8)
    kept_by = np.full(len(pool.size), -1, dtype=np.int32)
    reasons, reason = [*pool.reasons, *REASONS[1:]], pool.reason.copy()
    part[pool.passed] = dealt.part
    reason[pool.passed] = np.where(dealt.reason == KEPT, 0, dealt.reason + len(pool.reasons) - 1)
    has_keeper = dealt.kept_by >= 0
    kept_by[pool.passed[has_keeper]] = pool.passed[dealt.kept_by[has_keeper]]
    return CorpusSplit(part, reason, kept_by, reasons)
