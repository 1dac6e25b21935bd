"""The folders beside the outputs: scratch for downloads and checkpoints, logs for timings."""

from __future__ import annotations

import os
from pathlib import Path


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
    original repository, where experiments that run at the same time get separate files.

    Args:
        shared: return the folder that all runs share, for trackers, which keep runs apart themselves.
    """
    logs = _origin() / "logs"
    if shared or logs.absolute() == Path("logs").absolute():
        return logs
    return logs / "experiments" / (os.environ.get("DVC_EXP_NAME") or Path.cwd().name)


def _origin() -> Path:
    """The original repository of an experiment in a temporary copy; otherwise this repository."""
    return Path(os.path.relpath(os.environ.get("DVC_ROOT") or "."))
