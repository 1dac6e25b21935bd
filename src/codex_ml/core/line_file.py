"""A file of lines that several processes append to: no line is torn, and the file has a largest size.

    logs/train.ndjson      the newest lines
    logs/train.ndjson.1    the lines before, and so on; the highest number is the oldest file

Each line is written by one call under a lock of the kernel (flock), which a killed process gives back. A process that
waited for the lock of a file that was rotated meanwhile opens the new file.

Used by: core.stage_log, core.error_log, train.timings, `codex-ml logs`, `codex-ml runs`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from codex_ml.core.errors import naming

LONGEST_LINE = 1 << 20  # bytes of a line that a reader takes; the rest of a longer one is skipped


class LineFile:
    """Appends lines to a file, and renames it when it would grow too large.

    Args:
        limit: bytes of a file; a single longer line still gets a file of its own.
        kept: number of older files that stay.

    >>> LineFile(Path("logs/train.ndjson"), limit=10_000_000, kept=5).append(b'{"step": 1}\\n')  # doctest: +SKIP
    """

    def __init__(self, path: Path, *, limit: int, kept: int) -> None:
        self.path, self._limit, self._kept = path, limit, kept
        self._descriptor = -1

    def append(self, line: bytes) -> None:
        """Write a line that ends with a newline.

        Raises:
            OSError: with the path, when nothing could be written; the file then ends as before.
        """
        with naming(self.path):
            while True:
                size = self._lock_newest()
                try:
                    if not size or size + len(line) <= self._limit:
                        self._write(line, size)
                        return
                    self._rotate()
                finally:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lock_newest(self) -> int:
        """Lock the file that has the name, open it if need be, and return its size in bytes."""
        while True:
            if self._descriptor < 0:
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
                if self.path.is_symlink():  # it can lead to any file of the user
                    raise OSError(errno.EINVAL, "this is a symbolic link", str(self.path))
                self._descriptor = os.open(self.path, flags | os.O_NOFOLLOW, 0o666)
                if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                    self.close()
                    raise OSError(errno.EINVAL, "this is not a regular file", str(self.path))
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            own = os.fstat(self._descriptor)
            with suppress(FileNotFoundError):
                if os.path.samestat(own, self.path.stat()):
                    return own.st_size
            self.close()  # rotated or deleted meanwhile

    def _write(self, line: bytes, size: int) -> None:
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":  # the machine stopped in the middle of a line
            line = b"\n" + line
        if os.write(self._descriptor, line) < len(line):
            os.ftruncate(self._descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def _rotate(self) -> None:
        older = _older(self.path)
        for number in sorted(older, reverse=True):
            if number >= self._kept:
                older[number].unlink(missing_ok=True)
            else:
                older[number].rename(_numbered(self.path, number + 1))
        self.path.rename(_numbered(self.path, 1))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _older(path: Path) -> dict[int, Path]:
    """The older files by number."""
    pattern = re.compile(re.escape(path.name) + r"\.([1-9][0-9]{0,5})")
    files = path.parent.iterdir() if path.parent.is_dir() else ()
    return {int(match[1]): file for file in files if (match := pattern.fullmatch(file.name))}


def older_files(path: Path) -> list[Path]:
    """The older files of a log, the oldest first."""
    older = _older(path)
    return [older[number] for number in sorted(older, reverse=True)]


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of the older files and of the file, from the oldest to the newest, without their newlines.

    Of a line longer than LONGEST_LINE the first bytes are yielded. What is not a regular file is skipped.
    """
    for file in [*older_files(path), path]:
        with suppress(FileNotFoundError):  # rotated while this runs
            if file.is_file():
                yield from _lines(file)


def _lines(file: Path) -> Iterator[bytes]:
    with naming(file), file.open("rb") as handle:
        whole = True
        while line := handle.readline(LONGEST_LINE):
            if whole:
                yield line.removesuffix(b"\n")
            whole = line.endswith(b"\n")
