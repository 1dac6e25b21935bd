"""The findings of a part, at most `MOST_LISTED` of each number, and one more that stands for the rest.

A gate counts the findings that nobody has accepted. If a long list ended without a word, accepting what is listed would
pass the gate. Used by: the parts of safety_audit whose findings have no bound.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from codex_ml.inference.audit_files import AuditFinding, finding_id

MOST_LISTED = 1000  # per number
UNLISTED = "unlisted"


@dataclass
class _Rest:
    """The findings of one number that are not listed: how many, and the digest of their ids."""

    count: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


class FindingList:
    """Findings in the order in which they are added. Memory does not grow with their number."""

    def __init__(self, findings: Iterable[AuditFinding] = ()) -> None:
        self._listed: list[AuditFinding] = []
        self._counts: Counter[str] = Counter()
        self._rests: dict[str, _Rest] = {}
        for finding in findings:
            self.add(finding)

    def add(self, finding: AuditFinding) -> None:
        """Add a finding at the end."""
        self._counts[finding.number] += 1
        if self._counts[finding.number] <= MOST_LISTED:
            self._listed.append(finding)
        else:
            rest = self._rests.setdefault(finding.number, _Rest())
            rest.count += 1
            rest.digest.update(finding.id.encode())

    def all(self) -> list[AuditFinding]:
        """Return the listed findings, and one for each number of which some are left out."""
        return [*self._listed, *(_unlisted(number, rest) for number, rest in self._rests.items())]


def _unlisted(number: str, rest: _Rest) -> AuditFinding:
    """Stands for the findings that are not listed. Its id names them, so others in their place are a new finding."""
    return AuditFinding(
        id=finding_id(number, UNLISTED, rest.count, rest.digest.hexdigest()),
        number=number,
        kind=UNLISTED,
        severity="high",
        source=UNLISTED,
        path="",
        evidence=f"findings of this number that are not listed: {rest.count}",
    )
