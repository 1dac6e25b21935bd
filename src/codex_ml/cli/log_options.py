"""The options of `codex-ml logs` and `codex-ml runs`, checked."""

from __future__ import annotations

from pathlib import Path

from codex_ml.core.errors import UserError
from codex_ml.core.events import LEVELS, RUN_ID
from codex_ml.core.pipeline import PIPELINE, load_pipeline

EARLIEST = "00000000-000000-000000"  # fills up the beginning of an id
DATE = 8  # characters of the date in an id


def checked_stage(name: str | None) -> str | None:
    """The name of a stage, as dvc.yaml has it.

    Raises:
        UserError: for another name, with those that are allowed.
    """
    if name is None:
        return None
    names = list(load_pipeline(Path(PIPELINE)))
    if name not in names:
        raise UserError(f"--stage: {PIPELINE} has no stage {name!r}; it has {', '.join(names)}")
    return name


def checked_run(run: str | None) -> str | None:
    """A run id or the beginning of one, of at least its date.

    Raises:
        UserError: for anything else.
    """
    if run is None or (len(run) >= DATE and RUN_ID.fullmatch(run + EARLIEST[len(run) :])):
        return run
    raise UserError(
        f"--run: expected an id such as 20260131-120000-0a1b2c, or its beginning with the date, found {run[:60]!r}; "
        "`codex-ml runs` lists them"
    )


def checked_level(level: str) -> int:
    """The number of a level.

    Raises:
        UserError: for another word.
    """
    for name, number in LEVELS.items():
        if name == level:
            return number
    raise UserError(f"--level: expected {', '.join(LEVELS)}; found {level[:60]!r}")
