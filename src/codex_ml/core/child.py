"""A child process with limits, for what somebody else wrote: a bomb ends the child, and the parent gets a reason.

`RLIMIT_AS` bounds its memory, `RLIMIT_CPU` the processor time of a request, the parent's clock the time on the wall.
The child lives for many requests; it is started again after one that ended it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from codex_ml.core import child_worker as worker
from codex_ml.core.errors import UserError, disk_error_in

MEMORY = 1 << 30  # bytes beyond what the imports took
SECONDS = 2  # of processor time a request
START_SECONDS = 60.0  # for the imports, on a busy machine
KEPT = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "SYSTEMROOT",
    "TMPDIR",
    "COVERAGE_PROCESS_CONFIG",
    "COVERAGE_PROCESS_START",
)


class AnswerError(UserError):
    """The child could not do what it was asked; it lives and takes the next request."""


class LimitedChild:
    """Runs one operation of codex_ml.core.child_worker; a context manager.

    Attributes:
        operation: name in `worker.OPERATIONS`.
        memory: bytes.
        seconds: of processor time a request; the wall clock allows five times as much.
    """

    def __init__(self, operation: str, *, memory: int = MEMORY, seconds: int = SECONDS) -> None:
        assert operation in worker.OPERATIONS
        self.operation, self.memory, self.seconds = operation, memory, seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LimitedChild:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def ask(self, request: dict[str, Any]) -> Any:
        """Send one request and wait for its answer.

        Raises:
            AnswerError: what the child said.
            UserError: which limit ended it.
            OSError: when the disk failed to take what the child writes.
        """
        try:
            process = self._process or self._start()
            line = json.dumps(request).encode("ascii") + b"\n"
            answer = json.loads(self._exchange(process, line, 5.0 * self.seconds + 1))
        except BaseException:
            self.close()
            raise
        if "to" in request and (disk := disk_error_in(str(answer.get("error", "")), str(request["to"]))):
            raise disk
        if "error" in answer:
            raise AnswerError(str(answer["error"]))
        return answer["ok"]

    def _start(self) -> subprocess.Popen[bytes]:
        source = str(Path(worker.__file__).resolve().parents[2])
        code = (
            f"import sys; sys.path.insert(0, sys.argv[1]); from {worker.__name__} import main; main({self.operation!r}"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"{code}, {self.memory}, {self.seconds})", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                **{name: os.environ[name] for name in KEPT if name in os.environ},
                **{"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
                **{"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", "RAYON_NUM_THREADS": "1"},
            },
        )
        self._exchange(self._process, b"", START_SECONDS)
        return self._process

    def _exchange(self, process: subprocess.Popen[bytes], data: bytes, seconds: float) -> bytes:
        """Write while the child takes it, read one line; neither end can block the other."""
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = time.monotonic() + seconds
        ends = (process.stdin.fileno(), process.stdout.fileno())
        left, found = memoryview(data), bytearray()
        os.set_blocking(ends[0], False)
        while not found.endswith(b"\n"):
            wait = deadline - time.monotonic()
            readable, writable, _ = select.select([ends[1]], [ends[0]] if left else [], [], max(wait, 0))
            if not readable and not writable:
                raise UserError(f"it was still at work after {seconds:.0f} s and was ended")
            if writable:
                try:
                    left = left[os.write(ends[0], left[: 1 << 16]) :]
                except BrokenPipeError:
                    left = left[:0]  # the child ended; its end is read below
            if readable:
                if not (part := os.read(ends[1], 1 << 20)):
                    raise UserError(self._why_ended(process))
                found += part
        return bytes(found)

    def _why_ended(self, process: subprocess.Popen[bytes]) -> str:
        code = process.wait()
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return f"it used more than {self.seconds} s of processor time and was ended"
        return (
            f"it ended its process (code {code}), most likely for want of memory ({self.memory >> 20} MiB are allowed)"
        )
