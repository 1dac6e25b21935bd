"""Whether a text that a model wrote is Python, as far as it goes. Nothing is executed.

Used by: the part generated of safety_audit.
"""

from __future__ import annotations

import ast
import warnings

INCOMPLETE = "incomplete input"  # CPython's message where the text ends before the statement does
ALLOW_INCOMPLETE = 0x4000  # PyCF_ALLOW_INCOMPLETE_INPUT, with which CPython gives that message


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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an escape such as \d is none of our warnings
            compile(text, "<text>", "exec", ast.PyCF_ONLY_AST | (ALLOW_INCOMPLETE if cut else 0), dont_inherit=True)
    except SyntaxError as error:
        return cut and error.msg == INCOMPLETE
    except (ValueError, RecursionError, MemoryError):  # a NUL; brackets in brackets
        return False
    return True
