"""What the policy finds in a text: written by the scanner, read by the redaction, `split` and `safety_audit`."""

from __future__ import annotations

from dataclasses import dataclass

from codex_ml.policy.providers import Action, Severity


@dataclass(frozen=True)
class Finding:
    """One place that the policy names.

    Attributes:
        rule: id of the rule.
        action: what the policy does with it.
        severity: how bad it is.
        line: from 1; lines end at LF only, as editors, grep and Python's parser count.
        column: from 1, in characters (code points).
        start, end: character offsets of the value.
    """

    rule: str
    action: Action
    severity: Severity
    line: int
    column: int
    start: int
    end: int
