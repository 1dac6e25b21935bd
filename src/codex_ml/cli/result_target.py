"""Refuse places where a result cannot be written, before the work is done.

Used by: `codex-ml evaluate`, `codex-ml audit`, `codex-ml export`, `codex-ml init`.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from codex_ml.core.errors import UserError

TOOLS = {".dvc": "DVC", ".git": "Git"}  # folder -> whose it is
FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # of the disk; another folder would not help


def refuse_target(target: Path, *, force: bool, mark: str) -> None:
    """Refuse a folder for the result that cannot be made, or holds anything but a result that may be replaced.

    Args:
        mark: name of a file that every such result has.

    Raises:
        UserError: naming the folder and what to do.
        OSError: when the disk is full or fails.
    """
    refuse_tool_folder(target)
    try:
        _refuse_used(target, force=force, mark=mark)
        _try_to_make(target)
    except OSError as error:
        found = error
    else:
        return
    if found.errno in FAULTS:
        raise found
    reason = os.strerror(found.errno or errno.EINVAL)  # raised here, so that the disk is not taken for the cause
    raise UserError(f"--out {target} cannot be made ({reason}); name a folder in a place where you can write")


def refuse_tool_folder(target: Path) -> None:
    """Refuse a place in the folder of DVC or Git, such as DVC's cache: they remove what they do not know.

    Raises:
        UserError: naming the place and whose it is.
    """
    place, here = target.resolve(), Path.cwd()  # an experiment of DVC itself runs in .dvc/tmp
    for name in (place.relative_to(here) if place.is_relative_to(here) else place).parts:
        if name in TOOLS:
            raise UserError(f"--out {target} is in {name}, the folder of {TOOLS[name]}; name a folder outside of it")


def _refuse_used(target: Path, *, force: bool, mark: str) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / mark).is_file():
        raise UserError(f"--out {target} exists and is not a result folder; name a new folder")
    if not force:
        raise UserError(f"--out {target} holds a result; name a new folder, or add --force to replace it")


def _try_to_make(target: Path) -> None:
    """Make the folders that are missing, and one beside the target as the result is written; remove them again."""
    made: list[Path] = []
    try:
        for folder in (*reversed(target.parents), target.with_name(f".{target.name}.tmp-{os.getpid()}")):
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
    finally:
        for folder in reversed(made):
            folder.rmdir()
