"""Bodies of Python functions: where they begin and end, and where a text leaves one."""

from __future__ import annotations

import pytest

from codex_ml.evaluate.function_bodies import function_bodies

SOURCE = '''\
import os


@decorated(
    "def no(): of a decorator",
)
def first(
    a: int,  # a comment with a colon:
    b="#",
) -> int:
    # a comment of the body

    """Add."""
    return a + b


class Box:
    def method(self):
        def inner():
            return 1

        return inner


async def later(): await nothing()


def last(): # the end
\tif True:
\t\treturn """
text
"""'''


def test_a_body_begins_after_its_signature_and_ends_with_its_last_statement():
    bodies = [SOURCE[body.start : body.stop] for body in function_bodies(SOURCE)]
    assert bodies == [
        '    # a comment of the body\n\n    """Add."""\n    return a + b',
        "        def inner():\n            return 1\n\n        return inner",
        "            return 1",
        '\tif True:\n\t\treturn """\ntext\n"""',
    ]
    assert [body.indent for body in function_bodies(SOURCE)] == [0, 4, 8, 0]


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_every_kind_of_line_end_counts_as_python_counts_it(end):
    source = end.join(["def f():", "    x = 1 # \x0c \x1e \u2028", "    return x", "", "y = 2"])
    (body,) = function_bodies(source)
    assert source[body.start : body.stop] == end.join(["    x = 1 # \x0c \x1e \u2028", "    return x"])


@pytest.mark.parametrize("source", ["def f(:", "a\0b", "(" * 100_000, "def f():\n" + "    " * 120 + "x"])
def test_what_is_not_python_has_no_answer(source):
    assert function_bodies(source) is None or source.endswith("x")


def test_a_file_without_functions_has_none():
    assert function_bodies("x = 1\nf = lambda: 2\n") == []
    assert function_bodies("") == []


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\n    a\n    b\n\ndef g():\n    c", "\n    a\n    b"),
        (
            "    a\n  # a comment further left stays in a method\n",
            "    a\n  # a comment further left stays in a method",
        ),
        ("    a\n\n\n", "    a"),
        ("x = 1\n    a", ""),
        ("", ""),
        ("\ta\nb", "\ta"),
    ],
)
def test_a_text_is_cut_where_it_leaves_the_function(text, kept):
    (body,) = function_bodies("def f():\n    pass")
    assert body.cut(text) == kept
