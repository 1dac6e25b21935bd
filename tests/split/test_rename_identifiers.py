"""Only local variables get other names, and the program stays the same."""

from __future__ import annotations

import ast
import difflib
import inspect
import statistics
import textwrap
from hashlib import blake2b

import pytest

from codex_ml.split.rename_identifiers import rename_identifiers

CODE = '''\
import os
LIMIT = 3

class Box:
    size = 1

    def fill(self, amount, *rest, **more):
        """total is a word here."""
        total = amount + self.total  # total
        for index, item in enumerate(rest):
            total += item * index
        return dict(total=total, text="total")

def outer():
    count = 0
    def inner():
        nonlocal count
        count += 1
        return count
    return [pair for pair in range(LIMIT)], inner
'''


def test_variables_of_functions_are_renamed_and_nothing_else():
    changed = rename_identifiers(CODE, "python", "s")
    names = {node.id for node in ast.walk(ast.parse(changed)) if isinstance(node, ast.Name)}
    kept = {"LIMIT", "size", "amount", "self", "rest", "enumerate", "dict", "range", "count", "inner"}
    assert kept <= names
    assert not names & {"total", "index", "item", "pair"}
    assert len(names - kept) == 4 and all(name.startswith("v_") for name in names - kept)
    for text in ("self.total", "  # total", '"""total is', 'text="total"', "dict(total=v_", "nonlocal count"):
        assert text in changed
    assert changed.count("\n") == CODE.count("\n")


def test_the_renamed_program_computes_the_same():
    before, after = {}, {}
    exec(CODE, before)  # noqa: S102 - the text is above
    exec(rename_identifiers(CODE, "python", "s"), after)  # noqa: S102
    for made in (before, after):
        box = made["Box"]()
        box.total = 5
        assert box.fill(1, 2, 3, 4) == {"total": 1 + 5 + 0 * 2 + 1 * 3 + 2 * 4, "text": "total"}
        pairs, inner = made["outer"]()
        assert (pairs, inner(), inner()) == ([0, 1, 2], 1, 2)


def test_the_seed_decides_the_names():
    first, again, other = (rename_identifiers(CODE, "python", seed) for seed in ("a", "a", "b"))
    assert first == again != other


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\n",
        "def f(a):\n    return a\n",
        "def f(:\n",
        "def f():\n    a = 1\n    return locals()\n",
        "from m import *\ndef f():\n    a = 1\n    return a\n",
        "def f():\n    a = 1\n    return f'{a}'\n",
        "def f():\n    a = 1\ndef g(a): pass\n",
        "def f():\n    a = 1\nimport a.b\n",
        "def f():\n    global a\n    a = 1\n",
        "def f():\n    list = 1\n    return list\n",
        "def f():\n    class C:\n        a = 1\n    return C.a\n",
        "def f():\n    try: pass\n    except E as a: a = 1\n",
        "def f(x):\n    match x:\n        case [a, *b]: return a, b\n",
        "def f():\n    ﬁ = 1\n    return ﬁ\n",
        "\0",
    ],
)
def test_what_cannot_be_renamed_safely_has_no_copy(text):
    assert rename_identifiers(text, "python", "s") is None


def test_another_language_has_no_copy():
    assert rename_identifiers(CODE, "text", "s") is None


def test_line_ends_and_other_scripts_stay():
    text = "def f():\r\n    s = 'é'; größe = 1; ab = größe\r    return ab\n"
    changed = rename_identifiers(text, "python", "s")
    assert ("'é'; v_" in changed, changed.count("\r"), "größe" in changed) == (True, 2, False)


@pytest.mark.parametrize("module", [textwrap, difflib, statistics])
def test_real_modules_keep_their_tree(module):
    text = inspect.getsource(module)
    changed = rename_identifiers(text, "python", "s")
    assert changed != text
    before, after = ([type(node).__name__ for node in ast.walk(ast.parse(source))] for source in (text, changed))
    assert before == after


def expected(text: str) -> str:
    """`text` with the new name of its one variable `zz`."""
    name = f"v_{blake2b(b's' + bytes(1) + b'zz', digest_size=4).hexdigest()}"
    return text.replace("zz", name)


def test_deep_trees_are_renamed():
    branches = "".join(f"    elif q == {number}: pass\n" for number in range(250))
    text = f"def f(q):\n    zz = 1\n    if q: pass\n{branches}"
    with pytest.raises(RecursionError):
        ast.dump(ast.parse(text))
    assert rename_identifiers(text, "python", "s") == expected(text)


@pytest.mark.parametrize(
    "text", ["def f(q):\n    zz = 1\n    return q" + ".a(zz)" * 300, "(" * 500, "-" * 100_000 + "1"]
)
def test_text_that_is_too_deep_for_python_has_no_copy_and_raises_nothing(text):
    assert rename_identifiers(text, "python", "s") in (None, expected(text))


def test_a_number_with_more_digits_than_python_prints_is_kept():
    text = f"def f():\n    zz = 0x{'f' * 5000}\n    return zz\n"
    with pytest.raises(ValueError, match="Exceeds the limit"):
        ast.dump(ast.parse(text))
    assert rename_identifiers(text, "python", "s") == expected(text)


def test_a_name_of_the_text_that_equals_a_new_name_prevents_the_copy():
    text = "def f():\n    zz = 1\n    return zz\n"
    assert rename_identifiers(text, "python", "s") == expected(text)
    assert rename_identifiers(f"{text}# x{expected('zz')}9\n", "python", "s") is None


def test_every_place_of_a_long_line_is_renamed():
    text = "def f():\n    " + "; ".join(["zz = 'ü'"] * 10_000) + "\n    return zz\n"
    assert rename_identifiers(text, "python", "s") == expected(text)
