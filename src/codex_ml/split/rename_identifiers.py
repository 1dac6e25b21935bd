"""The augmenter `rename_identifiers`: a Python file with other names for the local variables of its functions.

Only names that are nothing else anywhere in the file are renamed: no parameter (a caller may name it), no import, no
function, class, module or class variable, no builtin, and no name inside an f-string. Attributes, keywords of calls,
strings and comments stay. The result is parsed, and its tree must be that of the original after the names are undone.
Used by: split.augment.
"""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections.abc import Iterator
from hashlib import blake2b
from itertools import accumulate
from typing import Any

LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|\Z)")  # as Python's parser counts lines
NEW = re.compile("v_[0-9a-f]{8}")  # the form of a new name; two places of it cannot overlap
BY_NAME = {"locals", "vars", "eval", "exec", "globals", "dir"}  # a program with these may use the name itself
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def rename_identifiers(text: str, language: str, seed: str) -> str | None:
    """Return the file with renamed local variables; None if it is not Python or has nothing to rename.

    Args:
        seed: decides the new names; the same arguments give the same text.
    """
    if language != "python" or (tree := _parsed(text)) is None:
        return None
    names = _local_names(tree)
    new = {name: f"v_{blake2b(f'{seed}{chr(0)}{name}'.encode(), digest_size=4).hexdigest()}" for name in names}
    if not new or len(set(new.values())) < len(new) or not set(NEW.findall(text)).isdisjoint(new.values()):
        return None
    changed = _replaced(text, tree, new)
    if changed is None or (again := _parsed(changed)) is None:
        return None
    undo = {renamed: name for name, renamed in new.items()}
    for node in ast.walk(again):
        if isinstance(node, ast.Name):
            node.id = undo.get(node.id, node.id)
    return changed if _same(again, tree) else None


def _parsed(text: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes in the strings of a document
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _local_names(tree: ast.Module) -> list[str]:
    """Names that are only local variables of functions, sorted."""
    local: set[str] = set()
    other = set(dir(builtins))
    for node, inside in _nodes(tree, in_function=False):
        if isinstance(node, ast.Name):
            if node.id in BY_NAME:
                return []
            if isinstance(node.ctx, ast.Store):
                (local if inside else other).add(node.id)
        elif isinstance(node, ast.JoinedStr):  # before Python 3.12, names inside one have no place
            other |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        else:
            other |= _other_names(node)
        if isinstance(node, ast.alias) and node.name == "*":
            return []
    return sorted(name for name in local - other if not name.startswith("__") and name != "_")


def _nodes(tree: ast.AST, *, in_function: bool) -> Iterator[tuple[ast.AST, bool]]:
    """(node, whether its names belong to a function) of a tree; a class inside a function has names of its own."""
    stack = [(tree, in_function)]
    while stack:
        node, inside = stack.pop()
        yield node, inside
        below = True if isinstance(node, FUNCTIONS) else False if isinstance(node, ast.ClassDef) else inside
        stack += [(child, below) for child in ast.iter_child_nodes(node)]


def _other_names(node: ast.AST) -> set[str]:
    """Names that a node uses or binds in another way than a variable."""
    found: set[str] = set()
    if isinstance(node, ast.keyword):  # its name belongs to the function that is called
        return found
    for field, value in ast.iter_fields(node):
        if field in ("name", "names", "asname", "arg", "rest"):
            values = value if isinstance(value, list) else [value]
            found |= {part for name in values if isinstance(name, str) for part in name.split(".")}
    return found


def _replaced(text: str, tree: ast.Module, new: dict[str, str]) -> str | None:
    """The text with new names at the places of the tree; None where a place does not hold its name."""
    data = text.encode("utf-8")
    starts = list(accumulate(map(len, LINE.findall(data)), initial=0))
    places = {
        (starts[node.lineno - 1] + node.col_offset, node.id)
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in new
    }
    pieces, done = list[bytes](), 0  # the bytes before `done` are in `pieces`
    for start, name in sorted(places):
        old = name.encode()
        if data[start : start + len(old)] != old:  # an identifier that Python normalises (NFKC)
            return None
        pieces += [data[done:start], new[name].encode()]
        done = start + len(old)
    return b"".join([*pieces, data[done:]]).decode("utf-8")


def _same(one: ast.AST, other: ast.AST) -> bool:
    """Whether two trees are equal, their places aside. `ast.dump` would recurse: 230 branches `elif` are too deep."""
    stack: list[tuple[Any, Any]] = [(one, other)]
    while stack:
        left, right = stack.pop()
        if type(left) is not type(right):
            return False
        if isinstance(left, ast.AST):
            stack += [(getattr(left, field, None), getattr(right, field, None)) for field in left._fields]
        elif isinstance(left, list):
            if len(left) != len(right):
                return False
            stack += zip(left, right, strict=True)
        elif left != right:
            return False
    return True
