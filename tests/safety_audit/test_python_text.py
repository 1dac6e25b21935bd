"""Whether text is Python, as far as it goes."""

from __future__ import annotations

import pytest

from codex_ml.safety_audit.python_text import parses


@pytest.mark.parametrize(
    ("text", "whole", "cut"),
    [
        ("x = 1\n", True, True),
        ("import os\nos.system('ls')  # nosec\n", True, True),
        ("def f(a,\n      b", False, True),
        ("class A:\n    def f(self):\n        return [1,\n", False, True),
        ('"""A text\nthat goes on\n', False, True),
        ("if x:\n", False, True),
        ("def f(:\n    pass\n", False, False),
        ("x = = 1\ny = 2\n", False, False),
        ("if x:\n  a\n else:\n  b\n", False, False),
        ("print 'Python 2'\nx = 1\n", False, False),
        ("x = 1\0\ny = 2\n", False, False),
        ("x = 08\ny = 1\n", False, False),
        ("(" * 300 + "\n", False, False),
        ("no line break", False, False),
        ("x", True, False),  # a cut line is left out, and nothing remains
        ("", False, False),
        (" \n\n\t\n", False, False),
        ("x = '\\d'\n", True, True),
    ],
)
def test_known_texts(text, whole, cut):
    assert (parses(text), parses(text, cut=True)) == (whole, cut)


def test_nothing_is_executed(tmp_path):
    assert parses(f"open({str(tmp_path / 'made')!r}, 'w')\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("error")
def test_a_warning_of_the_compiler_is_not_shown():
    assert parses("'\\d'\n1 is 1\nassert (1, 'x')\n")
