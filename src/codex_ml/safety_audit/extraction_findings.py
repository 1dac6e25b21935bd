"""Findings about windows of train text: which document each extracted window comes from.

Used by: the parts memorisation and near_verbatim of safety_audit.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

from codex_ml.inference.audit_files import AuditFinding, finding_id
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.audit_windows import AuditWindow
from codex_ml.safety_audit.extraction_tables import Side
from codex_ml.safety_audit.finding_list import FindingList
from codex_ml.safety_audit.trace import TextPlace, trace

EXTRACTED, SAMPLED = "extracted", "extractable"


def extraction_findings(job: AuditJob, inside: Side, *, tries: int) -> list[AuditFinding]:
    """List the windows of train text that the model gives away, sorted by place; see `FindingList`.

    Args:
        tries: samples within which a window counts as extractable by sampling.
    """
    once, repeated = (list(inside.pairs(kind)) for kind in ("windows", "repeated"))
    sampled = [window for window, suffix in once if suffix.tries <= tries and not suffix.extracted]
    leaks = {
        ("extracted", EXTRACTED, "high"): [window for window, suffix in once if suffix.extracted],
        ("extracted_repeated", EXTRACTED, "medium"): [window for window, suffix in repeated if suffix.extracted],
        (f"extracted_in_{tries}_tries", SAMPLED, "medium"): sampled,
    }
    listed = [(*head, window) for head, windows in leaks.items() for window in windows]
    places = trace(job, [window.start for *_, window in listed])
    findings = [
        window_finding(window, place, number=f"memorisation.{name}", kind=kind, severity=severity)
        for (name, kind, severity, window), place in zip(listed, places, strict=True)
    ]
    return by_place(findings)


def by_place(findings: Iterable[AuditFinding]) -> list[AuditFinding]:
    """The findings sorted by their place in the train text, as a list that may leave some out."""
    key = attrgetter("source", "path", "line", "column", "id")
    return FindingList(sorted(findings, key=key)).all()


def window_finding(window: AuditWindow, place: TextPlace, *, number: str, kind: str, severity: str) -> AuditFinding:
    """The finding that a window of train text is given away.

    Args:
        place: where it stands, from `trace`.
    """
    at = (place.line, place.column) if place.line else (0, window.start)
    return AuditFinding(
        id=finding_id(number, kind, place.source, place.path, *at, place.content),
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
