"""The horizon of a text in progress: the offset before which nothing depends on the text that follows.

A place is settled when no match of a rule, in progress or not yet begun, can reach it. A rule is in progress from its
literal or gate on, until more characters follow than it can read (reach.py). The text is looked at as it is, without
its disguises, and with its values replaced, as the scanner does. Used by: filters.py and streaming.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from codex_ml.policy.finding import Finding
from codex_ml.policy.hidden import BASE64, View, reveal, rewritten
from codex_ml.policy.match import NEAR, Compiled
from codex_ml.policy.reach import FoldedLength, Reach, reach_of
from codex_ml.policy.redact import PLACEHOLDER, placeholder_length
from codex_ml.policy.scan import Scanner, neutral_placeholder, without_escaped_space

LONGEST_MARK = 58  # characters of the longest placeholder
ESCAPE = 8  # characters of the longest escape of one character
# A run of base64 in progress, which may be folded into lines, and what may follow its last whole line.
_FOLDED = re.compile(rf"[{BASE64}]*+(?:(?:\\{{1,4}}[rn]|\s){{1,20}}+[{BASE64}]{{16,}}+)*+")
_AFTER_FOLD = 200


@dataclass(frozen=True)
class _Extent:
    """How far a rule reads from its literal or gate on.

    Attributes:
        before: characters before it at which a value may begin.
        gate: folded length after which the gate is decided.
        whole: folded length after which the rule is decided; for a rule with loops, from the end of its match on.
    """

    before: int
    gate: int
    whole: int
    reach: Reach


class Horizon:
    """How far the rules of a scanner read.

    Attributes:
        margin: folded length of the end of a text in which a rule may be about to begin.
        context: folded length of settled text that a rule may still need to see before a value, such as a name.
        bounded: whether every rule has a bound. A detector of another package has none.
    """

    def __init__(self, scanner: Scanner) -> None:
        self._matcher = scanner.matcher
        self._extents = {rule.order: _extent(rule) for rule in self._matcher.rules}
        extents = self._extents.values()
        begins = [extent.before + extent.gate for extent in extents]
        before = max((extent.before for extent in extents), default=0)
        self.margin = max([*begins, before + self._matcher.longest, LONGEST_MARK]) + NEAR + ESCAPE
        inner = (self._extents[rule.order].whole for rule in self._matcher.rules if rule.group)
        self.context = max(inner, default=0) + self.margin
        self.bounded = not scanner.policy.detectors and all(map(_is_bounded, self._matcher.rules))

    def settled(self, text: str, findings: Sequence[Finding]) -> int:
        """The offset before which the findings of the text cannot change, whatever follows.

        Args:
            findings: of the text, in order. The offset may be inside one of them.
        """
        plain = without_escaped_space(text)
        place = self._undisguised(plain)
        spans = [(f.start, f.end, placeholder_length(f.rule)) for f in findings]
        spans += [(*m.span(), len(m[0])) for m in PLACEHOLDER.finditer(text)]
        if spans:
            masked = _masked(plain, sorted(spans))
            place = min(place, _origin(masked, self._undisguised(masked.text), len(text)))
        return place

    def _undisguised(self, text: str) -> int:
        place = self._decided(text)
        if view := reveal(text):
            place = min(place, _origin(view, self._decided(view.text), len(text)))
        return place

    def _decided(self, text: str) -> int:
        length = FoldedLength(text)
        place = length.back(self.margin)
        for start, _, rule in self._matcher.begins(text):
            begin = start - self._extents[rule.order].before if rule else start
            if begin < place and self._in_progress(text, start, rule, length):
                place = max(begin, 0)
        return place

    def _in_progress(self, text: str, start: int, rule: Compiled | None, length: FoldedLength) -> bool:
        """Whether a match that begins at this literal or gate may change with what follows the text."""
        if rule is None:
            folded = _FOLDED.match(text, start)
            return folded is not None and len(text) - folded.end() <= _AFTER_FOLD
        extent = self._extents[rule.order]
        if rule.gate and length(start) > extent.gate and not rule.gate.match(text, start):
            return False
        if extent.reach.spaces and length(start) > extent.whole:
            low, high = start + extent.whole, length.back(extent.whole)
            if low >= high or extent.reach.holds(set(text[low:high])):
                return True
        if extent.reach.loops and (match := rule.pattern.match(text, start)):
            start = match.end()
        return length(start) <= extent.whole


def _extent(rule: Compiled) -> _Extent:
    own = rule.rule
    gate = reach_of(own.gate).width if own.gate else 0
    literal = max(map(len, own.literals), default=0)
    reach = reach_of(own.pattern)
    for extra in (f"(?:{own.run})*" if own.run else "", own.until or ""):
        reach += reach_of(extra)
    after = max((reach_of(expression).width for expression in own.allow_after), default=0)
    window = own.before + own.after if own.before else 0
    whole = literal + gate + window + reach.width + after + NEAR
    return _Extent(own.before, gate, whole, reach)


def _is_bounded(rule: Compiled) -> bool:
    """Whether the end of a match can be told from the literal or gate where it begins."""
    gate, pattern = reach_of(rule.rule.gate or ""), reach_of(rule.rule.pattern)
    return not (gate.loops or gate.spaces) and not (rule.rule.before and (pattern.loops or pattern.spaces))


def _masked(text: str, spans: Iterable[tuple[int, int, int]]) -> View:
    """The text with each span (start, end, length of its placeholder) replaced; of overlapping spans the first one."""
    kept, last = list[tuple[int, int, str]](), 0
    for start, end, length in spans:
        if start >= last:
            kept.append((start, end, neutral_placeholder(length, "\0")))
            last = end
    return rewritten(text, kept)


def _origin(view: View, place: int, size: int) -> int:
    """The offset in the original of an offset in a view."""
    if not place:
        return 0
    return min(view.original(place - 1, place)[0] + 1, size)
