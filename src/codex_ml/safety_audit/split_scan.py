"""Read the documents of one split once: what the text policy finds in them, and their licences.

Used by: safety_audit.data_side.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.documents.document import FORMS, Document, count_documents, read_documents
from codex_ml.documents.split_files import BenchmarkOverlap
from codex_ml.inference.audit_files import AuditFinding, finding_id
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.evidence import values_in
from codex_ml.safety_audit.finding_list import FindingList
from codex_ml.safety_audit.trace import named_path

HITS = "data.benchmark_hits"
FIELDS = ("source", "path", "id", "group", *FORMS, "meta")  # of a document; the policy cleans each of them


@dataclass
class SplitScan:
    """What stands in the documents of one split.

    Attributes:
        rules: (rule, severity) -> findings.
        holders: (rule, severity) -> documents with such a finding.
        licences: licence -> documents.
        licence_bytes: licence -> bytes of their text.
        findings: of the text policy, and one per benchmark item that a document holds.
        hit_documents: documents that hold a benchmark item.
    """

    documents: int = 0
    rules: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    holders: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    licences: Counter[str] = dataclasses.field(default_factory=Counter)
    licence_bytes: Counter[str] = dataclasses.field(default_factory=Counter)
    findings: FindingList = dataclasses.field(default_factory=FindingList)
    hit_documents: int = 0

    @property
    def total(self) -> int:
        """Number of findings of the text policy, listed or not."""
        return sum(self.rules.values())


def scan_split(job: AuditJob, file: Path, *, number: str, overlaps: Sequence[BenchmarkOverlap] = ()) -> SplitScan:
    """Scan the documents of a Parquet file. Memory does not grow with their number.

    Args:
        number: which number of the audit counts the findings.
        overlaps: benchmark items that documents of the corpus hold.
    """
    found = SplitScan()
    items: dict[tuple[str, str, str], list[BenchmarkOverlap]] = {}
    for overlap in overlaps:
        items.setdefault((overlap.source, overlap.path, overlap.id), []).append(overlap)
    for document in job.track(read_documents(file), f"scan {file.stem}", count_documents(file), "documents"):
        found.documents += 1
        licence = job.clean(document.licence)
        found.licences[licence] += 1
        found.licence_bytes[licence] += len(document.content.encode("utf-8", "surrogatepass"))
        kinds = set()
        for finding in _findings(job, document, number):
            kinds.add((finding.kind, finding.severity))
            found.rules[finding.kind, finding.severity] += 1
            found.findings.add(finding)
        found.holders.update(kinds)
        if held := items.get((document.source, document.path, document.id)):
            found.hit_documents += 1
            for overlap in held:
                found.findings.add(_hit(job, document, overlap))
    return found


def _findings(job: AuditJob, document: Document, number: str) -> Iterator[AuditFinding]:
    place: dict[str, Any] = {}
    for field in FIELDS:
        text = getattr(document, field) or ""
        if not (values := values_in(job, text)):
            continue
        place, name = place or _place(job, document), job.clean(document.id)
        # Part of the id, so that a reviewer who accepts a value does not accept another one in its place. Once per
        # field: a list of addresses has a finding per line.
        content = hashlib.sha256(job.clean(text).encode("utf-8", "surrogatepass")).hexdigest()
        for one in values:
            yield AuditFinding(
                id=finding_id(number, one.rule, *place.values(), name, field, one.line, one.column, content),
                number=number,
                kind=one.rule,
                severity=one.severity,
                **place,
                line=one.line,
                column=one.column,
                evidence=f"in `{field}` of document {name}",
            )


def _place(job: AuditJob, document: Document) -> dict[str, Any]:
    """Source, path and licence of a document, redacted: those of a user's own documents may hold a value too."""
    place = {"source": document.source, "path": named_path(document), "licence": document.licence}
    return {name: job.clean(text) for name, text in place.items()}


def _hit(job: AuditJob, document: Document, overlap: BenchmarkOverlap) -> AuditFinding:
    place, name = _place(job, document), job.clean(document.id)
    return AuditFinding(
        id=finding_id(HITS, overlap.benchmark, *place.values(), name, overlap.item),
        number=HITS,
        kind="benchmark item",
        severity="high",
        **place,
        line=document.content.count("\n", 0, overlap.start) + 1,
        evidence=f"{overlap.benchmark}: {overlap.item}, {overlap.end - overlap.start} characters",
    )


def rule_rows(name: str, scan: SplitScan) -> Iterator[dict[str, Any]]:
    """One row per rule with findings."""
    for (rule, severity), count in sorted(scan.rules.items()):
        head = {"split": name, "rule": rule, "severity": severity}
        yield head | {"findings": count, "documents": scan.holders[rule, severity]}


def licence_rows(scan: SplitScan) -> list[dict[str, Any]]:
    """One row per licence, the one with the most bytes first."""
    total = sum(scan.licence_bytes.values())
    return [
        {
            "licence": licence,
            "documents": scan.licences[licence],
            "bytes": size,
            "share": round(size / total, 6) if total else 0.0,
        }
        for licence, size in sorted(scan.licence_bytes.items(), key=lambda item: (-item[1], item[0]))
    ]
