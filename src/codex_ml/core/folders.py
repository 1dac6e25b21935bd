"""The folders beside the outputs: scratch for downloads and checkpoints, logs for timings."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from codex_ml.core.errors import UserError
from codex_ml.core.message_cleaner import clean_message

UNUSUAL = re.compile(r"[^A-Za-z0-9._-]")
LONGEST = 100  # characters of the name of a folder
COPIES = (".dvc", "tmp", "exps")  # the folder of the temporary copies, in the original repository


def scratch_place() -> Path:
    """Where `scratch_folder` is, or will be."""
    given = os.environ.get("CODEX_ML_SCRATCH")
    return (Path(given) / "codex-ml" if _is_shared(Path(given)) else Path(given)) if given else origin() / ".cache"


def scratch_folder() -> Path:
    """The ignored, private (0700) folder for downloads and checkpoints: `.cache` of the repository.

    CODEX_ML_SCRATCH can name another one. If that exists and is open to others, a folder `codex-ml` in it is used: its
    mode is not changed, because others may work in it. An experiment that DVC runs in a temporary copy uses the folder
    of the original repository, so that it resumes after a kill. The path is relative: an absolute path can hold bytes
    that Rust and C++ libraries refuse in a C locale.

    Raises:
        UserError: when the folder belongs to another user or is open to others.
    """
    folder = scratch_place()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _is_shared(folder):
        if folder.name != ".cache" or folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            raise UserError(
                f"{folder} is open to others, and checkpoints and downloads must be private; run "
                f"`chmod 700 {folder}` if it is yours, or set CODEX_ML_SCRATCH to another folder"
            )
        folder.chmod(0o700)  # of this checkout; `make lock` makes it too
    return folder


def _is_shared(folder: Path) -> bool:
    """Whether a folder exists and others may look into it, or it belongs to another user."""
    if not folder.is_dir():
        return False
    status = folder.stat()
    return bool(status.st_mode & 0o077) or status.st_uid != os.geteuid()


def logs_folder(*, shared: bool = False) -> Path:
    """`logs` of the repository, which is not an output of the pipeline.

    DVC deletes the temporary copy of an experiment. So an experiment writes to `logs/experiments/<its name>` of the
    original repository, where experiments that run at the same time get separate files. A name that is not that of a
    folder, or that the policy does not allow, becomes another one.

    Args:
        shared: return the folder that all runs share, for trackers, which keep runs apart themselves.
    """
    logs = origin() / "logs"
    if shared or logs.absolute() == Path("logs").absolute():
        return logs
    return logs / "experiments" / _as_folder(os.environ.get("DVC_EXP_NAME") or Path.cwd().name)


def _as_folder(name: str) -> str:
    """The name of an experiment as that of one folder: without secrets, path separators and unusual characters."""
    plain = UNUSUAL.sub("_", clean_message(name)).lstrip(".")[:LONGEST]
    return plain if plain == name else f"{plain}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def origin() -> Path:
    """The original repository of an experiment in a temporary copy, which DVC makes below it; else this repository."""
    here = Path.cwd()
    for folder in here.parents:
        if folder.parts[-3:] == COPIES:
            return Path(os.path.relpath(folder.parents[2]))
    return Path()
