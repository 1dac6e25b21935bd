"""How far a rule reads: from its literal or gate to the end of what decides its match.

Used by: match.py, which scans only near a change again; horizon.py, which says what a text in progress settles.
"""

from __future__ import annotations

from dataclasses import dataclass

from codex_ml.policy.listed_values import AHEAD
from codex_ml.policy.reach import RUN, Reach, reach_of, stays_in_run
from codex_ml.policy.rules import Rule

NEAR = 8  # characters; no expression of the policy looks further ahead


@dataclass(frozen=True)
class Extent:
    """How far a rule reads from its literal or gate on.

    Attributes:
        before: characters before it at which a value may begin.
        early: their folded length.
        gate: folded length after which the gate is decided.
        whole: folded length after which the rule is decided; for a rule with loops, from the end of its match on.
    """

    before: int
    early: int
    gate: int
    whole: int
    reach: Reach


def extent_of(rule: Rule) -> Extent:
    """How far a rule reads."""
    gate = reach_of(rule.gate).width if rule.gate else 0
    literal = max(map(len, rule.literals), default=0)
    reach = reach_of(rule.pattern)
    for extra in (f"(?:{rule.run})*" if rule.run else "", rule.until or ""):
        reach += reach_of(extra)
    after = max((reach_of(expression).width for expression in rule.allow_after), default=0)
    window = rule.before + rule.after if rule.before else 0
    whole = max(literal + gate + window + reach.width + after + NEAR, AHEAD if rule.many else 0)
    early = min(rule.before, RUN) if stays_in_run(rule.pattern) else rule.before
    return Extent(rule.before, early, gate, whole, reach)


def is_bounded(rule: Rule) -> bool:
    """Whether the end of a match can be told from the literal or gate where it begins."""
    gate, pattern = reach_of(rule.gate or ""), reach_of(rule.pattern)
    return not (gate.loops or gate.spaces) and not (rule.before and (pattern.loops or pattern.spaces))
