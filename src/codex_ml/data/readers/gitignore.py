"""Patterns of .gitignore as Git means them (gitignore(5), wildmatch.c), for globs too.

pathspec, which DVC brings, lets a pattern match what lies below the name it matches; Git asks each folder before it
enters it, and the two differ as soon as a pattern is negated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_CLASSES = {
    "alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "blank": r" \t", "digit": "0-9", "lower": "a-z", "punct": r"!-/:-@\[-`{-~",
    "space": r"\s", "upper": "A-Z", "xdigit": "0-9a-fA-F",
}  # fmt: skip


@dataclass(frozen=True)
class Pattern:
    """One line of a .gitignore.

    Attributes:
        expression: for the whole relative name, without a slash at its end.
        negated: takes back what a line before it said.
        folders_only: says nothing about files.
    """

    expression: re.Pattern[str]
    negated: bool
    folders_only: bool

    def matches(self, name: str, *, is_folder: bool) -> bool:
        return (is_folder or not self.folders_only) and self.expression.fullmatch(name) is not None


def parse(text: str) -> list[Pattern]:
    """The patterns of a .gitignore; like for Git, a line that is no pattern says nothing."""
    lines = text.removeprefix("\ufeff").split("\n")
    return [pattern for line in lines if (pattern := _parse_line(line)) is not None]


def _parse_line(line: str) -> Pattern | None:
    line = line.removesuffix("\r")
    while line.endswith(" ") and not line.endswith("\\ "):
        line = line[:-1]
    if not line or line.startswith("#"):
        return None
    negated = line.startswith("!")
    line = line[negated:]
    folders_only = line.endswith("/")
    line = line[:-1] if folders_only else line
    if not line:
        return None
    expression = translate(line)
    return None if expression is None else Pattern(expression, negated, folders_only)


@lru_cache(maxsize=1024)
def translate(glob: str) -> re.Pattern[str] | None:
    """A glob as an expression for whole names; one without a slash is meant at any depth. None for what is no glob."""
    anchored = "/" in glob
    glob = glob.removeprefix("/")
    pieces, place = [] if anchored else ["(?:.*/)?"], 0
    while place < len(glob):
        rest, character = glob[place:], glob[place]
        at_start = place == 0 or glob[place - 1] == "/"
        if at_start and rest.startswith("**/"):
            pieces.append("(?:.*/)?")
            place += 3
        elif at_start and rest == "**":
            pieces.append(".+" if place else ".*")
            place += 2
        elif character == "*":
            pieces.append("[^/]*")
            place += len(rest) - len(rest.lstrip("*"))
        elif character == "?":
            pieces.append("[^/]")
            place += 1
        elif character == "[":
            found = _class(rest)
            if found is None:
                return None
            pieces.append(found[0])
            place += found[1]
        else:
            escaped = character == "\\"
            if escaped and len(rest) == 1:
                return None
            pieces.append(re.escape(rest[escaped]))
            place += 1 + escaped
    try:
        return re.compile("".join(pieces), re.DOTALL)
    except re.error:
        return None


def _class(text: str) -> tuple[str, int] | None:
    """A bracket expression at the start of `text`: (expression, its length), None when it is not closed."""
    negated = text[1:2] in ("!", "^") and bool(text[1:2])
    place = 1 + negated
    items, first = [], True
    while place < len(text) and (text[place] != "]" or first):
        first = False
        if text[place] == "[" and (name := re.match(r"\[:(\w+):\]", text[place:])):
            if name[1] not in _CLASSES:
                return None
            items.append(_CLASSES[name[1]])
            place += len(name[0])
            continue
        place += text[place] == "\\"
        low = text[place : place + 1]
        place += 1
        if text[place : place + 1] == "-" and text[place + 1 : place + 2] not in ("]", ""):
            place += 1 + (text[place + 1] == "\\")
            high = text[place : place + 1]
            place += 1
            if low <= high:
                items.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            items.append(re.escape(low))
    if place >= len(text):
        return None
    inner = "".join(items)
    if not inner:
        return ("[^/]" if negated else "(?!)"), place + 1
    return f"(?!/)[{'^' if negated else ''}{inner}]", place + 1
