"""Findings about windows of train text: which document each extracted window comes from.

Used by: the parts memorisation and near_verbatim of safety_audit.
"""

from __future__ import annotations

from codex_ml.inference.audit_files import AuditFinding, finding_id
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.audit_windows import AuditWindow
from codex_ml.safety_audit.extraction_tables import Side
from codex_ml.safety_audit.trace import TextPlace, trace

MOST_FINDINGS = 100  # per number
EXTRACTED, SAMPLED = "extracted", "extractable"


def extraction_findings(job: AuditJob, inside: Side, *, tries: int) -> tuple[list[AuditFinding], list[str]]:
    """List the windows of train text that the model gives away, up to `MOST_FINDINGS` per number.

    Args:
        tries: samples within which a window counts as extractable by sampling.

    Returns:
        (findings sorted by place, one sentence per number that has more)
    """
    once, repeated = (list(inside.pairs(kind)) for kind in ("windows", "repeated"))
    sampled = [window for window, suffix in once if suffix.tries <= tries and not suffix.extracted]
    leaks = {
        ("extracted", EXTRACTED, "high"): [window for window, suffix in once if suffix.extracted],
        ("extracted_repeated", EXTRACTED, "medium"): [window for window, suffix in repeated if suffix.extracted],
        (f"extracted_in_{tries}_tries", SAMPLED, "medium"): sampled,
    }
    listed = [(*head, window) for head, windows in leaks.items() for window in windows[:MOST_FINDINGS]]
    places = trace(job, [window.start for *_, window in listed])
    findings = [
        window_finding(job, window, place, number=f"memorisation.{name}", kind=kind, severity=severity)
        for (name, kind, severity, window), place in zip(listed, places, strict=True)
    ]
    unlisted = [
        f"{MOST_FINDINGS} of {len(windows)} findings of memorisation.{name} are listed."
        for (name, *_), windows in leaks.items()
        if len(windows) > MOST_FINDINGS
    ]
    return sorted(findings, key=lambda finding: (finding.source, finding.path, finding.line, finding.id)), unlisted


def window_finding(
    job: AuditJob, window: AuditWindow, place: TextPlace, *, number: str, kind: str, severity: str
) -> AuditFinding:
    """The finding that a window of train text is given away.

    Args:
        place: where it stands, from `trace`.
    """
    text = job.subject.tokenizer.decode(window.window.tokens)
    at = (place.line, place.column) if place.line else (0, window.start)
    return AuditFinding(
        id=finding_id(number, kind, place.source, place.path, *at, text),
        number=number,
        kind=kind,
        severity=severity,
        source=place.source,
        path=place.path,
        line=place.line,
        column=place.column,
        licence=place.licence,
        evidence=place.evidence,
        trace=place.command,
    )
