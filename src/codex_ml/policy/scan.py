"""Find secrets in text. A finding says where and what kind, never the value."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass

from codex_ml.policy.rules import RULES, Rule

EXAMPLE = "EXAMPLE"  # stands in the keys of vendors' own documentation


@dataclass(frozen=True)
class Finding:
    """One secret.

    Attributes:
        rule: id of the rule.
        severity: "block" or "warn".
        line: from 1; lines end at LF only, as editors and grep count.
        column: from 1, in characters.
        start, end: character offsets of the value.
    """

    rule: str
    severity: str
    line: int
    column: int
    start: int
    end: int


def scan_text(text: str) -> list[Finding]:
    """All findings in order of their place; of overlapping ones the longest, then the earlier rule."""
    found: list[tuple[int, int, Rule]] = []
    for rule in RULES:
        if any(literal in text for literal in rule.literals):
            for match in rule.pattern.finditer(text):
                if EXAMPLE not in match.group(1) and entropy(match.group(1)) >= rule.entropy:
                    found.append((*match.span(1), rule))
    found.sort(key=lambda item: (item[0] - item[1], RULES.index(item[2])))  # longest first
    chosen: list[tuple[int, int, Rule]] = []
    for start, end, rule in found:
        if all(end <= other_start or start >= other_end for other_start, other_end, _ in chosen):
            chosen.append((start, end, rule))
    return [_finding(text, *item) for item in sorted(chosen, key=lambda item: item[0])]


def _finding(text: str, start: int, end: int, rule: Rule) -> Finding:
    line = text.count("\n", 0, start) + 1
    column = start - (text.rfind("\n", 0, start) + 1) + 1
    return Finding(rule.id, rule.severity, line, column, start, end)


def entropy(value: str) -> float:
    """Shannon entropy of the characters, in bits a character; 0 for an empty text."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


def planted_recall(*, seed: int, instances: int = 20) -> float:
    """The scan's control: the share it finds of generated secrets, `instances` of each rule, inside plain code."""
    dice = random.Random(seed)  # noqa: S311 - test material, not keys
    hits = total = 0
    for rule in RULES:
        for number in range(instances):
            secret = rule.example(dice)
            text = f"def handler_{number}():\n    # ünï\u2028code \U0001f600\n    value = {secret}\n    return 1\n"
            total += 1
            hits += any(finding.line >= 3 for finding in scan_text(text))
    return hits / total
