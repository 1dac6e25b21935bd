"""Whether a text that a model wrote is Python, as far as it goes. Nothing is executed.

Used by: the parts generated and insecure_code of safety_audit.
"""

from __future__ import annotations

import ast
import warnings

INCOMPLETE = "incomplete input"  # CPython's message where the text ends before the statement does
ALLOW_INCOMPLETE = 0x4000  # PyCF_ALLOW_INCOMPLETE_INPUT, with which CPython gives that message


def syntax_tree(text: str, *, cut: bool = False) -> ast.Module | str | None:
    """Return the syntax tree of a text, or None if it has an error.

    Args:
        cut: whether the text may end inside a statement; it is then no error, and the result is `INCOMPLETE`.
    """
    flags = ast.PyCF_ONLY_AST | (ALLOW_INCOMPLETE if cut else 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an escape such as \d is none of our warnings
            tree = compile(text, "<text>", "exec", flags, dont_inherit=True)
    except SyntaxError as error:
        return INCOMPLETE if cut and error.msg == INCOMPLETE else None
    except (ValueError, RecursionError, MemoryError):  # a NUL, half a surrogate pair; brackets in brackets
        return None
    assert isinstance(tree, ast.Module)
    return tree


def parses(text: str, *, cut: bool = False) -> bool:
    """Whether a text parses; an empty one does not.

    Args:
        cut: whether the text was cut at its end. Its last line is then left out, because a token may be half there,
            and the text parses if there is no error before its end: an open bracket is none.

    >>> parses("f(1)"), parses("f(1"), parses("x = f(1,\\n  2,\\n  thr", cut=True), parses("x = = 1\\ny", cut=True)
    (True, False, True, False)
    """
    if cut:
        text = text[: text.rfind("\n") + 1]
    if not text.strip():
        return False
    return syntax_tree(text, cut=cut) is not None
