"""The data that the model was trained on: what the text policy still finds in it, and that the scan can find.

Used by: safety_audit.battery.
"""

from __future__ import annotations

from collections.abc import Iterator

from codex_ml.documents.document import FORMS, Document, count_documents, read_documents
from codex_ml.inference.audit_files import AuditFinding, AuditNumber, AuditPart, Control, finding_id
from codex_ml.safety_audit.audit_job import AuditJob, PartResult, skipped
from codex_ml.safety_audit.planted import can_be_planted, planted_recall

NAME, TITLE = "data", "Training data"


def data_side(job: AuditJob) -> PartResult:
    """Scan the training documents, and planted secrets as the control."""
    if job.data.train is None:
        return skipped(NAME, TITLE, "the training documents are not known")
    documents = job.track(read_documents(job.data.train), "scan train", count_documents(job.data.train), "documents")
    findings = [finding for document in documents for finding in _findings(job, document)]
    numbers = {
        "secrets": AuditNumber(
            value=float(len(findings)), trials=count_documents(job.data.train), unit="count", control="planted secrets"
        )
    }
    if job.data.split:
        numbers["policy_applied"] = AuditNumber(value=float(job.data.split.policy == "enforce"), trials=1, unit="count")
    controls = []
    if can_be_planted(job.scanner):
        recall = planted_recall(job.scanner, seed=job.seed)
        numbers["planted_recall"] = AuditNumber(value=recall, trials=1, unit="share")
        controls.append(
            Control(
                name="planted secrets",
                passed=recall == 1,
                found=f"{recall:.3f} of them",
                expected="all",
                voids=["data.secrets"],
            )
        )
    return PartResult(NAME, AuditPart(title=TITLE, numbers=numbers, controls=controls), findings)


def _findings(job: AuditJob, document: Document) -> Iterator[AuditFinding]:
    for form in FORMS:
        for finding in job.scanner.scan(getattr(document, form) or ""):
            if finding.action != "allow":
                place = (document.source, document.path, document.id, form, finding.line, finding.column)
                yield AuditFinding(
                    id=finding_id("data.secrets", finding.rule, *place),
                    number="data.secrets",
                    kind=finding.rule,
                    severity=finding.severity,
                    source=document.source,
                    path=document.path,
                    line=finding.line,
                    column=finding.column,
                    licence=document.licence,
                )
