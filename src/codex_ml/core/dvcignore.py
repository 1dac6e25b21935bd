"""What DVC leaves out of the hash of a folder: the patterns of `.dvcignore` files, and its own list.

The rules are those of dvc/ignore.py, on the same library (pathspec). DVC's class itself would add 0.2 s of imports to
the start of every stage; tests/core/test_dvcignore.py compares the two.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path, PurePosixPath

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import UserError

FILE = ".dvcignore"
Pattern = tuple[str, str]  # the pattern relative to the repository, and its place for messages
BUILT_IN = tuple((text, "dvc") for text in (".hg/", ".git/", ".git", ".dvc/"))  # DvcIgnoreFilter.__init__


class DvcIgnore:
    """Patterns that apply to the entries of one folder; the last one that matches decides.

    Names are relative to the repository, with `/` between their parts.
    """

    def __init__(self, patterns: tuple[Pattern, ...] = BUILT_IN) -> None:
        self.patterns = patterns
        compiled = [_compiled(number, *pattern) for number, pattern in enumerate(patterns)]
        self._groups: list[tuple[re.Pattern[str], bool, bool]] = []
        # consecutive patterns of one kind become one expression: a folder can have 100,000 entries
        for (ignores, folders_only), group in groupby(filter(None, compiled), key=lambda item: item[1:]):
            expressions = "|".join(f"(?:{regex})" for regex, _, _ in group)
            self._groups.insert(0, (re.compile(expressions), ignores, folders_only))

    def matches(self, name: str, *, is_folder: bool) -> bool:
        """Whether an entry is left out, given that no folder above it is."""
        for expression, ignores, folders_only in self._groups:
            if folders_only and not is_folder:
                continue
            if expression.match(name) or (is_folder and expression.match(f"{name}/")):
                return ignores
        return False

    def ignores(self, name: str, *, is_folder: bool) -> bool:
        """Whether an entry, or a folder above it, is left out."""
        parts = name.split("/")
        above = ("/".join(parts[:count]) for count in range(1, len(parts)))
        return any(self.matches(folder, is_folder=True) for folder in above) or self.matches(name, is_folder=is_folder)


def patterns_for(folder: PurePosixPath, root: Path = Path()) -> DvcIgnore:
    """The patterns that apply to the entries of a folder, from the `.dvcignore` files in `root` down to the folder.

    Args:
        folder: relative to `root`.

    Raises:
        UserError: for a `.dvcignore` that DVC cannot read.
    """
    found = DvcIgnore()
    for parent in reversed([folder, *folder.parents]):
        file = parent / FILE
        if (root / file).is_file() and not found.ignores(file.as_posix(), is_folder=False):
            found = DvcIgnore(found.patterns + tuple(_read(root / file, parent)))
    return found


def _read(file: Path, parent: PurePosixPath) -> list[Pattern]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 (byte {error.start}), so DVC cannot read it; save it as UTF-8") from None
    refuse_conflict(text, str(file))
    lines = [line.strip() for line in text.split("\n")]
    below = parent.as_posix()
    found = ((line, f"{file}:{number}") for number, line in enumerate(lines, 1) if line and not line.startswith("#"))
    # a pattern without effect, such as "/", must not get one by the move
    said = (pattern for pattern in found if _compiled(0, *pattern))
    return [(line if below == "." else _moved(line, below), place) for line, place in said]


def _moved(pattern: str, below: str) -> str:
    """The same pattern, relative to the repository instead of to the folder of its file (dvc/pathspec_math.py)."""
    sign, pattern = ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)
    if "/" in pattern[:-1] and not pattern.startswith("**/"):
        return f"{sign}/{below}/{pattern.removeprefix('/').removeprefix(chr(92))}"
    return f"{sign}/{below}/**/{pattern.removeprefix('**/').removeprefix(chr(92))}"


def _compiled(number: int, pattern: str, place: str) -> tuple[str, bool, bool] | None:
    """(regular expression, whether it ignores, whether it matches folders only); None for a pattern without effect."""
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    try:
        expression, ignores = GitIgnoreSpecPattern.pattern_to_regex(pattern)
        if expression is None or ignores is None:
            return None
        expression = expression.replace("<ps_d>", f"<ps_d{number}>")
        re.compile(expression)
    except (ValueError, re.error):
        raise UserError(f"{place}: {pattern!r} is not a valid pattern, and DVC fails on it; remove the line") from None
    return expression, ignores, pattern.endswith("/")
