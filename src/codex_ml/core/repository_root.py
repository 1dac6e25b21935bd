"""Find the top folder of the repository from any folder in it, as DVC and Git do."""

from __future__ import annotations

import os
from pathlib import Path

from codex_ml.core.errors import UserError

MARKS = ("dvc.yaml", "src/codex_ml")  # both, because a project below data/raw may have its own dvc.yaml


def find_top(start: Path) -> Path | None:
    """The nearest folder, from `start` upwards, that holds dvc.yaml and src/codex_ml."""
    return next((folder for folder in (start, *start.parents) if all((folder / m).exists() for m in MARKS)), None)


def go_to_top() -> Path:
    """Make the top folder the current one.

    Returns:
        the folder where the user typed the command, relative to the top folder. The user's paths are relative to it.

    Raises:
        UserError: when no folder here or above is a top folder.
    """
    start = Path.cwd()
    top = find_top(start)
    if top is None:
        raise UserError(f"no {MARKS[0]} beside {MARKS[1]} in {start} or above it; run this inside the repository")
    os.chdir(top)
    return start.relative_to(top)


def from_top(path: Path) -> Path:
    """A path of the repository relative to the current folder; unchanged outside a repository."""
    start = Path.cwd()
    top = find_top(start)
    return path if top in (None, start) else Path(os.path.relpath(top / path, start))
