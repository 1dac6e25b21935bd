"""What commands print for people, and standard output whose reader may stop early.

Names and messages are data: a file name can hold an escape sequence that clears the screen, and a newline that forges
a line. All commands print through `say`, `say_text` and `options.print_json`.
"""

from __future__ import annotations

import os
from typing import TextIO

import typer

from codex_ml.core.errors import safe_text, safe_words


def say(line: str = "", *, err: bool = False) -> None:
    """Print one line; what could control a terminal, or begin another line, is an escape.

    Args:
        err: print to standard error.
    """
    typer.echo(safe_words(line), err=err)


def say_text(text: str, *, nl: bool = True) -> None:
    """Print a text of any number of lines; what could control a terminal is an escape."""
    typer.echo(safe_text(text), nl=nl)


class Output:
    """Standard output whose reader, such as `head`, may stop early.

    Later output is then dropped, and the command goes on, so that its exit code is that of its work.

    Attributes:
        is_read: whether the reader was there at the last write; a command whose only work is output may then end.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_read = True

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        self.is_read = False
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
