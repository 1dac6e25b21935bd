"""A finding of the text policy: where a value is in a text, and which rule names it.

Used by: scan.py, which makes findings; redact.py, split and safety_audit, which read them.
"""

from __future__ import annotations

from dataclasses import dataclass

from codex_ml.policy.providers import Action, Severity


@dataclass(frozen=True)
class Finding:
    """One value that a rule of the policy matches.

    Attributes:
        rule: id of the rule.
        action: what the policy does with the value.
        severity: how harmful the value is if it leaks.
        line: from 1. Lines end at LF only, as for editors, grep and Python's parser.
        column: from 1, in characters (code points).
        start, end: character offsets of the value; `end` is one after its last character.
    """

    rule: str
    action: Action
    severity: Severity
    line: int
    column: int
    start: int
    end: int
