"""Find the values in a text that the policy names. A finding holds the place and the rule, never the value.

rules.py reads the rules and match.py runs them. This module adds the matches in disguised text (hidden.py) and those
of detectors, and removes overlaps. It repeats the scan until a redacted text has nothing left to redact.
Used by: split, safety_audit, filters.py, the Git hooks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace

from codex_ml.policy.detectors import load_detectors, run_detector
from codex_ml.policy.finding import Finding, locate
from codex_ml.policy.hidden import FOLD, decode_base64, reveal
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
        replaced: list[_Span] = []
        while True:
            masked, places = _mask(text, replaced, mark)
            found = [_moved(span, places) for span in self._spans(masked, mark)]
            chosen = _choose(found)
            yield found, chosen
            more = [span for span in chosen if span.action != "allow"]
            if not more:
                return
            replaced = sorted([*replaced, *more], key=lambda span: span.start)

    def _spans(self, text: str, mark: str) -> list[_Span]:
        """What one pass finds: in the text, in the text without disguises, and by the detectors; it may overlap."""
        plain = without_escaped_space(text)
        found = self._confirmed(plain, base64=True)
        if view := reveal(plain):
            for span in self._confirmed(view.text, base64=False):
                found.append(_at(span, *view.original(span.start, span.end)))
        for name, detector in self._detectors.items():
            for rule, start, end in run_detector(name, detector, text):
                known = self._by_id.get(rule)
                action, severity = (known.action, known.severity) if known else ("redact", "high")
                found.append(_Span(start, end, rule, action, severity, len(self.policy.rules)))
        return [span for span in found if mark not in text[max(0, span.start - 1) : span.end + 1]]

    def _confirmed(self, text: str, *, base64: bool) -> list[_Span]:
        matches, places = self.matcher.matches(text)
        spans = [
            _Span(start, end, match.rule.id, match.rule.action, match.rule.severity, match.order)
            for start, end, match in matches
        ]
        return [*spans, *self._in_base64(text, places)] if base64 and places else spans

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
            found = [s for s in self._confirmed(inner, base64=False) if self.policy.rules[s.order].kind != "personal"]
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
    if mark := next((mark for mark in ("\0", *map(chr, range(0xFDD0, 0xFDF0))) if mark not in text), None):
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
    return _at(span, span.start - here + there, span.end - here + there)


def _at(span: _Span, start: int, end: int) -> _Span:
    return replace(span, start=start, end=end)


def _choose(spans: list[_Span]) -> list[_Span]:
    """Drop overlaps: the strongest action wins, then the longest span, then the earliest rule. Sorted by offset."""
    chosen: list[tuple[int, int, _Span]] = []
    for span in sorted(spans, key=lambda s: (RANK[s.action], s.start - s.end, s.order, s.start)):
        place = bisect_left(chosen, (span.start, 0))
        before_ends = place == 0 or chosen[place - 1][1] <= span.start
        if before_ends and (place == len(chosen) or chosen[place][0] >= span.end):
            chosen.insert(place, (span.start, span.end, span))
    return [span for _, _, span in chosen]
