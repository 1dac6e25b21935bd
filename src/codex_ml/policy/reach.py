"""How many characters a regular expression can read: its longest match, and the parts of it that have no longest match.

The stream filter holds back what a match in progress may still include. It therefore needs a bound for each rule. The
length of a text is its folded length: of each run without white space at most `RUN` characters count. A repetition
without an upper limit over characters that are not white space stays inside one such run, so it has a bound too.
Used by: horizon.py.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import accumulate
from typing import Any

RUN = 64  # characters of a run without white space that count
_WHITE = [c for c in map(chr, range(0x3001)) if c.isspace()]
_LONG = re.compile(rf"\S{{{RUN + 1},}}")
_IS_WHITE: dict[str, bool] = {}  # node, as text -> whether it can match white space
_CATEGORIES = {
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_DIGIT": str.isdigit,
    "CATEGORY_WORD": lambda c: c.isalnum() or c == "_",
}


@dataclass(frozen=True)
class Reach:
    """How far an expression reads.

    Attributes:
        width: largest folded length of a match together with what its lookaheads read; a group that repeats without
            limit counts once.
        loops: whether a group that may hold white space repeats without limit.
        spaces: the character classes that hold white space and repeat without limit, as nodes of the parse tree.
        behind: most characters that a lookbehind reads.
    """

    width: int = 0
    loops: bool = False
    spaces: tuple[Any, ...] = ()
    behind: int = 0

    def __add__(self, other: Reach) -> Reach:
        return replace(self | other, width=self.width + other.width)

    def __or__(self, other: Reach) -> Reach:
        return Reach(
            max(self.width, other.width),
            self.loops or other.loops,
            self.spaces + other.spaces,
            max(self.behind, other.behind),
        )

    def holds(self, characters: set[str]) -> bool:
        """Whether all these characters belong to the classes `spaces`."""
        return all(any(leaf_matches(node, c) for node in self.spaces) for c in characters)


def reach_of(expression: str) -> Reach:
    """Return how far an expression reads.

    >>> reach_of("tok-[a-z]{8}(?![0-9])").width, reach_of("(?=tok)[a-z]{8}").width
    (13, 8)
    """
    return _sequence(import_module("re._parser").parse(expression), {})


def stays_in_run(expression: str) -> bool:
    """Whether no match holds white space, so that at most `RUN` of its characters count."""
    return _stays(import_module("re._parser").parse(expression))


def _stays(nodes: Any) -> bool:
    return not any(map(_may_be_white, _leaves(nodes)))


def _sequence(nodes: Any, groups: dict[int, Reach]) -> Reach:
    """The reach of nodes one after the other; a lookahead reads the same text as what follows it."""
    found = [(str(operation), _node(str(operation), value, groups)) for operation, value in nodes]
    total = Reach()
    for operation, reach in reversed(found):
        total = reach | total if operation.startswith("ASSERT") else reach + total
    return total


def _node(operation: str, value: Any, groups: dict[int, Reach]) -> Reach:
    if operation in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT"):  # an anchor looks at the next character
        return Reach(1)
    if operation == "BRANCH":
        best = Reach()
        for branch in value[1]:
            best |= _sequence(branch, groups)
        return best
    if operation == "SUBPATTERN":
        found = _sequence(value[3], groups)
        if value[0] is not None:
            groups[value[0]] = found
        return found
    if operation == "ATOMIC_GROUP":
        return _sequence(value, groups)
    if operation in ("ASSERT", "ASSERT_NOT"):
        direction, body = value
        return _sequence(body, groups) if direction > 0 else Reach(behind=body.getwidth()[1])
    if operation == "GROUPREF":
        return groups[value]
    if operation == "GROUPREF_EXISTS":
        return _sequence(value[1], groups) | (_sequence(value[2], groups) if value[2] else Reach())
    if operation in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        return _repeated(value[1], value[2], groups)
    raise AssertionError(f"no such operation: {operation}")


def _repeated(most: int, body: Any, groups: dict[int, Reach]) -> Reach:
    """The reach of up to `most` repetitions; `most` may mean that there is no limit."""
    once = _sequence(body, groups)
    consumed = min(body.getwidth()[1], RUN)
    if _stays(body):  # what it consumes lies in one run; only its last lookahead reads more
        return replace(once, width=min(most * consumed, RUN) + once.width - min(consumed, once.width))
    if most != import_module("re._constants").MAXREPEAT:
        return replace(once, width=once.width * most)
    if body.getwidth()[1] == 1:
        return replace(once, spaces=once.spaces + tuple(_leaves(body)))
    return replace(once, loops=True)


def _leaves(nodes: Any) -> Iterator[Any]:
    """The nodes that consume a character."""
    for operation, value in nodes:
        name = str(operation)
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            yield operation, value
        elif name == "BRANCH":
            for branch in value[1]:
                yield from _leaves(branch)
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            yield from _leaves(value[2])
        elif name == "SUBPATTERN":
            yield from _leaves(value[3])
        elif name == "ATOMIC_GROUP":
            yield from _leaves(value)
        elif name.startswith("GROUPREF"):
            yield "ANY", None


def _may_be_white(node: Any) -> bool:
    """Whether a node can match white space; most expressions of a policy have the same few classes."""
    key = str(node)
    if key not in _IS_WHITE:
        _IS_WHITE[key] = any(leaf_matches(node, white) for white in _WHITE)
    return _IS_WHITE[key]


def leaf_matches(node: Any, character: str) -> bool:
    """Whether a node can match a character, in any case."""
    operation, value = str(node[0]), node[1]
    if operation == "ANY":
        return True
    if operation == "NOT_LITERAL":
        return character != chr(value)
    cases = {character, character.lower(), character.upper()}
    if operation == "LITERAL":
        return chr(value) in cases
    negated = bool(value) and str(value[0][0]) == "NEGATE"
    items = value[1:] if negated else value
    if negated:
        return not all(any(_item(item, c) for item in items) for c in cases)
    return any(_item(item, c) for item in items for c in cases)


def _item(item: Any, character: str) -> bool:
    operation, value = str(item[0]), item[1]
    if operation == "LITERAL":
        return ord(character) == value if len(character) == 1 else False
    if operation == "RANGE":
        return len(character) == 1 and value[0] <= ord(character) <= value[1]
    name = str(value)
    return not _CATEGORIES[name.replace("_NOT_", "_")](character) if "_NOT_" in name else _CATEGORIES[name](character)


class FoldedLength:
    """The folded length of the ends of a text: of each run without white space at most `RUN` characters count.

    >>> FoldedLength("a " + "b" * 1000)(0)
    66
    """

    def __init__(self, text: str) -> None:
        self._size = len(text)
        self._runs = [match.span() for match in _LONG.finditer(text)]
        self._starts = [start for start, _ in self._runs]
        excess = [end - start - RUN for start, end in self._runs]
        self._saved = [*reversed(list(accumulate(reversed(excess)))), 0]  # by all runs from this one on

    def __call__(self, start: int) -> int:
        """The folded length of the text from `start` on."""
        place = bisect_left(self._starts, start)
        saved = self._saved[place]
        if place and (rest := self._runs[place - 1][1] - start) > RUN:  # `start` is inside a run
            saved += rest - RUN
        return self._size - start - saved

    def back(self, length: int) -> int:
        """The largest offset from which at least `length` characters count; 0 if the text is shorter."""
        place = bisect_right(range(self._size + 1), -length, key=lambda start: -self(start)) - 1
        return max(place, 0)
