"""The help of a command, from its docstring. Used by: main."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def help_of(command: Callable[..., Any]) -> str:
    """The docstring with each paragraph on one line, which the terminal breaks where it is full.

    Lines that are indented or begin with `$ ` are to be copied, so they stay lines.

    >>> def command() -> None:
    ...     \"\"\"Do a thing.
    ...
    ...     It takes
    ...     two lines. Then:
    ...     $ codex-ml thing
    ...     \"\"\"
    >>> help_of(command)
    'Do a thing.\\n\\nIt takes two lines. Then:\\n$ codex-ml thing'
    """
    return "\n\n".join(_flowing(paragraph) for paragraph in (inspect.getdoc(command) or "").split("\n\n"))


def _flowing(paragraph: str) -> str:
    lines: list[str] = []
    for line in paragraph.split("\n"):
        kept = line.startswith((" ", "$ "))
        if not lines or kept or lines[-1].startswith((" ", "$ ")):
            lines.append(line)
        else:
            lines[-1] += f" {line}"
    return "\n".join(lines)
