"""The digest of a Python file without what changes no result: comments, docstrings and layout.

    # the rate          ->  Module(body=[Assign(targets=[Name(id='lr',)]value=Constant(value=0.1,))])  ->  SHA-256
    lr = (0.1)

Files with the same digest are the same program. The form is not that of `ast.dump`, which differs between the versions
of Python: it has the fields of a node in alphabetical order, leaves out empty ones (newer versions add fields, such as
`type_params`), joins the texts of an f-string, and writes strings in ASCII.

A docstring counts for nothing, because no stage reads one; `text_readers` finds code for which that is not so.

Used by: core.record, `codex-ml accept-code`, `plan`, `verify` and `lineage`.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable
from functools import cache
from typing import Any

ENDING = ".py"
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# The prefix u of a string, comments about types, and what the place of a node decides.
WITHOUT_EFFECT = frozenset({"kind", "type_comment", "type_ignores", "ctx"})
# Names by which a program reads its docstrings or its own text.
READERS = re.compile("__doc__|getdoc|getcomments|getsource|getsourcelines|findsource|linecache")


def syntax_digest(source: bytes) -> str:
    """The SHA-256 of a program without comments, docstrings and layout; "" for what Python cannot parse.

    >>> syntax_digest(b"x = 1  # one") == syntax_digest(b"x = (1)") != syntax_digest(b"x = 2")
    True
    """
    try:
        return hashlib.sha256(canonical(ast.parse(source)).encode("ascii")).hexdigest()
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # ValueError: a null byte, a number of 5,000 digits
        return ""


def canonical(node: Any) -> str:
    """A node of a syntax tree as ASCII text, in the form that the docstring of this module describes."""
    parts: list[str] = []
    _write(node, parts.append)
    return "".join(parts)


def _write(value: Any, put: Callable[[str], None]) -> None:
    if isinstance(value, ast.AST):
        put(f"{type(value).__name__}(")
        for name in _in_order(value._fields):
            inner: Any = getattr(value, name, None)
            if name == "body" and isinstance(value, DOCUMENTED):
                inner = without_docstring(inner)
            elif name == "values" and isinstance(value, ast.JoinedStr):
                inner = _joined(inner)
            if inner is not None and inner != []:
                put(f"{name}=")
                _write(inner, put)
        put(")")
    elif isinstance(value, list):
        put("[")
        for item in value:
            _write(item, put)
        put("]")
    else:
        put(f"{value!a},")


def _joined(parts: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string with neighbouring texts as one; Python 3.12.1 also has empty texts there."""
    found: list[ast.expr] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, ast.Constant) and isinstance(last, ast.Constant):
            found[-1] = ast.Constant(str(last.value) + str(part.value))
        elif not (isinstance(part, ast.Constant) and part.value == ""):
            found.append(part)
    return found


@cache
def _in_order(fields: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*fields} - WITHOUT_EFFECT))


def without_docstring(body: Any) -> Any:
    """The statements of a module, a class or a function without its docstring."""
    first = body[0].value if body and isinstance(body[0], ast.Expr) else None
    return body[1:] if isinstance(first, ast.Constant) and isinstance(first.value, str) else body


def text_readers(source: bytes) -> int:
    """Number of places where a program reads a docstring or its own text, which then can change a result."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):  # what cannot run reads nothing
        return 0
    names = ({getattr(node, field, None) for field in ("id", "attr", "name", "module", "value")} for node in nodes)
    return sum(any(isinstance(name, str) and READERS.fullmatch(name) for name in found) for found in names)
