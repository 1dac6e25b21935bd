"""Where a scan must look again after a few changes of a text, so that it finds what a scan of the whole text finds.

The scanner reads a text without its disguises too, and again with its values replaced. Far from all changes such a text
has the values of the text before. How far a change reaches follows from how far the rules read (extent.py), in folded
length (reach.py): of a run without white space at most `RUN` characters count, and parts end at white space.
Used by: match.py and scan.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from codex_ml.policy.extent import extent_of
from codex_ml.policy.listed_values import AHEAD, Span
from codex_ml.policy.reach import RUN, reach_of
from codex_ml.policy.rules import Rule

CONTEXT = 100  # characters of the line before a value that `allow_before` sees
MAX_GATE = 1000  # characters that a gate reads, at most, where only parts of a text are searched
BASE64, LISTED = -1, -2  # stand for the forms of base64 and for lists of values among the indexes of rules
STEP = 512  # characters in which the end of a word is searched


@dataclass(frozen=True)
class Nearby:
    """The parts of a text that are near a change.

    Attributes:
        inner: where a value may begin that is new or gone.
        outer: the inner parts and what decides about the values in them: here rules are tried.
        reach: characters that a rule reads, at most.
    """

    inner: list[Span]
    outer: list[Span]
    reach: int

    def holds(self, place: int) -> bool:
        """Whether a value that begins here may be new."""
        number = bisect_right(self.inner, place, key=lambda span: span[0]) - 1
        return number >= 0 and place < self.inner[number][1]

    def crossed(self, searched: Iterable[Span]) -> bool:
        """Whether a row of possible matches leads from before a part into its inner part.

        Matches of a rule with `before` do not overlap: along such a row the first one decides about all others.
        """
        edges = [low for low, _ in self.outer if low]
        for start, end in searched:
            number = bisect_right(edges, end - 2 * self.reach)
            if number and start < edges[number - 1] + self.reach:
                return True
        return False


class Locality:
    """How far a change of a text reaches, for the rules of a policy.

    Attributes:
        far: indexes of the rules that may read any number of characters, `BASE64` and `LISTED`: where one is tried, a
            change may reach any part of the text.
    """

    def __init__(self, rules: Mapping[int, Rule]) -> None:
        far, extents = set(), []
        for order, rule in rules.items():
            extent = extent_of(rule)
            after = [reach_of(expression) for expression in rule.allow_after]
            if any(reach.loops or reach.spaces for reach in (extent.reach, *after)):
                far.add(order)
            else:
                extents.append(extent)
        self.far = frozenset(far | {BASE64, LISTED})
        behind = max((extent.reach.behind for extent in extents), default=0)
        listed = AHEAD if any(rule.many for rule in rules.values()) else 0
        self._reach = max((extent.whole for extent in extents), default=0) + listed + CONTEXT + behind
        self._local = all(map(_is_local, rules.values()))

    def near(self, text: str, changes: Sequence[Span]) -> Nearby | None:
        """The parts near changes, which are in order; None if they are most of the text, or have no bound."""
        if not self._local:
            return None
        inner = list(_widened(text, changes, self._reach))
        outer = list(_widened(text, inner, 2 * self._reach))
        if sum(high - low for low, high in outer) * 4 > 3 * len(text):
            return None
        return Nearby(inner, outer, self._reach)


def _is_local(rule: Rule) -> bool:
    """Whether the places at which a rule is tried do not depend on text that is far away."""
    if not rule.gate:
        return True
    gate = reach_of(rule.gate)
    if gate.loops or gate.spaces or gate.width > MAX_GATE:
        return False
    return bool(rule.literals) or (rule.before > 0 and rule.before + rule.after >= gate.width)


def _widened(text: str, spans: Sequence[Span], length: int) -> Iterator[Span]:
    """The spans with at least `length` characters more on both sides, in folded length; parts that touch are one."""
    high, number = 0, 0
    low = -1
    while number < len(spans):
        start, end = spans[number]
        number += 1
        while number < len(spans) and spans[number][0] - end <= 2 * length:  # one part in any case
            end = max(end, spans[number][1])
            number += 1
        begin = _back(text, start, length, high)
        if low >= 0 and begin > high:
            yield low, high
            low = -1
        low = begin if low < 0 else low
        high = _forth(text, max(end, high), length)
    if low >= 0:
        yield low, high


def _back(text: str, place: int, length: int, floor: int) -> int:
    """The start of a word with at least `length` characters from it to `place`, but not before `floor`."""
    while place > floor and length > 0:
        low = _start_of_word(text, max(0, place - length), floor)
        length -= _folded(text[low:place])
        place = low
    return max(place, floor)


def _forth(text: str, place: int, length: int) -> int:
    """The end of a word with at least `length` characters from `place` to it, or the end of the text."""
    while place < len(text) and length > 0:
        high = _end_of_word(text, min(len(text), place + length))
        length -= _folded(text[place:high])
        place = high
    return place


def _folded(piece: str) -> int:
    return len(piece) - sum([len(run) - RUN for run in piece.split() if len(run) > RUN])


def _start_of_word(text: str, place: int, floor: int) -> int:
    while place > floor:
        low = max(0, place - STEP)
        space = max(text.rfind(" ", low, place), text.rfind("\n", low, place))
        if space >= 0:
            return space + 1
        place = low
    return max(place, floor)


def _end_of_word(text: str, place: int) -> int:
    while place < len(text):
        ends = [end for end in (text.find(" ", place, place + STEP), text.find("\n", place, place + STEP)) if end >= 0]
        if ends:
            return min(ends)
        place += STEP
    return len(text)
