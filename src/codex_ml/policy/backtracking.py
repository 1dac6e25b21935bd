"""Refuse regular expressions whose time can explode: Python's `re` tries every way to cut a text into repetitions.

`(a+)+$` takes minutes on thirty letters, because there are 2^29 ways to cut them into groups. `x.*y.*z` takes a day on
a line of a megabyte, because there are 10^12 pairs of places for y and z. A time limit would make the findings depend
on the speed of the machine, so such an expression is refused when the policy is read.

In a group that repeats more than four times, the next character must decide whether a repetition goes on, and which
alternative is taken. So `(a+,)+` is fine, but `(a+,?)+` and `(,a?a?)+` are not. A possessive repetition (`++`) gives no
characters back, so it repeats anything. `most_steps` bounds the steps of an expression that passes.
Used by: rules.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from importlib import import_module
from typing import Any

from codex_ml.policy.reach import leaf_matches

FEW = 4  # repetitions of a group that need no check
LINE = 1 << 20  # characters for which a repetition without an upper limit counts
# Limits of `most_steps`. The bound is far above what texts cause: the largest of the policy is 4e8, and 8e10 in a line.
MOST_STEPS = 10**9
MOST_STEPS_OF_A_LINE = 10**11  # the square of LINE is 10^12
# Characters by which classes are compared: two classes that share any are taken to share one of these. The literals and
# the ends of the ranges of the expression are added: of two ranges that overlap, one begins inside the other one.
_PROBES = frozenset((*map(chr, range(9, 14)), *map(chr, range(32, 127)), "\u00e9", "\u0416", "\u4e2d", "\u2028"))
_LEAF = ("LITERAL", "NOT_LITERAL", "IN", "ANY")
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT")
_NOTHING: frozenset[str] = frozenset()
_LEAVES = dict[tuple[str, str], frozenset[str]]()


def explodes(expression: str) -> bool:
    """Whether a repeated group of the expression can read one text in several ways.

    >>> explodes("(?:a+)+$"), explodes("(?:a+,)+$"), explodes("(?:a+)++$")
    (True, False, False)
    """
    choices = _choices(expression)
    return choices.explodes(choices.nodes)


def most_steps(expression: str, line: int = LINE) -> int:
    """A bound of the steps of one attempt to match, at any place of any text. A step compares one character.

    A repetition without an upper limit counts as `LINE` repetitions, so the bound says what a long line costs.

    >>> most_steps("a{1,9}b"), most_steps("[ab]{1,9}b"), most_steps("[ab]{1,9}b{1,9}c") < 200
    (19, 18, True)
    """
    choices = _choices(expression)
    return choices.steps(choices.nodes, _NOTHING, line)[0]


def is_slow(expression: str) -> bool:
    """Whether one attempt to match can take a power of the length of a line, or too many steps in any text.

    >>> is_slow("x.*y.*z"), is_slow("x.*y"), is_slow("(a{0,1000}){3}b")
    (True, False, True)
    """
    of_a_line = most_steps(expression)
    return of_a_line > MOST_STEPS and (of_a_line > MOST_STEPS_OF_A_LINE or most_steps(expression, 1) > MOST_STEPS)


def rereads(expression: str, literals: Collection[str] = ()) -> bool:
    """Whether attempts at many places can read the same characters, each of them up to the end of a line.

    Only repetitions of single characters are examined: `(?:ab)*c` passes. Such a repetition without a limit needs
    a character before it that it cannot hold. Attempts before and after such a character read different texts. Or a
    lookbehind before it lets no attempt begin inside the repetition.

    Args:
        literals: texts at which alone an attempt begins; () where it may begin anywhere.

    >>> rereads("key.*end"), rereads('key"[^"]*"'), rereads("(?<![a-z])key[a-z]*")
    (True, False, False)
    """
    choices = _choices(expression)
    return choices.rereads(choices.nodes, [], literals)


@lru_cache(maxsize=512)  # each expression is asked three questions
def _choices(expression: str) -> _Choices:
    return _Choices(list(import_module("re._parser").parse(expression)))


class _Choices:
    """What the next character decides in an expression; `nodes` is its parse tree."""

    def __init__(self, nodes: list[Any]) -> None:
        self.nodes = nodes
        self._own = frozenset(_ends_of_ranges(nodes)) - _PROBES  # probes of this expression
        self._probes = _PROBES | self._own

    def steps(self, nodes: list[Any], after: frozenset[str], line: int = LINE) -> tuple[int, int]:
        """(steps, ways): a bound of the steps of a sequence, and of the ways to match it that must all be tried.

        Each way to match the beginning of a sequence may be followed by all steps of its rest. `line` is 1 inside a
        repetition without an upper limit: its rounds together read a line once.
        """
        steps, ways = 0, 1
        for place, (name, value) in enumerate(_named(nodes)):
            if name in _LEAF:  # one step and one way, whatever follows
                steps += ways
                continue
            rest, optional = self._first(nodes[place + 1 :])
            follow = rest | after if optional else rest
            if name in _REPEATS:
                more, times = self._repeated(value, follow, self._ends(list(value[2]), nodes[place + 1 :], after), line)
            elif name == "POSSESSIVE_REPEAT":
                rounds, rest_of_line = (line, 1) if int(value[1]) >= LINE else (int(value[1]), line)
                more, times = (self.steps(list(value[2]), _NOTHING, rest_of_line)[0] + 1) * rounds, 1
            elif name == "SUBPATTERN":
                more, times = self.steps(list(value[3]), follow, line)
            elif bodies := _bodies(name, value):
                inner = [self.steps(body, follow, line) for body in bodies]
                more, times = sum(one for one, _ in inner), sum(one for _, one in inner)
                if name not in ("BRANCH", "GROUPREF_EXISTS"):  # a lookaround or an atomic group gives nothing back
                    times = 1
                elif name == "GROUPREF_EXISTS" or self._apart(bodies, follow):
                    times = max(one for _, one in inner)
            else:
                more, times = 1, 1
            steps, ways = steps + ways * more, ways * times
        return steps, ways

    def _repeated(self, value: Any, follow: frozenset[str], ends: bool, line: int) -> tuple[int, int]:
        """As `steps`, of a repetition; `ends`: only one number of rounds fits."""
        least, most, body = int(value[0]), min(int(value[1]), LINE), list(value[2])
        begin, empty = self._first(body)
        once, ways = self.steps(body, begin | follow if most > 1 else follow, 1 if most == LINE else line)
        decided = least == most or (not begin & follow and not empty) or ends
        if ways == 1 or most == LINE:
            return (once + 1) * (line if most == LINE else most), 1 if decided else most - least + 1
        many = min(most, FEW)  # of more rounds, `explodes` knows that the next character decides
        return (once + 1) * most * ways**many, sum(ways**count for count in range(min(least, many), many + 1))

    def rereads(self, nodes: list[Any], before: list[Any], literals: Collection[str]) -> bool:
        """As the function of this name, for a sequence after the nodes `before`."""
        for place, (name, value) in enumerate(_named(nodes)):
            earlier, bodies = before + nodes[:place], _bodies(name, value)
            is_open = name in (*_REPEATS, "POSSESSIVE_REPEAT") and int(value[1]) >= LINE
            if is_open and len(bodies[0]) == 1 and _is_leaf(leaf := bodies[0][0]):
                apart = literals and all(any(not leaf_matches(leaf, c) for c in literal) for literal in literals)
                if not apart and not self._is_fenced(earlier, self._characters(bodies[0])):
                    return True
            if any(self.rereads(body, earlier, literals) for body in bodies):
                return True
        return False

    def _is_fenced(self, nodes: list[Any], held: frozenset[str]) -> bool:
        """Whether a sequence reads a character that is not in `held`, or cannot begin after one that is."""
        for name, value in _named(nodes):
            bodies = _bodies(name, value)
            if name == "ASSERT_NOT":
                fenced = value[0] < 0 and len(bodies[0]) == 1 and held <= self._characters(bodies[0])
            elif name in ("AT", "ASSERT") or (name in (*_REPEATS, "POSSESSIVE_REPEAT") and not value[0]):
                fenced = False
            elif bodies:
                fenced = name != "GROUPREF_EXISTS" and all(self._is_fenced(body, held) for body in bodies)
            else:
                fenced = name != "GROUPREF" and not held & self._characters([(name, value)])
            if fenced:
                return True
        return False

    def _apart(self, bodies: list[list[Any]], follow: frozenset[str]) -> bool:
        """Whether the next character decides which alternative is taken."""
        begins = [self._first(body) for body in bodies]
        sets = [begin | follow if empty else begin for begin, empty in begins]
        return not any(one & other for at, one in enumerate(sets) for other in sets[:at])

    def explodes(self, nodes: list[Any]) -> bool:
        return any(
            (name in _REPEATS and value[1] > FEW and self._round_is_ambiguous(list(value[2])))
            or any(map(self.explodes, _bodies(name, value)))
            for name, value in _named(nodes)
        )

    def _round_is_ambiguous(self, body: list[Any]) -> bool:
        """Whether the next character leaves a choice in a repeated group; a row of single characters has none."""
        return not all(map(_is_leaf, body)) and self._ambiguous(body, self._first(body)[0])

    def _characters(self, nodes: list[Any]) -> frozenset[str]:
        """The characters that a sequence can hold, of `self._probes`."""
        found = _NOTHING
        for name, value in _named(nodes):
            if name not in ("AT", "ASSERT", "ASSERT_NOT"):
                bodies = _bodies(name, value)
                found |= _NOTHING.union(*map(self._characters, bodies)) if bodies else self._first([(name, value)])[0]
        return found

    def _ambiguous(self, nodes: list[Any], after: frozenset[str]) -> bool:
        """Whether the next character leaves a choice inside a sequence that `after` may follow."""
        for place, (name, value) in enumerate(_named(nodes)):
            if name in _LEAF:
                continue
            rest, optional = self._first(nodes[place + 1 :])
            follow = rest | after if optional else rest
            if name in _REPEATS:
                least, most, body = value
                begin, empty = self._first(list(body))  # empty rounds, as of `(?:(?=a)){0,4}`, are ways too
                ends = self._ends(list(body), nodes[place + 1 :], after)
                if (least != most and (empty or (begin & follow and not ends))) or self._ambiguous(
                    list(body), begin | follow if most > 1 else follow
                ):
                    return True
            elif name == "BRANCH":
                begins = [self._first(list(body)) for body in value[1]]
                sets = [begin | follow if empty else begin for begin, empty in begins]
                if any(one & other for at, one in enumerate(sets) for other in sets[:at]):
                    return True
                if any(self._ambiguous(list(body), follow) for body in value[1]):
                    return True
            elif name == "SUBPATTERN" and self._ambiguous(list(value[3]), follow):
                return True
        return False

    def _ends(self, body: list[Any], nodes: list[Any], after: frozenset[str]) -> bool:
        """Whether only one length of a repeated class fits: in `[a-z-]*[a-z],` the last of its characters are fixed."""
        held = self._characters(body)
        for place, node in enumerate(nodes):
            if not _is_leaf(node) or not self._characters([node]) <= held:
                rest, optional = self._first(nodes[place:])
                break
        else:
            place, rest, optional = len(nodes), _NOTHING, True
        return place > 0 and len(body) == 1 and _is_leaf(body[0]) and not held & (rest | after if optional else rest)

    def _of_leaf(self, name: str, value: Any) -> frozenset[str]:
        """The characters that a node of one character can match."""
        key = (name, str(value))
        if key not in _LEAVES:
            _LEAVES[key] = frozenset(c for c in _PROBES if leaf_matches((name, value), c))
        return _LEAVES[key].union(c for c in self._own if leaf_matches((name, value), c)) if self._own else _LEAVES[key]

    def _first(self, nodes: list[Any]) -> tuple[frozenset[str], bool]:
        """Characters with which a sequence may begin, of `self._probes`; whether it may be empty."""
        begin = _NOTHING
        for name, value in _named(nodes):
            if name in ("AT", "ASSERT", "ASSERT_NOT"):
                continue
            bodies = _bodies(name, value)
            if bodies:
                firsts = [self._first(body) for body in bodies]
                found = _NOTHING.union(*(first for first, _ in firsts))
                repeats = name in (*_REPEATS, "POSSESSIVE_REPEAT")
                empty = any(one for _, one in firsts) or (repeats and value[0] == 0)
            else:  # a reference to a group may be empty, and may begin with anything
                reference = name == "GROUPREF"
                found = self._probes if reference else self._of_leaf(name, value)
                empty = reference
            begin |= found
            if not empty:
                return begin, False
        return begin, True


def _named(nodes: list[Any]) -> Iterator[tuple[str, Any]]:
    return ((str(operation), value) for operation, value in nodes)


def _bodies(name: str, value: Any) -> list[list[Any]]:
    """The sequences inside a node."""
    if name in (*_REPEATS, "POSSESSIVE_REPEAT"):
        return [list(value[2])]
    if name == "SUBPATTERN":
        return [list(value[3])]
    if name == "BRANCH":
        return [list(body) for body in value[1]]
    if name == "ATOMIC_GROUP":
        return [list(value)]
    if name in ("ASSERT", "ASSERT_NOT"):
        return [list(value[1])]
    return [list(body) for body in value[1:] if body] if name == "GROUPREF_EXISTS" else []


def _is_leaf(node: Any) -> bool:
    """Whether a node is one character."""
    return str(node[0]) in _LEAF


def _ends_of_ranges(nodes: list[Any]) -> Iterator[str]:
    """The characters that an expression names, in both cases."""
    for name, value in _named(nodes):
        items = value if name == "IN" else [(name, value)] if name in ("LITERAL", "NOT_LITERAL") else []
        for kind, item in _named(list(items)):
            for code in item if kind == "RANGE" else (item,) if "LITERAL" in kind else ():
                yield from (chr(code), chr(code).lower(), chr(code).upper())
        for body in _bodies(name, value):
            yield from _ends_of_ranges(body)
