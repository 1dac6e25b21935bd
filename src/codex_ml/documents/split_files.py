"""What `split` says of the splits: their contents, how clean they are, what the text policy found.

Used by: split, which writes it, safety_audit and report.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from codex_ml.core.contract import Contract


class SplitContents(Contract):
    """One split.

    Attributes:
        bytes: of UTF-8, all documents.
        groups: documents that belong to a group.
        licences, languages, sources: documents by value.
        file: name of the Parquet file in data/splits; sha256 and file_bytes are of this file.
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
    """All three splits."""

    train: SplitContents
    val: SplitContents
    test: SplitContents


class PolicyCounts(Contract):
    """What the text policy did; `findings` counts by "rule: action"."""

    state: str
    findings: dict[str, int]
    documents_redacted: int


class BenchmarkCounts(Contract):
    """What was found of the benchmarks in `documents` documents; texts of a few words are not looked for."""

    files: list[str]
    items_found: int
    documents: int
    too_short_to_check: list[str]


class NamedContradiction(Contract):
    """A document for which the ledger gives several answers, and what became of it."""

    source: str
    path: str
    id: str
    contradiction: str
    answers: list[str]
    result: str


class LedgerCounts(Contract):
    """Lines of the ledger, and documents for which it gives several answers, the first of them by name."""

    lines: int
    contradictions: int
    first: list[NamedContradiction]


class Manifest(Contract):
    """reports/split/manifest.json; `documents` and `bytes` are of the corpus, `dropped` counts documents by reason."""

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
        exact_cross, near_cross, group_cross: contents, near pairs and groups in more than one split of the result.
        near_duplicates: documents by the similarity to the one that they were dropped for, rounded down to a tenth;
            "1.0" has the same shingles.
        evicted, quarantined: documents that the ledger or a group pushed out.
        largest_family_share: share of the documents that resemble one kept document.
        random_split_leak: share of the test documents of a row-random split with a copy or near pair in its train part.
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
    """Documents of a split, and 10^6 bytes of their text."""

    documents: int
    megabytes: float


class LeakageMetrics(Contract):
    """The part of `Leakage` that one compares between experiments."""

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
    """One line of data/splits/findings.ndjson: a place that the text policy names, never the value.

    Attributes:
        line, column: from 1; column in characters.
        placeholder: what stands, or would stand, in place of the value.
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
