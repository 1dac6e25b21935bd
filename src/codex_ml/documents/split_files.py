"""The typed definitions of the files in which `split` describes the splits: contents, leakage, findings of the policy.

Used by: split, which writes them, safety_audit and report.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from codex_ml.core.contract import Contract


class SplitContents(Contract):
    """The contents of one split.

    Attributes:
        bytes: of all documents, in UTF-8.
        groups: number of groups.
        licences, languages, sources: number of documents by value.
        file: name of the Parquet file in data/splits; sha256 and file_bytes belong to this file.
    """

    documents: int
    bytes: int
    groups: int
    licences: dict[str, int]
    languages: dict[str, int]
    sources: dict[str, int]
    file: str
    sha256: str
    file_bytes: int


class SplitParts(Contract):
    """The contents of all three splits."""

    train: SplitContents
    val: SplitContents
    test: SplitContents


class PolicyCounts(Contract):
    """What the text policy did; `findings` maps "rule: action" to a number of findings."""

    state: str
    findings: dict[str, int]
    documents_redacted: int


class BenchmarkCounts(Contract):
    """Benchmark items that occur in the corpus.

    Attributes:
        files: the benchmarks, as params.yaml names them.
        items_found: number of items that occur in at least one document.
        documents: number of documents that hold such an item.
        too_short_to_check: texts with too few words to search for, as "BENCHMARK: ITEM (FIELD, n words)", and items
            without text.
    """

    files: list[str]
    items_found: int
    documents: int
    too_short_to_check: list[str]


class NamedContradiction(Contract):
    """A document for which the entries of the ledger name several splits, and what `split` did with it.

    Attributes:
        contradiction: why the entries contradict each other.
        answers: the splits that they name.
        result: the split of the document, or the reason why it is in none.
    """

    source: str
    path: str
    id: str
    contradiction: str
    answers: list[str]
    result: str


class LedgerCounts(Contract):
    """Number of lines of the ledger, number of contradictory documents, and the first of these by name."""

    lines: int
    contradictions: int
    first: list[NamedContradiction]


class Manifest(Contract):
    """reports/split/manifest.json. `documents` and `bytes` count the corpus; `dropped` counts documents by reason."""

    written_by = "split"

    format: Literal["codex-ml/manifest/1"] = Field(alias="schema")
    splits: SplitParts
    documents: int
    bytes: int
    dropped: dict[str, int]
    policy: PolicyCounts
    benchmarks: BenchmarkCounts
    ledger: LedgerCounts


class Leakage(Contract):
    """reports/split/leakage.json.

    Attributes:
        exact_cross, near_cross, group_cross: number of contents, near-duplicate pairs and groups that are in more than
            one of the splits.
        near_duplicates: dropped documents by their similarity to the document that was kept, rounded down to a tenth;
            "1.0" means the same shingles.
        evicted: documents dropped as a near-duplicate of a document in a cleaner split (test, then val, then train).
        quarantined: documents in no split, because the ledger, their group or a near-duplicate name different splits.
        largest_family_share: share of all documents that the largest family has: one kept document and those dropped
            for it.
        random_split_leak: after a random split by rows, the share of its test documents that have a copy or a
            near-duplicate in its train part.
    """

    written_by = "split"

    exact_cross: int
    group_cross: int
    near_cross: int
    near_duplicates: dict[str, int]
    evicted: int
    quarantined: int
    largest_family_share: float
    random_split_leak: float


class SplitSize(Contract):
    """Number of documents of a split, and the size of their text in 10^6 bytes."""

    documents: int
    megabytes: float


class LeakageMetrics(Contract):
    """The numbers of `Leakage` to compare between experiments."""

    near_cross: int
    evicted: int
    quarantined: int
    random_split_leak: float


class SplitMetrics(Contract):
    """reports/split/metrics.json; `policy` is "enforce" or "off"."""

    written_by = "split"

    train: SplitSize
    val: SplitSize
    test: SplitSize
    dropped: int
    leakage: LeakageMetrics
    policy: str
    redacted: int


class PolicyFinding(Contract):
    """One line of data/splits/findings.ndjson: where the text policy found a value, never the value itself.

    Attributes:
        line, column: from 1; column in characters.
        placeholder: what replaces the value, or would replace it if the action were `redact`.
    """

    written_by = "split"

    source: str
    path: str
    id: str
    rule: str
    action: str
    severity: str
    line: int
    column: int
    placeholder: str


class BenchmarkOverlap(Contract):
    """One line of data/splits/overlaps.ndjson: a document of the corpus that holds part of a benchmark item.

    Attributes:
        start, end: the longest span of the document's content that holds it, in characters.
    """

    written_by = "split"

    source: str
    path: str
    id: str
    benchmark: str
    item: str
    start: int
    end: int
