"""The temporary folder of work outside the pipeline. It can hold gigabytes, so no end of the process keeps it.

Used by: `codex-ml evaluate`, `codex-ml audit`, `codex-ml compare`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import FrameType
from typing import NoReturn

PREFIX = "codex-ml-scratch-"
OWNER = "owner"  # a file that the process of the folder holds locked; the kernel releases it with the process


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new folder that is removed at the end of the block, also after an error, SIGINT or SIGTERM.

    SIGTERM ends the command with one line and exit code 143. A process that is killed leaves its folder; the next one
    removes it.
    """
    _remove_leftovers()
    handler = signal.signal(signal.SIGTERM, _terminate)
    try:
        with TemporaryDirectory(prefix=PREFIX) as folder:
            new = Path(folder, f".{OWNER}")
            with new.open("w") as owner:
                fcntl.flock(owner, fcntl.LOCK_EX)
                new.rename(Path(folder, OWNER))  # has its name only once it is locked
                yield Path(folder)
    finally:
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, handler)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one does not stop the removal
    os.write(2, b"error: terminated\n")  # a print inside a print would fail
    raise SystemExit(128 + number)


def _remove_leftovers() -> None:
    """Remove folders of this user whose process is gone."""
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another process removes it, or it belongs to another user
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / OWNER).open() as owner:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
