"""Find the values in a text that the policy names. A finding holds the place and the rule, never the value.

rules.py reads the rules and match.py runs them. This module adds the matches in disguised text (hidden.py) and those
of detectors, and removes overlaps. It repeats the scan until a redacted text has nothing left to redact.
Used by: split, safety_audit, filters.py, the Git hooks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from codex_ml.policy.detectors import load_detectors, run_detector
from codex_ml.policy.finding import Finding, locate
from codex_ml.policy.hidden import FOLD, decode_base64, reveal
from codex_ml.policy.match import Matched, Matcher
from codex_ml.policy.nearby import Nearby
from codex_ml.policy.providers import Action, Severity
from codex_ml.policy.redact import PLACEHOLDER, placeholder_length
from codex_ml.policy.rules import Policy

RANK: dict[Action, int] = {"block": 0, "redact": 1, "allow": 2}
ESCAPED_SPACE = {"n": " \n", "r": " \r", "t": " \t"}
DENSE = 32  # characters per backslash


@dataclass(frozen=True)
class _Span:
    """A value and the rule that found it."""

    start: int
    end: int
    rule: str
    action: Action
    severity: Severity
    order: int


class _Pass(NamedTuple):
    """What a pass over a text found, with offsets in the text without replacements.

    Attributes:
        plain, other: what it found in the text as it is, and without disguises, in base64 and by detectors.
        tried: indexes of the rules that it and the passes before it tried.
        replaced: what the next pass replaces.
    """

    plain: list[_Span]
    other: list[_Span]
    tried: set[int]
    replaced: list[_Span]


class Scanner:
    """A compiled policy that scans many texts. A pickle holds the policy only; unpickling compiles it again.

    Raises:
        UserError: when a detector that the policy names cannot be loaded.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.matcher = Matcher(policy)
        self._by_id = {rule.id: rule for rule in policy.rules}
        self._detectors = load_detectors(policy.detectors)

    def __reduce__(self) -> tuple[type[Scanner], tuple[Policy]]:
        return Scanner, (self.policy,)

    def scan(self, text: str) -> list[Finding]:
        """Scan a text; returns its findings in order of their offsets, without overlaps.

        Of overlapping findings the stronger action wins (block, then redact, then allow), then the longer span, then
        the earlier rule. Some values match only after others are replaced, so the text is scanned again with
        placeholders in place of what was found, until nothing new is found. Thus a second scan of the redacted text
        finds nothing to redact. Placeholders themselves are not findings.

        Raises:
            UserError: when a detector fails.
        """
        kept: list[_Span] = []
        for _, chosen in self._passes(text):
            kept = [span for span in kept if span.action != "allow"] + chosen
        spans = sorted(kept, key=lambda span: span.start)
        return list(locate(text, ((s.start, s.end, s.rule, s.action, s.severity) for s in spans)))

    def candidates(self, text: str) -> list[tuple[int, int]]:
        """Spans (start, end) of all values that the scan sees, also of those that lose to one that overlaps them."""
        return [(span.start, span.end) for found, _ in self._passes(text) for span in found]

    def _passes(self, text: str) -> Iterator[tuple[list[_Span], list[_Span]]]:
        """Yield (what a pass finds, what is left of it without overlaps); the passes before it are replaced."""
        mark = _unused(text)
        last, replaced = _Pass([], [], set(), []), list[_Span]()
        while True:
            last = self._pass(*_mask(text, replaced, mark), mark, last)
            found = last.plain + last.other
            chosen = _choose(found) if found else found
            yield found, chosen
            more = [span for span in chosen if span.action != "allow"]
            if not more:
                return
            last = last._replace(replaced=more)
            replaced = sorted([*replaced, *more], key=lambda span: span.start)

    def _pass(self, text: str, places: list[tuple[int, int]], mark: str, last: _Pass) -> _Pass:
        """What one pass finds: in the text, in the text without disguises, and by the detectors; it may overlap.

        Only parts near a change are searched, if that is enough: what the pass before found elsewhere is kept.
        """
        plain = without_escaped_space(text)
        near = self._near(plain, _changed(last.replaced, places), last.tried) if last.replaced else None
        matched, near = self._matched(plain, near)
        tried = last.tried | matched.tried
        spans, other = _spans(matched, near), list[_Span]()
        kept = [span for span in last.plain if not near.holds(_place_in(places, span.start))] if near else []
        if matched.base64:
            other += self._in_base64(plain, matched.base64)
        if view := reveal(plain):
            revealed = self._matched(view.text, self._near(view.text, view.changes, tried))
            other += [_at(span, *view.original(span.start, span.end)) for span in _spans(*revealed)]
        if self._detectors:
            other += self._detected(text)
        spans, other = (
            [_moved(span, places) for span in found if mark not in text[max(0, span.start - 1) : span.end + 1]]
            for found in (spans, other)
        )
        return _Pass(spans + kept, other, tried, [])

    def _near(self, text: str, changes: Sequence[tuple[int, int]], tried: set[int]) -> Nearby | None:
        locality = self.matcher.locality
        return locality.near(text, changes) if tried.isdisjoint(locality.far) else None

    def _matched(self, text: str, near: Nearby | None) -> tuple[Matched, Nearby | None]:
        """What is found in the parts near a change; if that may not be all, what is found in the text, and None."""
        matched = self.matcher.matches(text, near)
        if near and (matched.crossed or not matched.tried.isdisjoint(self.matcher.locality.far)):
            return self.matcher.matches(text), None
        return matched, near

    def _detected(self, text: str) -> Iterator[_Span]:
        for name, detector in self._detectors.items():
            for rule, start, end in run_detector(name, detector, text):
                known = self._by_id.get(rule)
                action, severity = (known.action, known.severity) if known else ("redact", "high")
                yield _Span(start, end, rule, action, severity, len(self.policy.rules))

    def _in_base64(self, text: str, places: list[tuple[int, int]]) -> Iterator[_Span]:
        """Credentials and injections in one level of base64. The span is the whole run: a part would not decode."""
        done: dict[int, int] = {}  # alignment -> offset up to which runs have been decoded
        spaces = last = 0  # line ends do not count in the alignment of a run that is folded into lines
        for start, first in sorted(places):
            spaces += sum(map(len, FOLD.findall(text, last, start)))
            last, alignment = start, (start - first - spaces) % 4
            if start < done.get(alignment, 0) or not (decoded := decode_base64(text, start, first)):
                continue
            low, high, inner = decoded
            done[alignment] = high
            found = [s for s in _spans(self.matcher.matches(inner)) if self.policy.rules[s.order].kind != "personal"]
            if found:
                yield _at(min(found, key=lambda span: (RANK[span.action], span.start)), low, high)


def without_escaped_space(text: str) -> str:
    """The text with `\\n`, `\\r` and `\\t` as white space of the same length; otherwise their letter would join a word.

    To cut at backslashes takes a fourth of the time of three replacements. It takes much memory where there are many
    backslashes, so such a text gets the replacements.
    """
    count = text.count("\\")
    if count * DENSE > len(text):
        for letter, space in ESCAPED_SPACE.items():
            text = text.replace("\\" + letter, space)
        return text
    if not count:
        return text
    head, *rest = text.split("\\")
    return head + "".join([ESCAPED_SPACE.get(part[:1], "\\" + part[:1]) + part[1:] for part in rest])


def _unused(text: str) -> str:
    """A character that no rule names and that the text does not hold; it fills placeholders during the scan."""
    if "\0" not in text:
        return "\0"
    if mark := next((mark for mark in map(chr, range(0xFDD0, 0xFDF0)) if mark not in text), None):
        return mark
    used = set(text)  # no text that the filter reads holds all private characters
    return next((mark for mark in map(chr, range(0xF0000, 0x110000)) if mark not in used), "\ufdd0")


def neutral_placeholder(length: int, mark: str) -> str:
    """A placeholder without letters or digits that a rule could match: `mark` fills it to the length of the real one.

    >>> neutral_placeholder(6, "*")
    '<****>'
    """
    return f"<{mark * (length - 2)}>"


def _mask(text: str, spans: list[_Span], mark: str) -> tuple[str, list[tuple[int, int]]]:
    """Put neutral placeholders in place of earlier placeholders and of `spans`, which are in order.

    They are neutral, because the hexadecimal digits of a tag must not decide whether a rule matches.

    Returns:
        (masked text, pairs (offset in the masked text, offset in `text`), one at the start and one after each span).
    """

    if not spans and "<SECRET:" not in text:
        return text, [(0, 0)]

    def without_old(piece: str) -> str:
        return PLACEHOLDER.sub(lambda m: neutral_placeholder(len(m[0]), mark), piece) if "<SECRET:" in piece else piece

    pieces, places, last, size = [], [(0, 0)], 0, 0
    for span in spans:
        pieces += [without_old(text[last : span.start]), neutral_placeholder(placeholder_length(span.rule), mark)]
        size += len(pieces[-2]) + len(pieces[-1])
        last = span.end
        places.append((size, last))
    return "".join([*pieces, without_old(text[last:])]), places


def _moved(span: _Span, places: list[tuple[int, int]]) -> _Span:
    """The span with its offsets in the text before `_mask`."""
    here, there = places[bisect_left(places, (span.start + 1, 0)) - 1]
    return _at(span, span.start - here + there, span.end - here + there) if here != there else span


def _place_in(places: list[tuple[int, int]], start: int) -> int:
    """The offset in the text after `_mask` of an offset in the text before it; of a part replaced, one in its place."""
    number = bisect_right(places, start, key=lambda pair: pair[1])
    here, there = places[number - 1]
    moved = start - there + here
    return min(moved, places[number][0] - 1) if number < len(places) else moved


def _changed(replaced: list[_Span], places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where the placeholders of spans, which are in order, are in the text after `_mask`."""
    ends = [places[bisect_right(places, span.end, key=lambda pair: pair[1]) - 1][0] for span in replaced]
    return [(end - placeholder_length(span.rule), end) for end, span in zip(ends, replaced, strict=True)]


def _spans(matched: Matched, near: Nearby | None = None) -> list[_Span]:
    """The values of a search, of which only those inside `near` count."""
    return [
        _Span(start, end, match.rule.id, match.rule.action, match.rule.severity, match.order)
        for start, end, match in matched.values
        if near is None or near.holds(start)
    ]


def _at(span: _Span, start: int, end: int) -> _Span:
    return _Span(start, end, span.rule, span.action, span.severity, span.order)  # `replace` takes thrice the time


def _choose(spans: list[_Span]) -> list[_Span]:
    """Drop overlaps: the strongest action wins, then the longest span, then the earliest rule. Sorted by offset."""
    chosen: list[tuple[int, int, _Span]] = []
    for span in sorted(spans, key=lambda s: (RANK[s.action], s.start - s.end, s.order, s.start)):
        place = bisect_left(chosen, (span.start, 0))
        before_ends = place == 0 or chosen[place - 1][1] <= span.start
        if before_ends and (place == len(chosen) or chosen[place][0] >= span.end):
            chosen.insert(place, (span.start, span.end, span))
    return [span for _, _, span in chosen]
