"""An augmenter: comments of Python files in capital letters."""

from __future__ import annotations

import re

COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)


def upper_comments(text: str, language: str, seed: str) -> str | None:
    """Return a changed copy of a train document, or None for no copy.

    Args:
        seed: another text for each document; a random choice must depend on it and on nothing else.
    """
    if language != "python":
        return None
    return COMMENT.sub(lambda match: match[0].upper(), text)
