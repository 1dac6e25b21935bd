"""Find the files of the report's inputs. Used by: report.facts, report.evaluation_facts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from codex_ml.core.errors import UserError

Find = Callable[[str], Path]  # from a path of dvc.yaml to the file: `Stage.dep`


def existing(find: Find, path: str, stage: str) -> Path:
    """Return the file of a path.

    Raises:
        UserError: when it is missing; the message names the stage that makes it.
    """
    file = find(path)
    if not file.exists():
        raise UserError(f"{path} is missing; `dvc repro {stage}` makes it")
    return file
