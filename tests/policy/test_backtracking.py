"""An expression whose time can explode is refused when the policy is read; the rules that people write are not.

No test takes a time: `Steps` matches as `re` does, and counts the characters that it compares.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from codex_ml.core.errors import UserError
from codex_ml.policy.backtracking import explodes, is_slow, most_steps, rereads
from codex_ml.policy.reach import leaf_matches
from codex_ml.policy.rules import parse_policy

EXPLOSIVE = [
    r"(?:(?:(?=a)){0,4}?[ab])*$", r"(?:(?:(?!b)){0,4}?){0,20}x",
    r"(a+)+$", r"(?:a*)*b", r"(a|a?)+$", r"(\w+\s?)*$", r"(.*,)+x", r"(a?b?)*c", r"((a{1,60}){1,20})b", r"(x+x+)+y",
    r"([a-z]+\d*)+!", r"^(?:(?:[^:]|::)+:?)+$", r"(?:\s*\w*)*;", r"a(?:(?:b+)+c)?", r"(?=(a+)+$)x",
    r"(?:a|a)*$", r"(?:,x?x?)+$", r"(?:,(?:x|x))+$", r"(?:[a-z ]+ *,)+$", r"(?:a*.b)+$",
    "(\u00fc+)+$", "(?:[\u0430-\u044f]+[\u044f-\u0451]?)+x", "(?:\u8a9e+|\u8a9e)*x", "(?i:\u00dc+\u00fc?)+x",
]  # fmt: skip
TAME = [
    r"(?:a+)++$", r"(?>a+)+$", r"([^,]*,)+x", r"(?:\d{1,3}\.){3}\d{1,3}", r"[A-Za-z0-9]{20,}", r"(?:ab|cd)+",
    r"(?:[A-Za-z0-9-]{1,60}\.){1,6}[a-z]{2,9}", r"(?:all|any|the)(?: (?:all|any|the)){0,4}", r"(a)\1+", r"(?:a{3})+",
    r"(?:[a-z](?:[a-z-]{0,61}[a-z])?\.)+$", "(?:\u00fc+\u00e4)+$", "(?:[\u0430-\u044f]+,)+x",
]  # fmt: skip


# Several repetitions share one text, and so the steps grow with a power of its length, or of the limits.
POLYNOMIAL = [
    r"x.*y.*z", r"\s*\w*\s*=", r"\d+\d+x", r"(?:a{0,1000}){3}b", r"a{0,1000}a{0,1000}a{0,1000}b", r"(?:x|y)*\w*z",
    r"(.*?),(.*?),(.*?);", "\u00fc*[\u00fc\u00e4]*b", r"(?=.*x.*y.*z)", r"(?:a{1,60}){1,4}b", r"(?>.*x.*)y",
]  # fmt: skip
BOUNDED = [
    r"x.*y", r"x.*+y", r"x[^;]*;[^,]*,", r"x[^\n]{0,80}y[^\n]{0,80}z", r"\s*+\w*+\s*+=", r"\d{1,20}\d{1,20}x",
    r"\w+\s*=\s*\w+;", r"(?:[^,\n]*,){11}x", r"\s+\S+\s+\S+x", "\u00fc*\u00e4*b",
]  # fmt: skip
# Attempts at many places read the same characters: the steps of all attempts grow with the square of the length.
REREAD = [r"k.*y", r"k.*+y", r"token: [^,]*,", r"[a-z]+@", r"k\w*\d", r"k(?:a|k)*y", r"kk{3,}y", r"(?:k|q:)[^\n]*y"]
READ_ONCE = [r'k"[^"]*"', r"(?<![a-z])k[a-z]*@", r"k[^\n]{0,80}y", r"tok-[a-z]+;", r"k=[a-z]*+;", r"(?:k:|q-)[a-z]*;"]


class Steps:
    """A matcher that tries what Python's `re` tries, in its order, and counts the characters that it compares."""

    def __init__(self, expression: str, text: str) -> None:
        self._tree, self._text, self.count = list(import_module("re._parser").parse(expression)), text, 0

    def matches(self, start: int) -> bool:
        return next(self._sequence(self._tree, start), None) is not None

    def of_all_attempts(self) -> int:
        """The steps of one attempt at each place."""
        for start in range(len(self._text)):
            self.matches(start)
        return self.count

    def _sequence(self, nodes: list[Any], start: int) -> Iterator[int]:
        if not nodes:
            yield start
            return
        for end in self._node(str(nodes[0][0]), nodes[0][1], start):
            yield from self._sequence(nodes[1:], end)

    def _node(self, name: str, value: Any, start: int) -> Iterator[int]:
        if name in ("LITERAL", "NOT_LITERAL", "IN", "ANY"):
            self.count += 1
            more = start < len(self._text) and leaf_matches((name, value), self._text[start])
            yield from [start + 1] if more and (name != "ANY" or self._text[start] != "\n") else []
        elif name == "SUBPATTERN":
            yield from self._sequence(list(value[3]), start)
        elif name == "BRANCH":
            for body in value[1]:
                yield from self._sequence(list(body), start)
        elif name in ("MAX_REPEAT", "MIN_REPEAT"):
            yield from self._rounds(*value, start, name == "MIN_REPEAT")
        elif name == "POSSESSIVE_REPEAT":
            done, end = 0, start
            while done < value[1] and (after := next(self._sequence(list(value[2]), end), None)) is not None:
                done, end = done + 1, after
            yield from [end] if done >= value[0] else []
        elif name == "ATOMIC_GROUP":
            yield from [end for end in [next(self._sequence(list(value), start), None)] if end is not None]
        elif name.startswith("ASSERT"):
            place = start if value[0] > 0 else start - value[1].getwidth()[1]
            found = place >= 0 and next(self._sequence(list(value[1]), place), None) is not None
            yield from [start] if found == (name == "ASSERT") else []
        else:
            raise AssertionError(name)

    def _rounds(self, least: int, most: int, body: list[Any], start: int, lazy: bool) -> Iterator[int]:
        """The ends of rounds, those of the most rounds first; without recursion where a round is one character."""
        if len(body) > 1 or str(body[0][0]) not in ("LITERAL", "NOT_LITERAL", "IN", "ANY"):
            if lazy and least <= 0:
                yield start
            if most:
                for end in self._sequence(list(body), start):
                    yield from self._rounds(max(least - 1, 0), most - 1, body, end, lazy) if end > start else ()
            if not lazy and least <= 0:
                yield start
            return
        ends = [start]
        while len(ends) <= most and (end := next(self._sequence(list(body), ends[-1]), None)) is not None:
            ends.append(end)
        yield from ends[least:] if lazy else reversed(ends[least:])


def hostile(expression: str, size: int) -> list[str]:
    """Texts of characters and pairs of characters that the expression names, repeated."""
    named = sorted({c for c in re.sub(r"\\.|\{[\d,]+\}|\(\?|[\[\](){}|*+?<>^=!$:-]", "", expression) if c != "."}) or [
        "a"
    ]
    units = [
        re.match("[a-z]*:? ?", expression)[0] or "a",
        *named,
        "a",
        " ",
        "1 ",
        ",",
        *(a + b for a in named[:4] for b in named[:4]),
    ]
    return [(unit * size)[:size] for unit in units]


def growth(expression: str, size: int) -> float:
    """How many times more steps all attempts take in a text that is twice as long, at most."""
    pairs = zip(hostile(expression, size), hostile(expression, 2 * size), strict=True)
    return max(
        Steps(expression, long).of_all_attempts() / Steps(expression, short).of_all_attempts() for short, long in pairs
    )


@pytest.mark.parametrize("expression", EXPLOSIVE)
def test_an_expression_that_can_explode_is_known(expression):
    assert explodes(expression)


@pytest.mark.parametrize("expression", TAME)
def test_an_expression_that_cannot_explode_is_let_through(expression):
    assert not explodes(expression)


@pytest.mark.parametrize("expression", POLYNOMIAL)
def test_an_expression_whose_steps_grow_with_a_power_is_known(expression):
    assert is_slow(expression)


@pytest.mark.parametrize("expression", [*BOUNDED, *TAME])
def test_an_expression_whose_steps_are_bounded_is_let_through(expression):
    assert not is_slow(expression)


@pytest.mark.parametrize("expression", REREAD)
def test_an_expression_that_reads_a_line_again_and_again_is_known_and_its_steps_grow_so(expression):
    assert rereads(expression)
    assert growth(expression, 40) > 3


@pytest.mark.parametrize("expression", READ_ONCE)
def test_an_expression_that_reads_a_line_once_is_let_through_and_its_steps_are_linear(expression):
    assert not rereads(expression)
    assert growth(expression, 200) < 2.5


def test_the_texts_at_which_a_rule_is_tried_count():
    assert rereads("k[a-z:]*;") and not rereads("k[a-z:]*;", ["k ", "q="]) and rereads("k[a-z:]*;", ["k ", "q"])


def test_no_attempt_takes_more_steps_than_the_bound():
    """Expressions drawn at random, of which many backtrack; the text has as many characters as the bound is told."""
    rng, far = random.Random(2), 0
    for _ in range(400):
        expression = "".join(
            rng.choice(("a", "b", "[ab]", "[^c]", "(?:a|b[ab])", "(?:ab?)", "(?:a{1,3}c)", "(?=a*b)a"))
            + rng.choice(("", "", "?", "*", "{1,3}", "{0,9}", "*?", "*+", "{2}"))
            for _ in range(rng.randrange(2, 6))
        )
        if explodes(expression):
            continue
        text = "".join(rng.choices("aabc", k=40)) if rng.random() < 0.5 else "a" * 40
        steps = Steps(expression, text)
        found = steps.matches(0)
        assert found == bool(re.match(expression, text)), expression
        bound = most_steps(expression, len(text) + 1)
        assert steps.count <= bound, expression
        far += steps.count > len(text)
    assert far > 20  # expressions that go back over the text


@pytest.mark.parametrize("key", ["pattern", "gate", "run", "until", "allow", "allow_before", "allow_after"])
def test_a_policy_with_such_an_expression_is_refused_with_its_rule_and_line(key):
    value = "['(a+)+$']" if key.startswith("allow") else "'(a+)+$'"
    pattern = "" if key == "pattern" else "    pattern: abc\n"
    text = (
        "version: 1\nrules:\n  - id: mine\n    description: x\n    kind: secret\n    severity: low\n    action: redact\n"
        f"    literals: [abc]\n{pattern}    {key}: {value}\n"
    )
    with pytest.raises(UserError, match=r"rule mine: .*can explode") as caught:
        parse_policy(text, name="policy.yaml")
    assert "\n" not in str(caught.value) and "(a+)++" in str(caught.value)


def test_the_first_of_the_list_does_explode():
    """The control: forty letters keep `re` busy for longer than the child may live."""
    code = "import re; re.search(r'(a+)+$', 'a' * 40 + '!')"
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", code], timeout=2, check=False)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pattern", "abc.*x.*y", "rule mine: pattern: the regular expression can take too many steps: several "),
        ("allow_after", "['a.*x.*y']", "rule mine: allow_after: the regular expression can take too many steps: "),
        ("pattern", "abc.*x", "rule mine: `pattern` can read the rest of a line again from each of many places, as "),
        ("gate", "ab.*c", "rule mine: `gate` can read the rest of a line again from each of many places, as "),
    ],
)
def test_a_policy_with_a_slow_expression_is_refused_with_its_rule(key, value, message):
    pattern = "" if key == "pattern" else "    pattern: abc\n"
    text = (
        "version: 1\nrules:\n  - id: mine\n    description: x\n    kind: secret\n    severity: low\n    action: redact\n"
        f"    literals: [abc]\n{pattern}    {key}: {value}\n"
    )
    with pytest.raises(UserError) as caught:
        parse_policy(text, name="policy.yaml")
    assert message in str(caught.value) and "\n" not in str(caught.value)
