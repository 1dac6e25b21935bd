"""Where rules match: one automaton finds all literals, then each rule's expression runs around its own hits only.

The Aho-Corasick automaton searches the lower-cased text at 280 MB/s on one core, for any number of literals (Python's
`re` needs 0.5 s per rule for 25 MB). Each step walks the text once, also where a line is very long.
Used by: scan.py.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from operator import neg
from typing import NamedTuple

from ahocorasick_rs import BytesAhoCorasick, Implementation

from codex_ml.policy.compiled import Compiled, compile_rule, others_after
from codex_ml.policy.extent import NEAR
from codex_ml.policy.listed_values import SHORTEST, Others, Span
from codex_ml.policy.literals import SEARCHED, Trigger, lower, triggers_of
from codex_ml.policy.nearby import BASE64, LISTED, MAX_GATE, Locality, Nearby
from codex_ml.policy.rules import Policy

CHUNK = 1 << 18  # characters; hits are Python tuples, 150 bytes each, and a text of `@` only is all hits

EIGHT_DIGITS = "[0-9][0-9][0-9][0-9][ -]?[0-9]{4}"  # the gate of card and bank numbers
_EIGHT_ZEROS = re.compile(b"0000[ -]?0000")
_DIGITS = 9  # characters of that gate, at most

# `\x3dkey`, `\u003dkey`, `%3Dkey`: the letter directly before the key belongs to an escape.
_ESCAPED_EDGE = re.compile(r"\\(?:[abfv0]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})\Z|%[0-9a-fA-F]{2}\Z")

Match = tuple[int, int, Compiled]  # start and end of the value, and its rule


class Matched(NamedTuple):
    """What a search found.

    Attributes:
        values: confirmed values of all rules, which may overlap.
        base64: arguments (start, first) for `decode_base64`, one pair for each place where base64 may hide a value.
        tried: indexes of the rules that were tried; `BASE64` if there is such a place, `LISTED` for a list of values.
        crossed: whether a search of parts of the text may have missed something.
    """

    values: list[Match]
    base64: list[tuple[int, int]]
    tried: set[int]
    crossed: bool


class _Hits:
    """What one walk over the text collects: matches, windows still to search (by rule) and those searched."""

    def __init__(self) -> None:
        self.matches: list[Match] = []
        self.searched: list[Span] = []
        self.listed = False  # whether a list of values was found
        self._others: dict[int, Others] = {}
        self._windows: dict[int, tuple[Compiled, int, int]] = {}

    def widen(self, text: str, rule: Compiled, start: int, end: int) -> None:
        """Search around a hit. Windows that overlap become one, so that no text is searched twice."""
        low, high = max(0, start - rule.before), min(len(text), end + rule.after)
        if rule.order in self._windows:
            _, old_low, old_high = self._windows[rule.order]
            if low <= old_high:
                self._windows[rule.order] = (rule, min(low, old_low), max(high, old_high))
                return
            self._search(text, rule, old_low, old_high)
        self._windows[rule.order] = (rule, low, high)

    def finish(self, text: str) -> None:
        """Search the last window of each rule."""
        for rule, low, high in self._windows.values():
            self._search(text, rule, low, high)

    def _search(self, text: str, rule: Compiled, low: int, high: int) -> None:
        self.searched.append((low, high))
        for match in rule.pattern.finditer(text, low, high):
            # `endpos` hides the text after it: a match near it may be cut short, or may take it for the text's end.
            whole = match if match.end() + NEAR <= high else rule.pattern.match(text, match.start())
            if whole:
                self.keep(rule, whole)

    def keep(self, rule: Compiled, match: re.Match[str]) -> None:
        """Note the value of a match."""
        start, end = match.span(rule.group)
        if 0 <= start < end:
            self.matches.append((start, end, rule))
            if rule.rule.many:
                found, _ = others_after(match, rule, self._others)
                self.matches += [(start, end, rule) for start, end in found if end - start >= SHORTEST]
                self.listed |= bool(found)


class Matcher:
    """The rules of a policy, compiled, with one automaton over all of their literals."""

    def __init__(self, policy: Policy) -> None:
        triggers: dict[str, list[Trigger]] = {}
        gates: dict[re.Pattern[str], list[Compiled]] = {}
        for order, rule in enumerate(policy.rules):
            compiled = compile_rule(policy, rule, order)
            for literal, trigger in triggers_of(compiled):
                triggers.setdefault(literal, []).append(trigger)
            if compiled.gate and not rule.literals:
                gates.setdefault(compiled.gate, []).append(compiled)
        self._of_eight_digits = [Trigger("", rule) for rule in gates.pop(re.compile(EIGHT_DIGITS), [])]
        self._gates = gates
        self._triggers = [tuple(dict.fromkeys(found)) for found in triggers.values()]
        self._longest = max(map(len, triggers), default=1)
        # A DFA searches 281 MB/s, the default for so many literals 119 MB/s; it takes 2 MB of memory. The automaton of
        # bytes needs a quarter less time than that of texts.
        self._sizes = [len(literal) for literal in triggers]
        data = [literal.encode("utf-8", "surrogatepass") for literal in triggers]
        self._automaton = BytesAhoCorasick(data, implementation=Implementation.DFA) if triggers else None

    def matches(self, text: str, near: Nearby | None = None) -> Matched:
        """Search a text, or only its parts near a change."""
        hits, base64, tried = _Hits(), list[Span](), set[int]()
        for low, high in near.outer if near else ((0, len(text)),):
            for start, end, trigger in self._triggered(text, low, high):
                rule = trigger.rule
                if rule is None:
                    base64.append((start, trigger.first))
                    tried.add(BASE64)
                elif rule.gate is None or rule.gate.match(text, start):
                    tried.add(rule.order)
                    if rule.before:
                        hits.widen(text, rule, start, end)
                    elif match := rule.pattern.match(text, end if rule.after_name else start):
                        hits.keep(rule, match)
            for start, end, rule in self._gated(text, low, high):
                tried.add(rule.order)
                if rule.before:
                    hits.widen(text, rule, start, end)
                elif match := rule.pattern.match(text, start):
                    hits.keep(rule, match)
        hits.finish(text)
        if hits.listed:
            tried.add(LISTED)
        crossed = near is not None and near.crossed(hits.searched)
        return Matched(confirmed(text, hits.matches), base64, tried, crossed)

    def begins(self, text: str) -> Iterator[tuple[int, int, Compiled | None]]:
        """Yield (start, end, rule) of each literal or gate at which a rule may match; None for a form of base64."""
        for start, end, trigger in self._triggered(text, 0, len(text)):
            yield start, end, trigger.rule
        yield from self._gated(text, 0, len(text))

    @cached_property
    def locality(self) -> Locality:
        """How far a change of a text reaches."""
        return Locality({rule.order: rule.rule for rule in self.rules})

    @property
    def rules(self) -> list[Compiled]:
        """All rules, compiled; in the order of the policy."""
        tried = (*self._triggers, self._of_eight_digits)
        found = {trigger.rule for triggers in tried for trigger in triggers if trigger.rule}
        gated = [rule for rules in self._gates.values() for rule in rules]
        return sorted(found.union(gated), key=lambda rule: rule.order)

    @property
    def longest(self) -> int:
        """Length of the longest literal, base64 forms included, in characters."""
        return self._longest

    def _triggered(self, text: str, first: int, last: int) -> Iterator[tuple[int, int, Trigger]]:
        """Every occurrence (start, end, trigger) of every literal and of eight digits from `first` on.

        It begins before `last` and may end after it.
        """
        for low in range(first, last, CHUNK):
            size = min(CHUNK, last - low)
            piece = text[low : low + size + max(self._longest, _DIGITS)]
            ascii_only = piece.isascii()  # then one byte is one character
            data = (piece if ascii_only else lower(piece)).encode("utf-8", "surrogatepass").translate(SEARCHED)
            found = self._automaton.find_matches_as_indexes(data, overlapping=True) if self._automaton else []
            for number, start, end in found if ascii_only else self._in_characters(data, found):
                if start < size:  # later hits belong to the next chunk
                    for trigger in self._triggers[number]:
                        if not trigger.literal or trigger.stands(text, low + start, low + end):
                            yield low + start, low + end, trigger
            if self._of_eight_digits:
                shape = data if ascii_only else piece.encode("ascii", "replace").translate(SEARCHED)
                for zeros in _EIGHT_ZEROS.finditer(shape):
                    if zeros.start() < size:
                        yield from ((low + zeros.start(), low + zeros.end(), one) for one in self._of_eight_digits)

    def _gated(self, text: str, low: int, high: int) -> Iterator[tuple[int, int, Compiled]]:
        """Every place (start, end) of every gate that begins from `low` to `high`, with each of its rules."""
        last = min(len(text), high + MAX_GATE)
        for gate, rules in self._gates.items():
            for match in gate.finditer(text, low, last):
                if match.start() < high:
                    for rule in rules:
                        yield *match.span(), rule

    def _in_characters(self, data: bytes, found: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
        """The hits, which are in order of their ends, with offsets in characters instead of bytes of UTF-8."""
        place = last = 0
        for number, _, end in found:
            place += len(data[last:end].decode("utf-8", "surrogatepass"))
            last = end
            yield number, place - self._sizes[number], place


def confirmed(text: str, matches: list[Match]) -> list[Match]:
    """The matches that pass all checks and touch no `edge` character of their rule, each with its natural end.

    A value of a rule with `run` continues while `run` matches, unless another value begins where its pattern ends. So
    the length in a pattern never cuts a value: `KEYKEY` is two keys, and `xKEY` is not a key. A value that passes only
    up to the next one ends there. The next pass would find it before the placeholder, but a row of a thousand such
    values would take a thousand passes.
    """
    matches.sort(key=lambda match: match[:2])
    right: list[Match] = []
    starts: set[int] = set()
    whole: list[int] = []  # starts of values that touch no `edge`, from right to left
    runs: dict[int, tuple[int, int]] = {}
    for start, end, rule in reversed(matches):
        least = end
        if rule.run and end not in starts:
            end = _natural_end(text, end, rule, runs)
        touches = end < len(text) and text[end] in rule.edge and end not in starts
        if touches or not rule.confirms(text, start, end):
            place = bisect_right(whole, -least, key=neg) - 1
            end = whole[place] if place >= 0 and whole[place] < end else 0
            if not end or not rule.confirms_before_mark(text, start, end):
                continue
        right.append((start, end, rule))
        starts.add(start)
        if rule.rule.action != "allow" and text[start - 1 : start] not in rule.edge:
            whole.append(start)
    clean, ends = [], set()
    for match in reversed(right):
        start, end, rule = match
        before = text[start - 1 : start]
        if before not in rule.edge or start in ends or _ESCAPED_EDGE.search(text, max(0, start - 6), start):
            clean.append(match)
            ends.add(end)
    return clean


def _natural_end(text: str, end: int, rule: Compiled, runs: dict[int, tuple[int, int]]) -> int:
    """Offset at which the run that includes `end` stops; full stops at its end belong to the prose.

    Matches come from right to left. `runs` holds the last run of each rule, so no character is read twice.
    """
    assert rule.run is not None
    low, high = runs.get(rule.order, (len(text), len(text)))
    if not low <= end <= high:
        walked = rule.run.match(text, end, low if end < low else len(text))
        assert walked is not None  # it may be empty
        low, high = end, high if walked.end() == low else walked.end()
    runs[rule.order] = (low, high)
    while high > end and text[high - 1] == ".":
        high -= 1
    return high
