"""Watch the processes of one trial: what they use, what they say, and that all of them end.

CPU time and memory are those of the whole tree of processes, read from /proc: a program gains nothing by forking.

Used by: supervisor.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

from codex_ml.sandbox.inventory import WORK
from codex_ml.sandbox.plain_values import loads
from codex_ml.sandbox.trial import FILES, SPARE_BYTES

TICK = 0.02  # seconds between two looks at the tree; a program can exceed its limits by what it uses in one
LONGEST_WORD = 1 << 16  # bytes of the tester's last word
PART = 1 << 16
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PATIENCE = 30.0  # seconds in which killed processes must be gone


class Watch:
    """One trial from its first process to its last.

    Args:
        limits: the fields of `ProgramLimits`.
        result: read end of the pipe with the last word of the process that judges.
        output: read end of the pipe with stdout and stderr of the program.
    """

    def __init__(self, limits: dict[str, Any], result: int, output: int) -> None:
        self.limits = limits
        self.pipes = {result: bytearray(), output: bytearray()}
        self.result, self.output = self.pipes.values()
        self.before = _reaped_seconds()
        self.seen: dict[tuple[int, int], float] = {}  # (process, when it started) -> its own CPU seconds
        self.exit_code: int | None = None
        for pipe in self.pipes:
            os.set_blocking(pipe, False)

    def follow(self, last: int) -> str | None:
        """Wait until a process ends or says its last word.

        Args:
            last: id of the process whose end is the end of the trial.

        Returns:
            the limit that was exceeded: time, wall, memory, files or output; None if none was.
        """
        deadline = time.monotonic() + self.limits["wall_seconds"]
        handle, poll = os.pidfd_open(last), select.poll()
        for descriptor in [*self.pipes, handle]:
            poll.register(descriptor, select.POLLIN)
        poll.register(0, 0)  # reports only that the harness is gone
        look, exceeded = time.monotonic() + TICK, None
        try:
            while exceeded is None and self.result.count(b"\n") < 2:
                events = dict(poll.poll(TICK * 1000))
                if 0 in events:
                    raise EOFError("the harness is gone")
                for pipe in self.pipes.keys() & events.keys():
                    if not self._read(pipe):
                        poll.unregister(pipe)
                now = time.monotonic()
                if now >= look:
                    look, exceeded = now + TICK, self._usage_exceeded()
                if len(self.output) > self.limits["output_bytes"]:
                    exceeded = "output"
                elif now > deadline:
                    exceeded = exceeded or "wall"
                elif handle in events and not self.pipes.keys() & events.keys():
                    break
        finally:
            os.close(handle)
        return exceeded or self._printed_too_much()

    def end(self, main: int) -> str | None:
        """Kill every process of the trial and wait until none is left.

        Returns:
            "time" if they used more CPU time than allowed, seen only now that all are reaped; else None.

        Raises:
            TimeoutError: if a process does not go away.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            for child in (children := _children(os.getpid())):
                os.kill(child, signal.SIGKILL)
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if ended == main:
                self.exit_code = os.waitstatus_to_exitcode(status)
            if not ended:
                _wait_for_one(children)
                if time.monotonic() > deadline:
                    raise TimeoutError("a process of a trial does not end")
        return "time" if _reaped_seconds() - self.before > self.limits["cpu_seconds"] else None

    def words(self) -> list[dict[str, Any]]:
        """The messages of the result pipe, one per line; {} for a line that is none.

        The first is written before the program runs. The others may be forged if the program runs in the same process.
        """
        return [_message(line) for line in bytes(self.result).splitlines()]

    def _read(self, pipe: int) -> bool:
        data = self.pipes[pipe]
        most = LONGEST_WORD if data is self.result else self.limits["output_bytes"] + 1
        try:
            part = os.read(pipe, PART)
        except BlockingIOError:
            return True
        data += part[: most - len(data)]
        return bool(part)

    def _printed_too_much(self) -> str | None:
        """Read what is still in the pipe, so that the verdict does not depend on who was faster."""
        (pipe,) = (pipe for pipe, data in self.pipes.items() if data is self.output)
        before = -1
        while before < len(self.output) <= self.limits["output_bytes"]:
            before = len(self.output)
            self._read(pipe)
        return "output" if len(self.output) > self.limits["output_bytes"] else None

    def _usage_exceeded(self) -> str | None:
        seconds, memory, files = _reaped_seconds() - self.before, 0, 0
        for process in tree(os.getpid()):
            usage = _usage(process)
            self.seen[process, usage.born] = usage.own_seconds
            seconds, memory = seconds + usage.own_seconds + usage.reaped_seconds, memory + usage.resident
            files = max(files, _files(process, self.limits["file_bytes"]))
        # The filter keeps a program from ignoring SIGCHLD, after which no clock counts its children. What
        # was seen counts as well.
        if max(seconds, sum(self.seen.values())) > self.limits["cpu_seconds"]:
            return "time"
        if files > FILES:
            return "files"
        return "memory" if memory > self.limits["memory_bytes"] + SPARE_BYTES else None


def _wait_for_one(children: list[int]) -> None:
    """Return when one of the child processes has ended, or after a tick."""
    handles, poll = [os.pidfd_open(child) for child in children], select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    poll.poll(TICK * 1000)
    for handle in handles:
        os.close(handle)


def _files(process: int, folder_bytes: int) -> int:
    """Files in the work folder of a process. bwrap cannot limit them, and each takes 1 kB of the kernel's memory."""
    try:
        folder = os.statvfs(f"/proc/{process}/root{WORK}")
    except OSError:  # it has ended, or it does not have its own root yet
        return 0
    own = folder.f_blocks * folder.f_frsize == -(-folder_bytes // PAGE) * PAGE  # not a folder of this machine
    return folder.f_files - folder.f_ffree if own else 0


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = loads(line)
    except ValueError:
        return {}
    return message if type(message) is dict else {}


def _reaped_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tree(process: int) -> list[int]:
    """All descendants of a process."""
    found, left = [], _children(process)
    while left:
        found.append(left.pop())
        left += _children(found[-1])
    return found


def _children(process: int) -> list[int]:
    children: list[int] = []
    try:
        for thread in Path(f"/proc/{process}/task").iterdir():
            with (thread / "children").open("rb", 0) as file:
                children += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended
    return children


class _Usage(NamedTuple):
    """CPU seconds of a process and of its reaped children, resident bytes, clock ticks from boot to its start."""

    own_seconds: float = 0.0
    reaped_seconds: float = 0.0
    resident: int = 0
    born: int = 0


def _usage(process: int) -> _Usage:
    """What a process uses, from /proc (man 5 proc_pid_stat)."""
    try:
        with Path(f"/proc/{process}/stat").open("rb", 0) as file:
            fields = [int(field) for field in file.read().rpartition(b")")[2].split()[1:]]
    except (FileNotFoundError, ProcessLookupError):
        return _Usage()
    own, reaped = (sum(fields[at : at + 2]) / TICKS_PER_SECOND for at in (10, 12))
    return _Usage(own, reaped, fields[20] * PAGE, fields[18])
