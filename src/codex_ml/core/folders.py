"""The folders beside the outputs: scratch for downloads and checkpoints, logs for timings."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from codex_ml.core.message_cleaner import clean_message

UNUSUAL = re.compile(r"[^A-Za-z0-9._-]")
LONGEST = 100  # characters of the name of a folder


def scratch_folder() -> Path:
    """The ignored, private (0700) folder for downloads and checkpoints: `.cache` of the repository.

    An experiment that DVC runs in a temporary copy uses the folder of the original repository (DVC_ROOT), so that it
    resumes after a kill. The path is relative: an absolute path can hold bytes that Rust and C++ libraries refuse in a
    C locale.
    """
    folder = Path(os.environ.get("CODEX_ML_SCRATCH") or _origin() / ".cache")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def logs_folder(*, shared: bool = False) -> Path:
    """`logs` of the repository, which is not an output of the pipeline.

    DVC deletes the temporary copy of an experiment. So an experiment writes to `logs/experiments/<its name>` of the
    original repository, where experiments that run at the same time get separate files. A name that is not that of a
    folder, or that the policy does not allow, becomes another one.

    Args:
        shared: return the folder that all runs share, for trackers, which keep runs apart themselves.
    """
    logs = _origin() / "logs"
    if shared or logs.absolute() == Path("logs").absolute():
        return logs
    return logs / "experiments" / _as_folder(os.environ.get("DVC_EXP_NAME") or Path.cwd().name)


def _as_folder(name: str) -> str:
    """The name of an experiment as that of one folder: without secrets, path separators and unusual characters."""
    plain = UNUSUAL.sub("_", clean_message(name)).lstrip(".")[:LONGEST]
    return plain if plain == name else f"{plain}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def _origin() -> Path:
    """The original repository of an experiment in a temporary copy; otherwise this repository."""
    return Path(os.path.relpath(os.environ.get("DVC_ROOT") or "."))
