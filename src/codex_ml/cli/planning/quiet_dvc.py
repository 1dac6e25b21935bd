"""DVC's own view of the repository, for commands that look at all its stages.

Used by: `codex-ml plan`, `codex-ml accept-code`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from codex_ml.core.errors import CheckFailed, one_line

if TYPE_CHECKING:
    from dvc.repo import Repo


@contextmanager
def quiet_dvc(name: str) -> Iterator[Repo]:
    """DVC's view of this repository, locked as by `dvc status`; what DVC would log is not printed.

    Args:
        name: of the command that works, for messages of others.

    Raises:
        CheckFailed: when DVC works here, or refuses the repository.
    """
    import logging

    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.rwlock import rwlock

    log = logging.getLogger("dvc")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with Repo() as repo, repo.lock:
            paths = [item.fs_path for stage in repo.index.stages for item in (*stage.deps, *stage.outs)]
            linked = repo.config["core"].get("hardlink_lock", False)
            with rwlock(repo.tmp_dir, repo.fs, name, read=paths, write=[], hardlink=linked):
                yield repo
    except LockError as error:
        held = one_line("\n".join(dict.fromkeys(str(error).splitlines())))  # DVC names a process once per output
        raise CheckFailed(
            "DVC is working in this folder; run this again when it has ended, or see with `codex-ml doctor` what works "
            f"here ({held})"
        ) from None
    except DvcException as error:
        raise CheckFailed(f"`dvc repro` would not start: {one_line(error)}") from None
    finally:
        log.setLevel(level)
