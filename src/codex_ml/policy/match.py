"""Where rules match: one automaton finds all literals, then each rule's expression runs around its own hits only.

The Aho-Corasick automaton searches the lower-cased text at 280 MB/s on one core, for any number of literals (Python's
`re` needs 0.5 s per rule for 25 MB). Each step walks the text once, also where a line is very long.
Used by: scan.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ahocorasick_rs import AhoCorasick, Implementation

from codex_ml.policy.hidden import base64_forms
from codex_ml.policy.listed_values import SHORTEST, Others, Span, may_be_listed
from codex_ml.policy.rules import Policy, Rule
from codex_ml.policy.validators import VALIDATORS, entropy

CHUNK = 1 << 18  # characters; hits are Python tuples, 150 bytes each, and a text of `@` only is all hits
SHORT = 300  # characters of a value that checks read; the policy's general exceptions apply up to this length
CONTEXT = 100  # characters of the line before a value that `allow_before` sees
NEAR = 8  # characters; no expression of the policy looks further ahead

EIGHT_DIGITS = "[0-9][0-9][0-9][0-9][ -]?[0-9]{4}"  # the gate of card and bank numbers
_EIGHT_ZEROS = re.compile(b"0000[ -]?0000")
_TO_ZERO = bytes(48 if 48 <= byte < 58 else byte for byte in range(256))

WHOLE = frozenset({"jwt", "pem"})  # validators that decode the value and so need all of it
# `\x3dkey`, `\u003dkey`, `%3Dkey`: the letter directly before the key belongs to an escape.
_ESCAPED_EDGE = re.compile(r"\\(?:[abfv0]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})\Z|%[0-9a-fA-F]{2}\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Compiled:
    """A rule with its expressions compiled; `order` is its index in the policy."""

    rule: Rule
    order: int
    pattern: re.Pattern[str]
    gate: re.Pattern[str] | None
    group: str | int
    edge: frozenset[str]
    run: re.Pattern[str] | None
    until: re.Pattern[str] | None
    allow: tuple[re.Pattern[str], ...]
    allow_short: tuple[re.Pattern[str], ...]
    allow_before: tuple[re.Pattern[str], ...]
    allow_after: tuple[re.Pattern[str], ...]

    def confirms(self, text: str, start: int, end: int) -> bool:
        """Whether the value at [start, end) passes the rule's checks and no exception applies to it.

        Checks read the first `SHORT` characters only, so the cost is linear also for a text full of overlapping hits.
        """
        rule = self.rule
        if self.until and not self.until.match(text, end):
            return False
        value = text[start : end if rule.validator in WHOLE else min(end, start + SHORT)]
        if rule.min_entropy and entropy(value) < rule.min_entropy:
            return False
        exceptions = self.allow + self.allow_short if end - start <= SHORT else self.allow
        if any(exception.search(value) for exception in exceptions):
            return False
        if rule.validator and not VALIDATORS[rule.validator](value):
            return False
        if self.allow_before:
            before = text[max(0, start - CONTEXT) : start].rpartition("\n")[2]
            if any(exception.search(before) for exception in self.allow_before):
                return False
        return not any(exception.match(text, end) for exception in self.allow_after)


Match = tuple[int, int, Compiled]  # start and end of the value, and its rule


@dataclass(frozen=True)
class _Trigger:
    """What to do where a literal occurs: try a rule, or decode base64 whose group begins `first` characters before."""

    literal: str | None  # compared again with the text, in its own case; None where case does not matter
    rule: Compiled | None
    first: int = 0


@dataclass
class _Hits:
    """What one walk over the text collects: matches, windows still to search (by rule), and offsets of base64."""

    matches: list[tuple[int, int, Compiled]] = field(default_factory=list)
    windows: dict[int, tuple[Compiled, int, int]] = field(default_factory=dict)
    base64: list[tuple[int, int]] = field(default_factory=list)
    others: dict[int, Others] = field(default_factory=dict)

    def add(self, text: str, rule: Compiled, start: int, end: int) -> None:
        """Try a rule at a hit. Windows that overlap become one, so that no text is searched twice."""
        if not rule.rule.before:
            if match := rule.pattern.match(text, end if rule.rule.names else start):
                self._keep(rule, match)
            return
        low, high = max(0, start - rule.rule.before), min(len(text), end + rule.rule.after)
        if rule.order in self.windows:
            _, old_low, old_high = self.windows[rule.order]
            if low <= old_high:
                self.windows[rule.order] = (rule, min(low, old_low), max(high, old_high))
                return
            self._search(text, rule, old_low, old_high)
        self.windows[rule.order] = (rule, low, high)

    def finish(self, text: str) -> None:
        """Search the last window of each rule."""
        for rule, low, high in self.windows.values():
            self._search(text, rule, low, high)
        self.windows.clear()

    def _search(self, text: str, rule: Compiled, low: int, high: int) -> None:
        for match in rule.pattern.finditer(text, low, high):
            # `endpos` hides the text after it: a match near it may be cut short, or may take it for the text's end.
            whole = match if match.end() + NEAR <= high else rule.pattern.match(text, match.start())
            if whole:
                self._keep(rule, whole)

    def _keep(self, rule: Compiled, match: re.Match[str]) -> None:
        start, end = match.span(rule.group)
        if 0 <= start < end:
            self.matches.append((start, end, rule))
            if rule.rule.many:
                found, _ = others_after(match, rule, self.others)
                self.matches += [(start, end, rule) for start, end in found if end - start >= SHORTEST]


class Matcher:
    """The rules of a policy, compiled, with one automaton over all of their literals."""

    def __init__(self, policy: Policy) -> None:
        triggers: dict[str, list[_Trigger]] = {}
        self._gates: dict[str, tuple[re.Pattern[str], list[Compiled]]] = {}
        for order, rule in enumerate(policy.rules):
            compiled = _compile(policy, rule, order)
            for literal in rule.literals:
                case = None if rule.ignore_case else literal
                triggers.setdefault(_lower(literal), []).append(_Trigger(case, compiled))
                for form, first in _forms(rule, literal):
                    triggers.setdefault(form.lower(), []).append(_Trigger(form, None, first))
            if compiled.gate and not rule.literals:
                self._gates.setdefault(compiled.gate.pattern, (compiled.gate, []))[1].append(compiled)
        self._triggers = [tuple(dict.fromkeys(found)) for found in triggers.values()]
        self._longest = max(map(len, triggers), default=1)
        # A DFA searches 281 MB/s, the default for so many literals 119 MB/s; it takes 2 MB of memory.
        self._automaton = AhoCorasick(list(triggers), implementation=Implementation.DFA) if triggers else None

    def matches(self, text: str) -> tuple[list[Match], list[tuple[int, int]]]:
        """Search a text.

        Returns:
            (confirmed values of all rules, which may overlap; arguments (start, first) for `decode_base64`, one pair
            for each place where base64 may hide a value).
        """
        hits = _Hits()
        for start, end, trigger in self._triggered(text):
            rule = trigger.rule
            if rule is None:
                hits.base64.append((start, trigger.first))
            elif rule.gate is None or rule.gate.match(text, start):
                hits.add(text, rule, start, end)
        for gate, gated in self._gates.values():
            for start, end in _gate_spans(gate, text):
                for rule in gated:
                    hits.add(text, rule, start, end)
        hits.finish(text)
        return confirmed(text, hits.matches), hits.base64

    def begins(self, text: str) -> Iterator[tuple[int, int, Compiled | None]]:
        """Yield (start, end, rule) of each literal or gate at which a rule may match; None for a form of base64."""
        for start, end, trigger in self._triggered(text):
            yield start, end, trigger.rule
        for gate, gated in self._gates.values():
            for start, end in _gate_spans(gate, text):
                yield from ((start, end, rule) for rule in gated)

    @property
    def rules(self) -> list[Compiled]:
        """All rules, compiled; in the order of the policy."""
        found = {trigger.rule for triggers in self._triggers for trigger in triggers if trigger.rule}
        return sorted(found.union(*(gated for _, gated in self._gates.values())), key=lambda rule: rule.order)

    @property
    def longest(self) -> int:
        """Length of the longest literal, base64 forms included, in characters."""
        return self._longest

    def _triggered(self, text: str) -> Iterator[tuple[int, int, _Trigger]]:
        """Every occurrence (start, end, trigger) of every literal, in the right case where case matters."""
        if self._automaton is None:
            return
        for low in range(0, len(text), CHUNK):
            piece = _lower(text[low : low + CHUNK + self._longest])
            try:
                found = self._automaton.find_matches_as_indexes(piece, overlapping=True)
            except UnicodeEncodeError:  # a lone surrogate, which UTF-8 cannot hold
                found = self._automaton.find_matches_as_indexes(_SURROGATE.sub("\ufffd", piece), overlapping=True)
            for number, start, end in found:
                if start < CHUNK:  # later hits belong to the next chunk
                    for trigger in self._triggers[number]:
                        if trigger.literal is None or text.startswith(trigger.literal, low + start):
                            yield low + start, low + end, trigger


def others_after(match: re.Match[str], rule: Compiled, walks: dict[int, Others]) -> tuple[list[Span], int]:
    """The other values of the list or table of a match, and where it ends; `walks` has one walk per rule."""
    if not may_be_listed(match.string, (span := match.span(rule.group))[0]):
        return [], span[1]
    walks.setdefault(rule.order, Others(match.string))
    return walks[rule.order].after(match, span, rule.run)


def confirmed(text: str, matches: list[Match]) -> list[Match]:
    """The matches that pass all checks and touch no `edge` character of their rule, each with its natural end.

    A value of a rule with `run` continues while `run` matches, unless another value begins where its pattern ends. So
    the length in a pattern never cuts a value: `KEYKEY` is two keys, and `xKEY` is not a key.
    """
    matches.sort(key=lambda match: match[:2])
    right: list[Match] = []
    starts: set[int] = set()
    runs: dict[int, tuple[int, int]] = {}
    for start, end, rule in reversed(matches):
        if rule.run and end not in starts:
            end = _natural_end(text, end, rule, runs)
        touches = end < len(text) and text[end] in rule.edge and end not in starts
        if not touches and rule.confirms(text, start, end):
            right.append((start, end, rule))
            starts.add(start)
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


def _compile(policy: Policy, rule: Rule, order: int) -> Compiled:
    flags = re.IGNORECASE if rule.ignore_case else 0
    pattern = re.compile(rule.pattern, flags)
    gate = re.compile(rule.gate, flags) if rule.gate else None
    group: str | int = "value" if "value" in pattern.groupindex else min(pattern.groups, 1)
    edge = frozenset(re.findall(f"[{rule.edge}]", "".join(map(chr, range(128))))) if rule.edge else frozenset()
    general = policy.allow if rule.kind == "secret" else ()
    exceptions = (
        tuple(re.compile(expression) for expression in expressions)
        for expressions in (rule.allow, general, rule.allow_before, rule.allow_after)
    )
    run = re.compile(f"(?:{rule.run})*+") if rule.run else None
    until = re.compile(rule.until) if rule.until else None
    return Compiled(rule, order, pattern, gate, group, edge, run, until, *exceptions)


def _forms(rule: Rule, literal: str) -> Iterator[tuple[str, int]]:
    """The base64 forms of a literal that a credential starts with, or that occurs in an injection."""
    if rule.kind == "secret" and not rule.ignore_case and not rule.before:
        yield from base64_forms(literal).items()
    if rule.kind == "injection":
        for spelt in (literal.lower(), literal.capitalize(), literal.upper()):
            yield from base64_forms(spelt).items()


def _gate_spans(gate: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Every place (start, end) of a gate. A search for zeros in place of digits takes a fifth of the time."""
    if gate.pattern == EIGHT_DIGITS:
        shape = text.encode("ascii", "replace").translate(_TO_ZERO)  # one byte per character
        return (match.span() for match in _EIGHT_ZEROS.finditer(shape))
    return (match.span() for match in gate.finditer(text))


def _lower(text: str) -> str:
    """The text in lower case, of the same length: U+0130 stays, because it would become two and move the offsets."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(c if len(c.lower()) > 1 else c.lower() for c in text)
