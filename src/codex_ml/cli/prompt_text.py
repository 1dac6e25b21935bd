"""Read a prompt from a file or from standard input: UTF-8, of a size that the policy reads. Used by: generate."""

from __future__ import annotations

import sys
from pathlib import Path

from codex_ml.core.errors import UserError
from codex_ml.policy.filters import MAX_CHARACTERS

MOST_BYTES = 4 * MAX_CHARACTERS  # a character of UTF-8 has at most four bytes


def read_prompt(file: Path | None) -> str:
    """The text of a file, or of standard input without one, exactly as it is.

    Raises:
        UserError: when it is missing, too long, or not text in UTF-8.
    """
    name = "standard input" if file is None else str(file)
    if file is None:
        data = sys.stdin.buffer.read(MOST_BYTES + 1)
    elif not file.is_file():
        raise UserError(f"{name} {'is not a file' if file.exists() else 'does not exist'}; --file names a text file")
    else:
        with file.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise UserError(f"{name} holds more than {MOST_BYTES} bytes; a prompt must be shorter")
    return as_text(data, name)


def as_text(data: bytes, name: str) -> str:
    """Bytes as text.

    Raises:
        UserError: when they are not text in UTF-8.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 (byte {error.start}); a prompt is text, convert it first") from None
    if "\0" in text:
        raise UserError(f"{name} holds a NUL byte (character {text.index(chr(0))}), so it is not text")
    return text
