"""Read foreign files in a child process with limits: a hostile file can end the child, and the parent gets one line.

Limits of the child:

    environment         an allow-list, so that it sees no secret of the parent
    memory              RLIMIT_AS, in addition to what its imports take
    time                RLIMIT_CPU for each request, and the parent's clock
    network, programs   an audit hook refuses them
    its parent          the child ends when the parent ends, even if the parent is killed

The caller passes a function that runs in the child before the limits apply. It imports libraries, which takes more
memory than the work itself, and returns the function that answers requests. Parent and child exchange one JSON value
per line: the request goes in, {"ok": result} or {"error": one line} comes out.

Used by: tokens (chat templates), tokenizer (foreign vocabularies), gguf_file, parallel, train.launch.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from codex_ml.core.errors import CheckFailed, UserError, disk_error_in, one_line
from codex_ml.core.out_of_memory import is_out_of_memory

log = logging.getLogger("codex_ml")
Answer = Callable[[dict[str, Any]], Any]

START_SECONDS = 180.0  # for the imports, on a busy machine
KEPT = (
    "PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "SYSTEMROOT", "TMPDIR", "COVERAGE_PROCESS_CONFIG",
    "COVERAGE_PROCESS_START",
)  # fmt: skip
FIXED = {
    **{"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TQDM_DISABLE": "1"},
    **{"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"},
    **{"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"},
}
FORBIDDEN = (
    "socket.", "subprocess.Popen", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork",
)  # fmt: skip


class AnswerError(UserError):
    """The child reported an error; it is still running and takes the next request."""


class LimitedChild:
    """A child process that answers requests; a context manager.

    The first request starts the process. If a request ends it, the next request starts it again.

    Args:
        prepare: a function at module level. The child imports and calls it, then sets its limits; the function that it
            returns answers each request. Requests and answers are JSON values.
        memory: bytes of address space in addition to what `prepare` takes.
        seconds: of CPU time per request; the limit on wall time is five times as much, plus a second.
        once: whether the child answers only one request; its limit on CPU time is then final.
        folder: the child's home and working folder; None for the root folder, where it finds nothing.

    >>> with LimitedChild(sentencepiece_trial, seconds=30, once=True) as child:  # doctest: +SKIP
    ...     child.ask({"file": "theirs.model", "to": "tokenizer.json", "texts": ["def f(x): return x"]})
    """

    def __init__(
        self,
        prepare: Callable[[], Answer],
        *,
        memory: int = 1 << 30,
        seconds: int = 2,
        once: bool = False,
        folder: Path | None = None,
    ) -> None:
        assert prepare.__qualname__.isidentifier(), "the child must import it"
        self.prepare, self.memory, self.seconds, self.once, self.folder = prepare, memory, seconds, once, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1  # the end of a pipe that only this process holds

    def __enter__(self) -> LimitedChild:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            os.close(self._lifeline)
            self._process = None

    def ask(self, request: dict[str, Any]) -> Any:
        """Send one request and wait for its answer.

        Args:
            request: a JSON object; its key `to` is the path that the child writes, if any.

        Raises:
            AnswerError: with the error that the child reported.
            UserError: when a limit ended the child, or when it did not start.
            OSError: when a disk error stopped the child from writing.
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
        import codex_ml

        home = str(self.folder or "/")
        given = (self.prepare.__module__, self.prepare.__qualname__, self.memory, self.seconds, self.once)
        held, self._lifeline = os.pipe()
        try:
            # -P and -s: neither the working folder nor the user's packages are on the path; this library is
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-c", _START, str(Path(codex_ml.__file__).resolve().parents[1]),
                 json.dumps([*given, held])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[held],
                cwd=home,
                env={**{name: os.environ[name] for name in KEPT if name in os.environ}, **FIXED, "HOME": home},
            )  # fmt: skip
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(held)
        answer = json.loads(self._exchange(self._process, b"", START_SECONDS))
        if "error" in answer:
            raise UserError(f"the child process could not start: {answer['error']}")
        if answer["ok"]:
            log.warning("this system does not limit the %s of child processes", " and the ".join(answer["ok"]))
        return self._process

    def _exchange(self, process: subprocess.Popen[bytes], data: bytes, seconds: float) -> bytes:
        """Write the request and read one line at the same time, so that two full pipes cannot block each other."""
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = time.monotonic() + seconds
        ends = (process.stdin.fileno(), process.stdout.fileno())
        left, answer = memoryview(data), bytearray()
        os.set_blocking(ends[0], False)
        while not answer.endswith(b"\n"):
            wait = deadline - time.monotonic()
            readable, writable, _ = select.select([ends[1]], [ends[0]] if left else [], [], max(wait, 0))
            if not readable and not writable:
                raise UserError(f"it did not finish within {seconds:.0f} s and was ended")
            if writable:
                try:
                    left = left[os.write(ends[0], left[: 1 << 16]) :]
                except BrokenPipeError:
                    left = left[:0]  # the child ended; its end is read below
            if readable:
                if not (part := os.read(ends[1], 1 << 20)):
                    raise UserError(self._why_ended(process.wait()))
                answer += part
        return bytes(answer)

    def _why_ended(self, code: int) -> str:
        if code == -signal.SIGXCPU:
            return f"it used more than {self.seconds} s of CPU time and was ended"
        how = signal.Signals(-code).name if code < 0 else f"code {code}"
        return f"the child process ended ({how}), most likely out of memory (its limit is {self.memory >> 20} MiB)"


def end_with_parent(pipe: int) -> None:
    """End this process when its parent ends, even if the parent is killed.

    Args:
        pipe: file descriptor of the read end of a pipe. Only the parent holds the write end, and it writes nothing.
    """
    threading.Thread(target=_wait_and_end, args=(pipe,), daemon=True).start()


def _wait_and_end(pipe: int) -> None:
    os.read(pipe, 1)
    os._exit(1)


# The program of the child. It imports the same library as the parent.
_START = f"""import json, sys
sys.path.insert(0, sys.argv[1])
from {__name__} import serve
serve(*json.loads(sys.argv[2]))"""


def serve(module: str, name: str, memory: int, seconds: int, once: bool, lifeline: int) -> None:
    """Run the child: prepare, set the limits, answer requests until stdin ends. Arguments: see `LimitedChild`."""
    end_with_parent(lifeline)
    with os.fdopen(os.dup(1), "w", encoding="ascii") as out:
        os.dup2(2, 1)  # what a library prints must not look like an answer
        try:
            answer = getattr(import_module(module), name)()
            missing = confine(memory)
        except BaseException as error:  # the parent reports it
            print(json.dumps({"error": _told(error)}), file=out, flush=True)
            return
        print(json.dumps({"ok": missing}), file=out, flush=True)
        for line in sys.stdin:
            used = resource.getrusage(resource.RUSAGE_SELF)
            most = int(used.ru_utime + used.ru_stime) + 1 + seconds
            _limit(resource.RLIMIT_CPU, most, final=most + 1 if once else None)
            print(json.dumps(_answered(answer, line)), file=out, flush=True)


def confine(memory: int) -> list[str]:
    """Limit this process permanently: address space, no core dump, no network, no other program.

    Args:
        memory: bytes of address space in addition to what this process uses.

    Returns:
        names of the limits that this system does not support; macOS, for example, cannot limit memory.
    """
    total = _address_space() + memory
    held = {
        "memory": _limit(resource.RLIMIT_AS, total, final=total),
        "core dumps": _limit(resource.RLIMIT_CORE, 0, final=0),
    }
    sys.addaudithook(_refuse)
    return [name for name, holds in held.items() if not holds]


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(FORBIDDEN):
        raise PermissionError(f"{event} is not allowed while a foreign file is read")


def _limit(kind: int, value: int, *, final: int | None) -> bool:
    """Set a soft limit of this process; `final` also sets the hard limit, which cannot be raised again."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value, final = min(value, hard), min(hard, hard if final is None else final)
    try:
        resource.setrlimit(kind, (value, hard if final is None else final))
    except (ValueError, OSError):
        return False
    return True


def _address_space() -> int:
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * resource.getpagesize() if statm.is_file() else 1 << 32


def _answered(answer: Answer, line: str) -> dict[str, Any]:
    try:
        return {"ok": answer(json.loads(line))}
    except BaseException as error:  # PanicException of Rust libraries is not an Exception
        return {"error": _told(error)}


def _told(error: BaseException) -> str:
    if is_out_of_memory(error):
        return "it needs more memory than its limit"
    if isinstance(error, UserError | CheckFailed):
        return str(error)
    return f"{type(error).__name__}: {one_line(error)}"
