"""Find what the policy names. A finding says where and what kind, never the value.

Rules come from data/policy.yaml (rules.py), match.py runs them; here their matches are put together: behind disguises
(hidden.py), from detectors, without overlaps, and until a redacted text would have nothing left to redact.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace

from codex_ml.policy.detectors import load_detectors, run_detector
from codex_ml.policy.finding import Finding
from codex_ml.policy.hidden import decode_base64, reveal
from codex_ml.policy.match import Matcher
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


class Scanner:
    """A policy, ready to run on many texts; pickled as the policy, and built again where it is unpickled.

    Raises:
        UserError: when a detector that the policy names cannot be loaded.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._matcher = Matcher(policy)
        self._by_id = {rule.id: rule for rule in policy.rules}
        self._detectors = load_detectors(policy.detectors)

    def __reduce__(self) -> tuple[type[Scanner], tuple[Policy]]:
        return Scanner, (self.policy,)

    def scan(self, text: str) -> list[Finding]:
        """All findings in order of their place, without overlaps.

        Of overlapping ones the stronger action stays (block, redact, allow), then the longer span, then the earlier
        rule. What would only be found once the others are replaced is found now, by scanning again with placeholders
        in their place: so a redacted text has nothing left to redact, and placeholders are no findings themselves.

        Raises:
            UserError: when a detector fails.
        """
        mark = _unused(text)
        replaced: list[_Span] = []
        while True:
            masked, places = _mask(text, replaced, mark)
            spans = self._spans(masked, mark)
            found = [_moved(span, places) for span in spans]
            more = [span for span in found if span.action != "allow"]
            if not more:
                break
            replaced = sorted([*replaced, *more], key=lambda span: span.start)
        return list(_findings(text, sorted([*replaced, *found], key=lambda span: span.start)))

    def _spans(self, text: str, mark: str) -> list[_Span]:
        """Findings of one pass: in the text, behind its disguises, and by the detectors."""
        plain = _without_escaped_space(text)
        found = self._confirmed(plain, base64=True)
        if view := reveal(plain):
            for span in self._confirmed(view.text, base64=False):
                found.append(_at(span, *view.original(span.start, span.end)))
        for name, detector in self._detectors.items():
            for rule, start, end in run_detector(name, detector, text):
                known = self._by_id.get(rule)
                action, severity = (known.action, known.severity) if known else ("redact", "high")
                found.append(_Span(start, end, rule, action, severity, len(self.policy.rules)))
        return _choose([span for span in found if mark not in text[max(0, span.start - 1) : span.end + 1]])

    def _confirmed(self, text: str, *, base64: bool) -> list[_Span]:
        matches, places = self._matcher.matches(text)
        spans = [
            _Span(start, end, match.rule.id, match.rule.action, match.rule.severity, match.order)
            for start, end, match in matches
        ]
        return [*spans, *self._in_base64(text, places)] if base64 and places else spans

    def _in_base64(self, text: str, places: list[tuple[int, int]]) -> Iterator[_Span]:
        """Credentials and orders one base64 level deep; the whole run goes, because half of one cannot be decoded."""
        done: dict[int, int] = {}  # by alignment: up to where runs have been decoded
        for start, first in places:
            if start < done.get((start - first) % 4, 0) or not (decoded := decode_base64(text, start, first)):
                continue
            low, high, inner = decoded
            done[(start - first) % 4] = high
            found = [s for s in self._confirmed(inner, base64=False) if self.policy.rules[s.order].kind != "personal"]
            if found:
                yield _at(min(found, key=lambda span: (RANK[span.action], span.start)), low, high)


def _without_escaped_space(text: str) -> str:
    """`\\n` and its like as white space of the same length, so that the `n` is no letter of the word after it.

    Where backslashes are few, cutting at them takes a fourth of the time of three replacements; where they are many, it
    takes memory.
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
    """A character that no rule names and that the text does not hold, to fill placeholders while scanning."""
    return next((mark for mark in ("\0", *map(chr, range(0xFDD0, 0xFDF0))) if mark not in text), "\ufdd0")


def _neutral(length: int, mark: str) -> str:
    return f"<{mark * (length - 2)}>"


def _mask(text: str, spans: list[_Span], mark: str) -> tuple[str, list[tuple[int, int]]]:
    """The text with neutral placeholders in place of old ones and of `spans`, and (offset here, offset there) pairs.

    Neutral, because whether a rule fires must not depend on the hexadecimal digits of a tag.
    """

    def without_old(piece: str) -> str:
        return PLACEHOLDER.sub(lambda m: _neutral(len(m[0]), mark), piece) if "<SECRET:" in piece else piece

    pieces, places, last, size = [], [(0, 0)], 0, 0
    for span in spans:
        pieces += [without_old(text[last : span.start]), _neutral(placeholder_length(span.rule), mark)]
        size += len(pieces[-2]) + len(pieces[-1])
        last = span.end
        places.append((size, last))
    return "".join([*pieces, without_old(text[last:])]), places


def _moved(span: _Span, places: list[tuple[int, int]]) -> _Span:
    """The span's place in the text that was masked."""
    here, there = places[bisect_left(places, (span.start + 1, 0)) - 1]
    return _at(span, span.start - here + there, span.end - here + there)


def _at(span: _Span, start: int, end: int) -> _Span:
    return replace(span, start=start, end=end)


def _choose(spans: list[_Span]) -> list[_Span]:
    """Of overlapping spans the strongest action, then the longest, then the earliest rule; in order of place."""
    chosen: list[tuple[int, int, _Span]] = []
    for span in sorted(spans, key=lambda s: (RANK[s.action], s.start - s.end, s.order, s.start)):
        place = bisect_left(chosen, (span.start, 0))
        before_ends = place == 0 or chosen[place - 1][1] <= span.start
        if before_ends and (place == len(chosen) or chosen[place][0] >= span.end):
            chosen.insert(place, (span.start, span.end, span))
    return [span for _, _, span in chosen]


def _findings(text: str, spans: list[_Span]) -> Iterator[Finding]:
    line, line_start, last = 1, 0, 0
    for span in spans:  # each character is looked at once: a line may be 50 MiB long and hold a million findings
        line += text.count("\n", last, span.start)
        line_start = max(line_start, text.rfind("\n", last, span.start) + 1)
        last = span.start
        column = span.start - line_start + 1
        yield Finding(span.rule, span.action, span.severity, line, column, span.start, span.end)
