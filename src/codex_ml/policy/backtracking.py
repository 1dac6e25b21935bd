"""Refuse regular expressions whose time can explode: Python's `re` tries every way to cut a text into repetitions.

`(a+)+$` takes minutes on thirty letters, because there are 2^29 ways to cut them into groups. A time limit would make
the findings depend on the speed of the machine, so such an expression is refused when the policy is read.

In a group that repeats more than four times, the next character must decide whether a repetition goes on, and which
alternative is taken. So `(a+,)+` is fine, but `(a+,?)+` and `(,a?a?)+` are not. A possessive repetition (`++`) gives no
characters back, so it repeats anything.
Used by: rules.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from codex_ml.policy.reach import leaf_matches

FEW = 4  # repetitions of a group that need no check
# Characters by which classes are compared: two classes that share any are taken to share one of these.
_PROBES = (*map(chr, range(9, 14)), *map(chr, range(32, 127)), "\u00e9", "\u0416", "\u4e2d", "\u2028")
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT")
_NOTHING: frozenset[str] = frozenset()


def explodes(expression: str) -> bool:
    """Whether a repeated group of the expression can read one text in several ways.

    >>> explodes("(?:a+)+$"), explodes("(?:a+,)+$"), explodes("(?:a+)++$")
    (True, False, False)
    """
    return _explodes(list(import_module("re._parser").parse(expression)))


def _explodes(nodes: list[Any]) -> bool:
    return any(
        (name in _REPEATS and value[1] > FEW and _ambiguous(list(value[2]), _first(list(value[2]))[0]))
        or any(map(_explodes, _bodies(name, value)))
        for name, value in _named(nodes)
    )


def _characters(nodes: list[Any]) -> frozenset[str]:
    """The characters that a sequence can hold, of `_PROBES`."""
    found = _NOTHING
    for name, value in _named(nodes):
        if name not in ("AT", "ASSERT", "ASSERT_NOT"):
            bodies = _bodies(name, value)
            found |= _NOTHING.union(*map(_characters, bodies)) if bodies else _first([(name, value)])[0]
    return found


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


def _ambiguous(nodes: list[Any], after: frozenset[str]) -> bool:
    """Whether the next character leaves a choice inside a sequence that `after` may follow."""
    for place, (name, value) in enumerate(_named(nodes)):
        rest, optional = _first(nodes[place + 1 :])
        follow = rest | after if optional else rest
        if name in _REPEATS:
            least, most, body = value
            begin = _first(list(body))[0]
            open_end = least != most and begin & follow and not _ends(list(body), nodes[place + 1 :], after)
            if open_end or _ambiguous(list(body), begin | follow if most > 1 else follow):
                return True
        elif name == "BRANCH":
            begins = [_first(list(body)) for body in value[1]]
            sets = [begin | follow if empty else begin for begin, empty in begins]
            if any(one & other for at, one in enumerate(sets) for other in sets[:at]):
                return True
            if any(_ambiguous(list(body), follow) for body in value[1]):
                return True
        elif name == "SUBPATTERN" and _ambiguous(list(value[3]), follow):
            return True
    return False


def _ends(body: list[Any], nodes: list[Any], after: frozenset[str]) -> bool:
    """Whether only one length of a repeated class fits: as in `[a-z-]*[a-z],`, the last of its characters are fixed."""
    held = _characters(body)
    for place, node in enumerate(nodes):
        if not _is_leaf(node) or not _characters([node]) <= held:
            rest, optional = _first(nodes[place:])
            break
    else:
        place, rest, optional = len(nodes), _NOTHING, True
    return place > 0 and len(body) == 1 and _is_leaf(body[0]) and not held & (rest | after if optional else rest)


def _is_leaf(node: Any) -> bool:
    """Whether a node is one character."""
    return str(node[0]) in ("LITERAL", "NOT_LITERAL", "IN", "ANY")


def _first(nodes: list[Any]) -> tuple[frozenset[str], bool]:
    """Characters with which a sequence may begin, of `_PROBES`; whether it may be empty."""
    begin = _NOTHING
    for name, value in _named(nodes):
        if name in ("AT", "ASSERT", "ASSERT_NOT"):
            continue
        bodies = _bodies(name, value)
        if bodies:
            firsts = [_first(body) for body in bodies]
            found = _NOTHING.union(*(first for first, _ in firsts))
            repeats = name in (*_REPEATS, "POSSESSIVE_REPEAT")
            empty = any(one for _, one in firsts) or (repeats and value[0] == 0)
        else:  # a reference to a group may be empty, and may begin with anything
            reference = name == "GROUPREF"
            found = frozenset(c for c in _PROBES if reference or leaf_matches((name, value), c))
            empty = reference
        begin |= found
        if not empty:
            return begin, False
    return begin, True
