"""Screen each document by itself: licence, quality, policy, benchmarks. No two documents are compared here.

Worker processes screen row groups of the corpus. They return hashes of the documents that pass, never text. When the
splits are written, `redaction.redacted` applies the policy again to the few documents that need it.
Used by: split.splits, split.split_writer.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.strict_json import ndjson_line
from codex_ml.documents.document import (
    FORMS,
    Document,
    canonical,
    documents_of,
    numbers_of,
    opened,
)
from codex_ml.documents.licences import is_allowed
from codex_ml.documents.signals import SIGNALS, Signals
from codex_ml.documents.split_files import BenchmarkOverlap, PolicyFinding
from codex_ml.split.benchmarks import read_benchmarks
from codex_ml.split.config import Benchmark, Split
from codex_ml.split.decontaminate import Benchmarks
from codex_ml.split.duplicates.shingle_sets import Block, block_of
from codex_ml.split.duplicates.shingles import shingles_of
from codex_ml.split.quality import drop_reason
from codex_ml.split.redaction import ScreenSettings, redacted, redacted_name
from codex_ml.split.shares import position


@dataclass(frozen=True)
class ScreenTask:
    """A row group of the corpus to screen; `bits` as in `ShingleSets`."""

    corpus: Path
    group: int
    settings: ScreenSettings
    bits: int


@dataclass(frozen=True)
class TextColumn:
    """A column with few distinct texts: the texts, and (n,) int32, for each of n documents the index of its text."""

    texts: list[str]
    numbers: NDArray[np.int32]

    @classmethod
    def of(cls, column: Sequence[str]) -> TextColumn:
        numbers: dict[str, int] = {}
        found = np.fromiter((numbers.setdefault(text, len(numbers)) for text in column), np.int32, len(column))
        return cls(list(numbers), found)

    def numbers_in(self, table: dict[str, int]) -> NDArray[np.int32]:
        """(n,) int32: number of each document's text in `table`. Missing texts are added to `table`."""
        return np.array([table.setdefault(text, len(table)) for text in self.texts], dtype=np.int32)[self.numbers]


@dataclass(frozen=True)
class Screened:
    """A screened row group of n documents, of which p passed.

    Attributes:
        reasons: of the n documents; "" if the document passed.
        sizes: (n,) int64, bytes of content.
        changed: (n,) bool, whether the policy redacts something.
        hashes: (p, 4) uint64: high, low, place and unit of `candidates.DocumentKeys`.
        grouped: (p,) bool, whether the document has a group.
        strata: of the p documents.
        shingles: argument for `ShingleSets.add`.
        findings, overlaps: lines of findings.ndjson and overlaps.ndjson, in the order of their documents.
        kinds: "rule: action" -> number of findings.
        items: (benchmark, item) of the overlaps.
        holders: number of documents with an overlap.
    """

    reasons: TextColumn
    sizes: NDArray[np.int64]
    changed: NDArray[np.bool_]
    hashes: NDArray[np.uint64]
    grouped: NDArray[np.bool_]
    strata: TextColumn
    shingles: Block
    findings: bytes
    overlaps: bytes
    kinds: Counter[str]
    items: set[tuple[str, str]]
    holders: int


def screen(task: ScreenTask) -> Screened:
    """Screen one row group. Runs in a worker."""
    settings, params = task.settings, task.settings.params
    with opened(task.corpus) as file:
        table = file.read_row_group(task.group)
    sizes = numbers_of(table, "size").astype(np.int64)
    reasons, changed, passed = [], np.zeros(len(sizes), dtype=bool), []
    findings: list[PolicyFinding] = []
    overlaps: list[BenchmarkOverlap] = []
    holders = 0
    benchmarks = _benchmarks(params.benchmarks, settings.fingerprint)
    for row, (document, found_signals) in enumerate(zip(documents_of(table), _signals_of(table), strict=True)):
        reason = _licence_reason(document, params) or drop_reason(found_signals, params.quality, document.language)
        if not reason:
            document, found = redacted(document, settings)
            identity: dict[str, Any] = {"source": document.source, "path": document.path, "id": document.id}
            findings += [PolicyFinding(**identity, **vars(f)) for f in found]
            blocked = any(f.action == "block" for f in found)
            changed[row] = any(f.action == "redact" for f in found) or (blocked and params.policy == "off")
            reason = "blocked by policy" if blocked and params.policy != "off" else ""
        if not reason and benchmarks is not None:
            hits = benchmarks.find(document.content)
            shown = (vars(hit) | {"item": redacted_name(hit.item, settings)} for hit in hits)
            overlaps += [BenchmarkOverlap(**identity, **hit) for hit in shown]
            holders += bool(hits)
            reason = "holds a benchmark item" if hits and params.contaminated == "drop" else ""
        reasons.append(reason)
        if not reason:
            passed.append(document)
    hashes = [hashes_of(document, params.salt) for document in passed]
    return Screened(
        reasons=TextColumn.of(reasons),
        sizes=sizes,
        changed=changed,
        hashes=np.array(hashes, dtype=np.uint64).reshape(-1, 4),
        grouped=np.array([bool(document.group) for document in passed], dtype=bool),
        strata=TextColumn.of([_stratum(document, params.stratify) for document in passed]),
        shingles=block_of(shingles_of([document.content for document in passed]), task.bits),
        findings=b"".join(ndjson_line(finding.as_json()) for finding in findings),
        overlaps=b"".join(ndjson_line(overlap.as_json()) for overlap in overlaps),
        kinds=Counter(f"{finding.rule}: {finding.action}" for finding in findings),
        items={(overlap.benchmark, overlap.item) for overlap in overlaps},
        holders=holders,
    )


@lru_cache(maxsize=2)
def _benchmarks(files: tuple[Benchmark, ...], fingerprint: str) -> Benchmarks | None:
    return read_benchmarks(files) if files else None


def _signals_of(table: Any) -> Iterator[Signals]:
    columns = [table.column(name).to_pylist() for name in SIGNALS]
    return (Signals(*row) for row in zip(*columns, strict=True))


def _licence_reason(document: Document, params: Split) -> str:
    allowed = is_allowed(document.licence, _allow_list(params.licences))
    if allowed is None:
        return "" if params.unknown_licence == "keep" else "licence unknown"
    return "" if allowed else "licence not allowed"


@lru_cache(maxsize=2)
def _allow_list(licences: tuple[str, ...]) -> frozenset[str]:
    return frozenset(licences)


def hashes_of(document: Document, salt: str) -> tuple[int, int, int, int]:
    """(high, low, place, unit) of a redacted document, as in `candidates.DocumentKeys`."""
    content = hashlib.sha256(content_bytes(document)).digest()
    place = hashlib.blake2b(
        "\0".join((document.source, document.path, document.id)).encode("utf-8", "surrogatepass"), digest_size=8
    )
    unit = b"group\0" + document.group.encode("utf-8") if document.group else b"content\0" + content[:16]
    return (
        int.from_bytes(content[:8], "big"),
        int.from_bytes(content[8:16], "big"),
        int.from_bytes(place.digest(), "big"),
        position(unit, salt),
    )


def content_bytes(document: Document) -> bytes:
    """The bytes that two exact copies share: the content without licence, source and metadata."""
    if document.text is not None:
        return canonical(document.text).encode("utf-8")
    forms = [getattr(document, name) for name in FORMS]
    return json.dumps(forms, ensure_ascii=False).encode("utf-8")


def _stratum(document: Document, field: str) -> str:
    if not field:
        return ""
    if field in ("language", "licence", "source", "group"):
        return str(getattr(document, field))
    value = json.loads(document.meta).get(field) if document.meta else None
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, sort_keys=True)
