"""Name the place in a file at which it differs from the file that ran, which Git may still have.

Used by: verify, accept-code.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import Any

from codex_ml.cli.history.code_edits import CodeEdit
from codex_ml.cli.history.git_commands import files_of_commit, git_text
from codex_ml.core.syntax_tree import DOCUMENTED, canonical, without_docstring

COMMITS = "30"  # of a file, the newest ones


def explained(edit: CodeEdit) -> str:
    """An edit that is a problem, with the place of the first difference where Git has the file that ran."""
    old = _that_ran(edit) if edit.syntax else None
    place = _first(old, Path(edit.path).read_bytes()) if old is not None else ""
    return f"{edit.path}{place} {edit.problem}"


def _that_ran(edit: CodeEdit) -> bytes | None:
    for commit in git_text("rev-list", f"--max-count={COMMITS}", "--all", "--", edit.path).split():
        data = files_of_commit(commit, edit.path).read(edit.path)
        if data is not None and hashlib.md5(data, usedforsecurity=False).hexdigest() == edit.ran:
            return data
    return None


def _first(old: bytes, new: bytes) -> str:
    """ ":LINE (NAME)" of the first difference; "" where one of the two is no program."""
    try:
        line, names = _difference(ast.parse(old), ast.parse(new), 1, [])
    except (SyntaxError, ValueError):
        return ""
    return f":{line}" + (f" ({'.'.join(names)})" if names else "")


def _difference(old: Any, new: Any, line: int, names: list[str]) -> tuple[int, list[str]]:
    """(line, names of the definitions around it) of the first difference of two nodes that differ."""
    line = getattr(new, "lineno", line)
    if type(old) is not type(new) or not isinstance(new, ast.AST):
        return line, names
    if isinstance(new, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        names = [*names, new.name]
    for field in new._fields:
        before: Any = getattr(old, field, None)
        after: Any = getattr(new, field, None)
        if field == "body" and isinstance(new, DOCUMENTED):
            before, after = without_docstring(before), without_docstring(after)
        pairs = list(zip(before, after, strict=False)) if isinstance(after, list) else [(before, after)]
        for one, other in pairs:
            if canonical(one) != canonical(other):
                return _difference(one, other, line, names)
        if isinstance(after, list) and len(before) != len(after):
            extra = after[len(before)] if len(after) > len(before) else None
            return getattr(extra, "lineno", line), names
    return line, names
