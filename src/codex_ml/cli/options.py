"""What several commands share: options, paths that the user typed, lines in columns."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from codex_ml.cli.output import say
from codex_ml.core.errors import UserError, safe_line

Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as JSON with sorted keys, in printable ASCII: no terminal obeys it, and every encoding has it.

    Args:
        indent: None for one line.
    """
    text = json.dumps(value, indent=indent, sort_keys=True, allow_nan=False, ensure_ascii=True)
    typer.echo(text.replace("\x7f", "\\u007f"))  # json escapes all other control characters


def relative_to_top(path: str, here: Path) -> str:
    """A path that the user typed in the folder `here`, relative to the top folder, with forward slashes.

    Raises:
        UserError: when it lies outside the repository.
    """
    place = Path(os.path.relpath(here / path))
    if os.pardir in place.parts:
        raise UserError(f"{path} lies outside this repository")
    return place.as_posix()


def in_columns(stage: str, role: str, path: str, digest: str) -> str:
    """One line about a file of a chain."""
    return safe_line(f"{stage:<13} {role:<7} {path}  {digest}".rstrip())


def warn_of_lines_not_compared() -> None:
    """Warn on stderr about versions of the split ledger that cannot be read: a loss of their lines would go unseen."""
    from codex_ml.cli.history.lost_lines import baselines, not_compared
    from codex_ml.cli.history.versions import version_in_folder

    for note in not_compared(version_in_folder(), baselines()):
        say(f"warning: {note}", err=True)
