"""A finding of the text policy: where a value is in a text, and which rule names it.

Used by: scan.py and filters.py, which make findings; redact.py, split and safety_audit, which read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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


def locate(text: str, spans: Iterable[tuple[int, int, str, Action, Severity]]) -> Iterator[Finding]:
    """Yield the findings of spans (start, end, rule, action, severity) that are in order of their starts.

    Each character is read once: a line may be 50 MiB long and hold a million findings.
    """
    line, line_start, last = 1, 0, 0
    for start, end, rule, action, severity in spans:
        line += text.count("\n", last, start)
        line_start = max(line_start, text.rfind("\n", last, start) + 1)
        last = start
        yield Finding(rule, action, severity, line, start - line_start + 1, start, end)
