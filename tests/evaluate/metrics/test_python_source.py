"""Metrics of Python: what parses, how complex it is, which texts are the same code; hostile outputs cost little."""

from __future__ import annotations

import math
import sys
import warnings

import numpy as np
import pytest

from codex_ml.evaluate.metrics.lexing import CHARACTERS
from codex_ml.evaluate.metrics.protocol import Pair
from codex_ml.evaluate.metrics.python_source import PROMPT_CHARACTERS, parsed
from codex_ml.evaluate.metrics.registry import load_metrics

DEF = "def f(x):\n"


@pytest.mark.parametrize(
    ("output", "rate"),
    [
        ("    return x\n", 1),
        ("    return x\n    y = (1 +", 1),  # the limit of tokens cut the last line
        ("    y = (1 +", 0),
        ("    y = (1 +\n\n", 0),
        ("return x\n", 0),  # not indented
        ("", 0),
        (" \n", 0),
        ("    print 'x'\n", 0),  # Python 2
        ("    return '\\d'\n", 1),  # an invalid escape sequence is a warning
        ("    return 1\0\n", 0),
        ("    return '\ud800'\n", 0),  # cannot be UTF-8
        ("    return x\r\n    y = (", 1),
    ],
)
def test_parse_rate_parses_prompt_and_output(value_of, output, rate):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert value_of("parse_rate", (output, ""), prompt=DEF, language="python") == rate


def test_a_prompt_that_parses_alone_is_not_enough(value_of):
    prompt = 'def f(x):\n    """Double."""\n'
    assert value_of("parse_rate", ("", ""), prompt=prompt, language="python") == 0
    assert value_of("parse_rate", ("\n(((", ""), prompt=prompt, language="python") == 0


def test_only_python_counts(value_of):
    assert math.isnan(value_of("parse_rate", ("x = 1", ""), language="rust"))
    assert value_of("parse_rate", ("x = 1", ""), language="Python") == 1
    assert math.isnan(value_of("complexity", ("def f(): pass", ""), language="text"))


# By hand: 1, and 1 more per if, elif, for, while, except.
COMPLEXITIES = [
    ("    return x\n", 1),
    ("    if x:\n        return 1\n    return 2\n", 2),
    ("    if x:\n        return 1\n    elif x > 1:\n        return 2\n    else:\n        return 3\n", 3),
    ("    for y in x:\n        while y:\n            y -= 1\n", 3),
    (
        "    try:\n        return 1\n    except KeyError:\n        return 2\n    except ValueError:\n        return 3\n",
        4,
    ),
    ("    return x\n\n\nclass A:\n    def m(self):\n        if self:\n            return 1\n", 1.5),
    ("    return x\n\n\nasync def g():\n    pass\n\n\ndef g():\n    if g:\n        pass\n", 4 / 3),  # both functions g
]


@pytest.mark.parametrize(("output", "complexity"), COMPLEXITIES)
def test_complexity_by_hand(value_of, output, complexity):
    assert value_of("complexity", (output, ""), prompt=DEF, language="python") == pytest.approx(complexity)


def test_functions_that_end_in_the_prompt_are_not_the_models(value_of):
    prompt = "def a(x):\n    for y in x:\n        if y:\n            return 1\n\n\ndef b(x):\n    if x:\n"
    assert value_of("complexity", ("        return 2\n", ""), prompt=prompt, language="python") == 2
    assert math.isnan(value_of("complexity", ("y = 1\n", ""), prompt="def a():\n    pass\n", language="python"))


def test_the_reference_shows_what_the_best_output_reaches(value_of):
    pairs = [
        ("    return (\n", "    return x\n"),
        ("    return x\n", "    y = [\n"),
        ("(", "    if x:\n        pass\n"),
    ]
    assert value_of("parse_rate", *pairs, prompt=DEF, language="python") == 1 / 3
    assert value_of("reference_parse_rate", *pairs, prompt=DEF, language="python") == 2 / 3
    assert value_of("complexity", *pairs, prompt=DEF, language="python") == 1
    assert value_of("reference_complexity", *pairs, prompt=DEF, language="python") == 1.5


@pytest.mark.parametrize(
    ("output", "reference", "same"),
    [
        ("    return x\n", "    return  x  # twice\n", 1),
        ("    return 'x'\n", '    return "x"\n', 1),
        ("    return (x)\n", "    return x\n\n\n", 1),
        ("  return x\n", "    return x\n", 1),
        ("    return 'a  b'\n", "    return 'a b'\n", 0),  # inside a string white space counts
        ("    return x\n", "    return y\n", 0),
        ("    return x\ny = 1\n", "    return x\n", 0),
        ("    return (\n", "    return  (\n", 1),  # neither parses: by lines
        ("    return (\n", "  return (\n", 0),  # by lines, indentation counts
    ],
)
def test_same_code_in_python(value_of, output, reference, same):
    assert value_of("exact_match_code", (output, reference), prompt=DEF, language="python") == same


@pytest.mark.parametrize(
    ("output", "reference", "same"),
    [
        ("fn  main() {\n\n}", "fn main() {\n}\n", 1),
        ("\tx", "        x", 1),
        ("x", " x", 0),
        ("", "\n", 1),
        ("a b", "ab", 0),
    ],
)
def test_same_code_in_other_languages_is_compared_by_lines(value_of, output, reference, same):
    assert value_of("exact_match_code", (output, reference), language="rust") == same


def test_python_is_part_of_the_signature():
    version = f"python:{sys.version_info.major}.{sys.version_info.minor}"
    for name in ("parse_rate", "complexity", "exact_match_code"):
        assert load_metrics([name])[name].signature.endswith(version)


HOSTILE = {
    "a megabyte of one letter": "x" * (1 << 20),
    "a megabyte of lines": "\n" * (1 << 20),
    "open brackets": "(" * 12_000,
    "199 levels of braces": "{" * 199,
    "nested f-strings": "f'{" * 50,
    "signs": "-" * 12_000 + "1",
    "not": "not " * 6_000 + "1",
    "a sum": "1" + "+1" * 6_000,
    "attributes": "a" + ".b" * 6_000,
    "calls": "a" + "()" * 6_000,
    "lambdas": "lambda:" * 9_000 + "1",
    "conditions": "1 if 1 else " * 2_000 + "1",
    "elif": "if 1: pass\n" + "elif 1: pass\n" * 2_000,
    "99 levels of if": "".join(" " * depth + "if 1:\n" for depth in range(99)) + " " * 99 + "pass\n",
    "functions in functions": "".join(" " * depth + "def f():\n" for depth in range(90)) + " " * 90 + "pass\n",
    "digits": "9" * 12_000,
    "comparisons": "a" + "<a" * 6_000,
    "patterns": "match a:\n case " + "a|" * 6_000 + "a: pass",
    "open comprehensions": "[[a for a in " * 60,
    "null bytes": "a\0b" * 6_000,
    "combining marks": "a" + "\u0301" * (1 << 20),
    "every script": "".join(map(chr, range(0x80, 0x3000))),
    "surrogates": "\udc80\ud800" * 5_000,
}


@pytest.mark.parametrize("output", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_outputs_get_finite_numbers_from_every_metric(output):
    metrics = load_metrics()
    for pair in (Pair("", output, "x = 1\n", "python"), Pair(DEF, output, output, "python")):
        assert np.isfinite(metrics.measure(pair)).all()


def test_an_output_beyond_the_limit_does_not_parse_and_a_prompt_beyond_it_does_not_count(value_of):
    long = "x = 1\n" * (CHARACTERS // 6 + 1)
    assert parsed(long) is not None
    assert value_of("parse_rate", (long, ""), language="python") == 0
    prompt = "x = 1\n" * (PROMPT_CHARACTERS // 6 + 1)
    assert math.isnan(value_of("parse_rate", ("y = 1\n", ""), prompt=prompt, language="python"))
