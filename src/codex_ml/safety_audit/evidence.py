"""The short texts that findings show. What surrounds them is read too: a text may begin or end inside a secret.

Used by: the parts of safety_audit.
"""

from __future__ import annotations

from collections.abc import Iterable

from codex_ml.policy.finding import Finding
from codex_ml.safety_audit.audit_job import AuditJob

EVIDENCE = 80  # characters


def values_in(job: AuditJob, text: str) -> list[Finding]:
    """What the policy does not allow in a text, in order."""
    return [finding for finding in job.scanner.scan(text) if finding.action != "allow"]


def shown_from(job: AuditJob, text: str, at: int, values: Iterable[Finding]) -> str:
    """Return the first characters from an offset on, redacted.

    Args:
        text: a whole document.
        values: of `values_in`.
    """
    end = at + 2 * EVIDENCE  # what crosses the cut is redacted as a whole
    return _shown(job, text, (at, end), [(value.start, value.end, value.rule) for value in values])


def shown_without(job: AuditJob, text: str, values: Iterable[tuple[int, int, str]]) -> str:
    """Return the first characters of a text, without what is a part of a value around it.

    Args:
        values: (start, end, rule) of the values in the texts that hold this one, as offsets from its begin.
    """
    return _shown(job, text, (0, len(text)), sorted(values))


def _shown(job: AuditJob, text: str, window: tuple[int, int], values: Iterable[tuple[int, int, str]]) -> str:
    """A window of a text with a mark for each value that it touches; values are sorted and may overlap."""
    (at, end), parts = window, []
    for start, stop, rule in values:
        if at < stop and start < end:
            parts += [text[at : max(at, start)], f"<{rule}>"]
            at = stop
    return job.clean("".join([*parts, text[at:end]]))[:EVIDENCE]
