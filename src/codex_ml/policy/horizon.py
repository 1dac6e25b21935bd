"""The horizon of a text in progress: the offset before which nothing depends on the text that follows.

A place is settled when no match of a rule, in progress or not yet begun, can reach it. A rule is in progress from its
literal or gate on, until more characters follow than it can read (reach.py). The text is looked at as it is, without
its disguises, and with its values replaced, as the scanner does. Used by: filters.py and streaming.py.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from codex_ml.policy.compiled import Compiled, others_after
from codex_ml.policy.extent import NEAR, extent_of, is_bounded
from codex_ml.policy.finding import Finding
from codex_ml.policy.hidden import BASE64, JOINER, View, may_disguise, reveal, rewritten
from codex_ml.policy.listed_values import Others
from codex_ml.policy.nearby import CONTEXT
from codex_ml.policy.reach import RUN, FoldedLength
from codex_ml.policy.redact import PLACEHOLDER, placeholder_length
from codex_ml.policy.scan import Scanner, neutral_placeholder, without_escaped_space

LONGEST_MARK = 58  # characters of the longest placeholder
# A run of base64 in progress, which may be folded into lines, and what may follow its last whole line.
_FOLDED = re.compile(rf"[{BASE64}]*+(?:(?:\\{{1,4}}[rn]|\s){{1,20}}+[{BASE64}]{{16,}}+)*+")
_AFTER_FOLD = 200


class Horizon:
    """How far the rules of a scanner read.

    Attributes:
        margin: folded length of the end of a text in which a rule may be about to begin.
        context: folded length of settled text that a rule may still need to see before a value, such as a name, the
            line for an exception, or what a lookbehind reads.
        bounded: whether every rule has a bound. A detector of another package has none.
    """

    def __init__(self, scanner: Scanner) -> None:
        self._scanner, self._matcher = scanner, scanner.matcher
        self._extents = {rule.order: extent_of(rule.rule) for rule in self._matcher.rules}
        extents = self._extents.values()
        begins = [extent.early + extent.gate for extent in extents]
        before = max((extent.early for extent in extents), default=0)
        self.margin = max([*begins, before + self._matcher.longest, LONGEST_MARK]) + NEAR + JOINER
        inner = (self._extents[rule.order].whole for rule in self._matcher.rules if rule.group)
        behind = max((extent.reach.behind for extent in extents), default=0)
        self.context = max(inner, default=0) + self.margin + CONTEXT + behind
        self.bounded = not scanner.policy.detectors and all(is_bounded(rule.rule) for rule in self._matcher.rules)

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
        if findings and findings[-1].end > place:  # it may still go, and a value that lost to it comes back
            values = self._scanner.candidates(text)
            while crossed := [start for start, end in values if start < place < end]:
                place = min(crossed)
        return place

    def start_of_scan(self, text: str, place: int) -> int:
        """The last offset up to `place` from which a scan finds after it what a scan of the whole text finds there.

        Matches of a rule with `before` do not overlap: where two could, the first one counts, and so on along a row of
        digits. So the scan must not begin inside such a row.
        """
        plain = without_escaped_space(text)
        place = self._aligned(plain, place)
        while view := reveal(plain):
            inside = bisect_left(range(len(view.text)), place, key=lambda index: view.original(index, index + 1)[0])
            before = _origin(view, self._aligned(view.text, inside), place)
            if before >= place:
                break
            place = self._aligned(plain, before)
        return place

    def _aligned(self, text: str, place: int) -> int:
        """The last offset up to `place` that is in no word and in no possible match of a rule with `before`."""
        length, starts = FoldedLength(text), dict[int, tuple[Compiled, list[int]]]()
        lists, walks = list[tuple[int, int]](), dict[int, Others]()
        for start, end, rule in self._matcher.begins(text):
            if rule and rule.rule.before:
                starts.setdefault(rule.order, (rule, []))[1].append(start)
            if start < place < (last := _end_of_list(text, end, rule, walks)):
                lists.append((start, last))
        while place := end_of_word(text, place):
            crossed = [self._crossed(text, place, length, *windowed) for windowed in starts.values()]
            crossed += [start for start, last in lists if start < place < last]
            if min(crossed, default=place) == place:
                break
            place = min(crossed)
        return place

    def _crossed(self, text: str, place: int, length: FoldedLength, rule: Compiled, starts: list[int]) -> int:
        """Where a match begins that a scan from `place` on would see in part, or later than a scan of the whole does.

        Args:
            starts: where the rule, one with `before`, has a literal or gate.

        Returns:
            the offset, or `place` if there is none.
        """
        before, width = rule.rule.before, self._extents[rule.order].reach.width
        number = bisect_left(starts, place)
        low = (starts[number] if number < len(starts) else len(text)) - before  # here the scan from `place` on begins
        near = number and starts[number - 1] + before + rule.rule.after + width + self._matcher.longest > place
        if not near and low >= place:
            return place
        for border in (place, low) if near and low > place else (place,):
            for start in range(length.back(length(border) + width + RUN), border):
                if (match := rule.pattern.match(text, start)) and match.end() > border:
                    return min(start, place) if border == place else min(start, starts[number - 1] - before, place - 1)
        return place

    def _undisguised(self, text: str) -> int:
        place = self._decided(text)
        if view := reveal(text):
            place = min(place, _origin(view, self._decided(view.text), len(text)))
        return place

    def _decided(self, text: str) -> int:
        length, walks = FoldedLength(text), dict[int, Others]()
        place = length.back(self.margin)
        for start, end, rule in self._matcher.begins(text):
            begin = start - self._extents[rule.order].before if rule else start
            if begin < place and self._in_progress(
                text, max(start, _end_of_list(text, end, rule, walks)), rule, length
            ):
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


def _end_of_list(text: str, start: int, rule: Compiled | None, walks: dict[int, Others]) -> int:
    """Where a list or table ends whose first value matches at `start`, after a name; 0 if there is none."""
    match = rule.pattern.match(text, start) if rule and rule.rule.many and rule.rule.names else None
    found, last = others_after(match, rule, walks) if match and rule else ((), 0)
    return last if found else 0


def _masked(text: str, spans: Iterable[tuple[int, int, int]]) -> View:
    """The text with each span (start, end, length of its placeholder) replaced; of overlapping spans the first one."""
    kept, last = list[tuple[int, int, str]](), 0
    for start, end, length in spans:
        if start >= last:
            kept.append((start, end, neutral_placeholder(length, "\0")))
            last = end
    return rewritten(text, kept)


def end_of_word(text: str, place: int, first: int = 0) -> int:
    """The last offset from `first` up to `place` at which no word goes on; `first` if there is none."""
    while place > first and not _ends_word(text[place - 1]):
        place -= 1
    return max(place, first)


def _ends_word(character: str) -> bool:
    """Whether no value and no run of base64 goes on after it: white space, or a letter of a script without spaces."""
    if character.isspace():
        return True
    return not character.isascii() and not may_disguise(character) and unicodedata.category(character)[0] not in "MC"


def _origin(view: View, place: int, size: int) -> int:
    """The offset in the original of an offset in a view."""
    if not place:
        return 0
    return min(view.original(place - 1, place)[0] + 1, size)
