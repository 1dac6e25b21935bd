"""Lines of the logs in the order of time, and the new ones as they come. Used by: `codex-ml logs`."""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Iterator
from pathlib import Path

from codex_ml.cli.run_history import log_files
from codex_ml.core.errors import naming
from codex_ml.core.events import LogLine, parsed_line, read_log
from codex_ml.core.line_file import LONGEST_LINE, older_files

POLL_SECONDS = 0.2


def past_lines(stage: str | None) -> Iterator[LogLine]:
    """The lines of all logs, merged by time; memory does not grow with their size."""
    return heapq.merge(*(read_log(file) for _, file in log_files(stage)), key=lambda line: line.time)


def follow_lines(stage: str | None) -> Iterator[LogLine]:
    """The lines of all logs, and without end those that stages add, also in new files."""
    tails = {file: LogTail(file) for _, file in log_files(stage)}
    yield from heapq.merge(*(tail.all_lines() for tail in tails.values()), key=lambda line: line.time)
    while True:
        for _, file in log_files(stage):
            if file not in tails:
                tails[file] = LogTail(file)
            yield from tails[file].new_lines()
        time.sleep(POLL_SECONDS)


class LogTail:
    """Reads a log and the lines that are added to it, also when the log goes on in a new file."""

    def __init__(self, path: Path) -> None:
        self._path, self._rest = path, b""
        self._inode, self._offset = path.stat().st_ino if path.is_file() else -1, 0

    def all_lines(self) -> Iterator[LogLine]:
        """The lines of the older files and of this one."""
        for older in older_files(self._path):
            yield from read_log(older)
        yield from self.new_lines()

    def new_lines(self) -> Iterator[LogLine]:
        """The complete lines since the last call."""
        if not self._path.is_file():
            return
        with naming(self._path), self._path.open("rb") as handle:
            if (inode := os.fstat(handle.fileno()).st_ino) != self._inode:
                yield from self._of_the_older()
                self._inode, self._offset, self._rest = inode, 0, b""
            yield from self._read(handle.fileno())

    def _of_the_older(self) -> Iterator[LogLine]:
        """The last lines of the file that has got another name."""
        older = self._path.with_name(f"{self._path.name}.1")
        if older.is_file():
            with older.open("rb") as handle:
                if os.fstat(handle.fileno()).st_ino == self._inode:
                    yield from self._read(handle.fileno())

    def _read(self, descriptor: int) -> Iterator[LogLine]:
        while piece := os.pread(descriptor, LONGEST_LINE, self._offset):
            self._offset += len(piece)
            *lines, self._rest = (self._rest + piece).split(b"\n")
            self._rest = self._rest[:LONGEST_LINE]
            yield from filter(None, map(parsed_line, lines))


def shown(line: LogLine) -> str:
    """A line for people."""
    level = "" if line.level == "info" else f"{line.level}: "
    rank = f"process {line.fields['rank']}: " if "rank" in line.fields else ""
    named = "" if line.event == "message" else f"  [{line.event}]"
    return " ".join(f"{line.time[:19].replace('T', ' ')}  {level}{rank}{line.message}{named}".splitlines())
