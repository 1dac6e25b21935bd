"""A rule with its expressions compiled, and the checks of a value that its pattern matched.

Used by: match.py, horizon.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from codex_ml.policy.listed_values import Others, Span, may_be_listed
from codex_ml.policy.nearby import CONTEXT
from codex_ml.policy.rules import Policy, Rule
from codex_ml.policy.validators import VALIDATORS, has_entropy

SHORT = 300  # characters of a value that checks read; the policy's general exceptions apply up to this length
WHOLE = frozenset({"jwt", "pem"})  # validators that decode the value and so need all of it


@dataclass(frozen=True)
class Compiled:
    """A rule with its expressions compiled.

    Attributes:
        order: its index in the policy.
        after_name: whether its pattern begins after its literals, which are names.
        accepts: whether a value passes the checks that see nothing else; whether it is short is the second argument.
    """

    rule: Rule
    order: int
    before: int
    after: int
    after_name: bool
    pattern: re.Pattern[str]
    gate: re.Pattern[str] | None
    group: str | int
    edge: frozenset[str]
    run: re.Pattern[str] | None
    until: re.Pattern[str] | None
    accepts: Callable[[str, bool], bool]
    allow_before: tuple[re.Pattern[str], ...]
    allow_after: tuple[re.Pattern[str], ...]

    def confirms(self, text: str, start: int, end: int) -> bool:
        """Whether the value at [start, end) passes the rule's checks and no exception applies to it.

        Checks read the first `SHORT` characters only, so the cost is linear also for a text full of overlapping hits.
        """
        if self.until and not self.until.match(text, end):
            return False
        return self._passes(text, start, end) and not any(rule.match(text, end) for rule in self.allow_after)

    def confirms_before_mark(self, text: str, start: int, end: int) -> bool:
        """Whether the value would pass if a placeholder stood after it."""
        return (self.until is None or self.until.match("<") is not None) and self._passes(text, start, end)

    def _passes(self, text: str, start: int, end: int) -> bool:
        value = text[start : end if self.rule.validator in WHOLE else min(end, start + SHORT)]
        if not self.accepts(value, end - start <= SHORT):
            return False
        if self.allow_before:
            before = text[max(0, start - CONTEXT) : start].rpartition("\n")[2]
            return not any(exception.search(before) for exception in self.allow_before)
        return True


def compile_rule(policy: Policy, rule: Rule, order: int) -> Compiled:
    """The rule with its expressions compiled, and the general exceptions of the policy if it is for secrets."""
    flags = re.IGNORECASE if rule.ignore_case else 0
    pattern = re.compile(rule.pattern, flags)
    gate = re.compile(rule.gate, flags) if rule.gate else None
    group: str | int = "value" if "value" in pattern.groupindex else min(pattern.groups, 1)
    edge = frozenset(re.findall(f"[{rule.edge}]", "".join(map(chr, range(128))))) if rule.edge else frozenset()
    before, after = (tuple(map(re.compile, expressions)) for expressions in (rule.allow_before, rule.allow_after))
    run = re.compile(f"(?:{rule.run})*+") if rule.run else None
    until = re.compile(rule.until) if rule.until else None
    places = (rule.before, rule.after, bool(rule.names))
    return Compiled(rule, order, *places, pattern, gate, group, edge, run, until, _checks(policy, rule), before, after)


def others_after(match: re.Match[str], rule: Compiled, walks: dict[int, Others]) -> tuple[list[Span], int]:
    """The other values of the list or table of a match, and where it ends; `walks` has one walk per rule."""
    if not may_be_listed(match.string, (span := match.span(rule.group))[0]):
        return [], span[1]
    walks.setdefault(rule.order, Others(match.string))
    return walks[rule.order].after(match, span, rule.run)


def _checks(policy: Policy, rule: Rule) -> Callable[[str, bool], bool]:
    """The checks of a value that see nothing else. Their results are kept, because files repeat their values."""
    allow = [re.compile(expression) for expression in rule.allow]
    general = policy.allow if rule.kind == "secret" else ()
    allow_short = [*allow, *map(re.compile, general)]

    def accepts(value: str, short: bool) -> bool:
        if rule.min_entropy and not has_entropy(value, rule.min_entropy):
            return False
        for exception in allow_short if short else allow:
            if exception.search(value):
                return False
        return not rule.validator or VALIDATORS[rule.validator](value)

    return accepts if rule.validator in WHOLE else lru_cache(maxsize=8192)(accepts)
