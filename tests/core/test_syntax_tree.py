"""Two files have one digest exactly when they are the same program but for comments, docstrings and layout."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from codex_ml.core.stage import __file__ as stage_file
from codex_ml.core.syntax_tree import canonical, syntax_digest, text_readers

SOURCE = '''\
"""What it is for."""
import math

class Rate:
    """A rate."""
    value: float = 0.1
    names = ("a", f"{math.pi!r:>{8}}")

    def at(self, step: int) -> float:
        return self.value * step

def last(items):
    return items[-1]
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import math", "import math  # noqa: F401"),
        ('"""What it is for."""\n', ""),
        ('"""A rate."""', '"""Something else,\n    on two lines."""'),
        ("0.1", "(0.10)"),
        ('("a", f', "(\n        'a',\n        f"),
        ("    def at", "\n\n    # the step counts from 0\n    def at"),
        ("return items[-1]", "return (items[\n        -1\n    ])"),
        ("value: float = 0.1", "value: float = 0.1  # type: ignore[assignment]"),
        ("def last(items):", "def last(items):\n    'the last one'"),
        ("def last(items):", "def last(items):  # type: (list[int]) -> int"),
        ("\n", "\r\n"),
    ],
)
def test_a_comment_a_docstring_and_the_layout_change_nothing(old: str, new: str) -> None:
    assert SOURCE.replace(old, new) != SOURCE
    assert syntax_digest(SOURCE.replace(old, new).encode()) == syntax_digest(SOURCE.encode())


FIRST, SECOND = SOURCE[SOURCE.index("class") : SOURCE.index("def last")], SOURCE[SOURCE.index("def last") :]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.1", "0.2"),
        ("0.1", "1"),
        ('"a"', 'b"a"'),
        ('"a"', "'# a'"),
        (">{8}", ">{9}"),
        ("!r", "!s"),
        ("items[-1]", "items[+1]"),
        ("items[-1]", "items"),
        ("value: float", "value: int"),
        ("self.value * step", "step * self.value"),
        ("import math\n", ""),
        ("def last", "async def last"),
        ("        return self.value * step", "        1\n        return self.value * step"),
        (FIRST + SECOND, SECOND + "\n" + FIRST),
    ],
)
def test_anything_else_changes_the_digest(old: str, new: str) -> None:
    assert old in SOURCE
    ast.parse(SOURCE.replace(old, new))
    assert syntax_digest(SOURCE.replace(old, new).encode()) != syntax_digest(SOURCE.encode())


def test_a_string_that_is_no_docstring_counts() -> None:
    assert syntax_digest(b"x = 1\n'a'\n") != syntax_digest(b"x = 1\n'b'\n")
    assert syntax_digest(b"def f():\n    b'a'\n") != syntax_digest(b"def f():\n    b'b'\n")
    assert syntax_digest(b"def f():\n    f'a'\n") != syntax_digest(b"def f():\n    f'b'\n")


def test_the_coding_of_a_file_decides_its_strings() -> None:
    latin, utf8 = "x = 'é'".encode("latin-1"), "x = 'é'".encode()
    assert syntax_digest(b"# -*- coding: latin-1 -*-\n" + latin) == syntax_digest(utf8)
    assert syntax_digest(b"# -*- coding: latin-1 -*-\n" + utf8) != syntax_digest(utf8)


@pytest.mark.parametrize("source", [b"def f(:", b"x = \0", b"\xff", b"(" * 500 + b")" * 500, b"x = " + b"9" * 5000])
def test_what_is_no_program_has_no_digest(source: bytes) -> None:
    assert syntax_digest(source) == ""


def test_the_form_is_that_of_every_version_of_python() -> None:
    """The texts are from Python 3.11, 3.12 and 3.13, whose `ast.dump` differ."""
    source = b"# one\ndef f(a, *, b=None):\n    'doc'\n    return f'{a!r:>{b}}' + 'x' u'\\xe9'\n"
    assert canonical(ast.parse(source)) == (
        "Module(body=[FunctionDef(args=arguments(args=[arg(arg='a',)]kw_defaults=[Constant()]kwonlyargs=[arg(arg='b',)])"
        "body=[Return(value=BinOp(left=JoinedStr(values=[FormattedValue(conversion=114,format_spec=JoinedStr(values=["
        "Constant(value='>',)FormattedValue(conversion=-1,value=Name(id='b',))])value=Name(id='a',))])op=Add()"
        "right=Constant(value='x\\xe9',)))]name='f',)])"
    )


def test_code_that_reads_its_own_text_is_found() -> None:
    for text in ("print(f.__doc__)", "getattr(f, '__doc__')", "import linecache", "from inspect import getsource"):
        assert text_readers(text.encode()) == 1
    assert text_readers(SOURCE.encode()) == 0


def test_no_stage_reads_a_docstring_but_for_its_help() -> None:
    """A docstring that decides a byte of an output would have to be part of the digest."""
    package = Path(stage_file).parents[1]
    found = {
        path.relative_to(package).as_posix(): count
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] != "cli" and (count := text_readers(path.read_bytes()))
    }
    assert found == {"core/stage.py": 1}
