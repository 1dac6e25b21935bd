"""Find the bodies of Python functions in a source file, and cut a text where a body ends.

Used by: the completions task.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from codex_ml.evaluate.metrics.python_source import parsed

LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")  # as Python counts lines: a form feed does not end one


@dataclass(frozen=True)
class FunctionBody:
    """The place of a body in a source text.

    Attributes:
        start: offset of the first line after the signature, in characters.
        stop: offset after the last character of the body.
        indent: columns of white space before `def`; a line that is indented no deeper ends the body.
    """

    start: int
    stop: int
    indent: int

    def cut(self, text: str) -> str:
        """Return a text up to its first line that is not part of a body, without blank lines at its end."""
        kept: list[str] = []
        for line in text.split("\n"):
            if line.strip() and _indent(line) <= self.indent:
                break
            kept.append(line)
        while kept and not kept[-1].strip():
            kept.pop()
        return "\n".join(kept)


def function_bodies(source: str) -> list[FunctionBody] | None:
    """Return the bodies of the functions and methods of a Python file, in order; None if it does not parse.

    A body begins after the line that ends the signature: comments and the docstring belong to it. A function whose body
    is on the line of its signature is left out.
    """
    tree = parsed(source)
    if tree is None:
        return None
    lines = [match.group() for match in LINE.finditer(source)]
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found = []
    for node in _functions(tree):
        first = _first_line(node.body[0])
        while first - 1 > node.lineno and _is_blank_or_comment(lines[first - 2]):
            first -= 1
        last = node.end_lineno or first
        if first > node.lineno and _ends_signature(lines[first - 2]):
            stop = starts[last - 1] + len(lines[last - 1].rstrip("\r\n"))
            found.append(FunctionBody(starts[first - 1], stop, _indent(lines[node.lineno - 1])))
    return sorted(found, key=lambda body: body.start)


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def _is_blank_or_comment(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _ends_signature(line: str) -> bool:
    """Whether a line can be the last of a signature. False where the first statement shares that line."""
    return line.split("#")[0].rstrip().endswith(":")


def _indent(line: str) -> int:
    expanded = line.expandtabs()
    return len(expanded) - len(expanded.lstrip())
