"""The harness's end of a supervisor: one process that runs one trial at a time. Used by: ladder, judge."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from select import POLLIN, poll
from typing import Any

from codex_ml.core.errors import CheckFailed, one_line

# The package codex_ml itself is not executed: it asks for libraries that `-S` hides and the supervisor does not need.
START = """import sys
package = sys.modules["codex_ml"] = type(sys)("codex_ml")
package.__path__ = [sys.argv[1]]
from codex_ml.sandbox.supervisor import main
main()"""
PATIENCE = 60.0  # seconds in addition to the wall limit, for a machine that is busy


class Worker:
    """A supervisor process; a context manager.

    Args:
        settings: of the supervisor, see `Sandbox`.

    Attributes:
        pid: process id of the supervisor.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        package = str(Path(__file__).resolve().parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", START, package],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            start_new_session=True,  # Ctrl-C reaches the harness only, and closing stdin ends the supervisor
        )
        self.pid = self._process.pid
        try:
            self.ask(settings, 0)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop(self) -> None:
        """Let the supervisor end what it runs, and itself; from any thread. `ask` then raises."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def close(self) -> None:
        """End the supervisor and everything that it started, and wait for it."""
        self.stop()
        self._last_words()

    def ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send one message and wait for the answer.

        Args:
            seconds: the wall limit of the trial.

        Raises:
            CheckFailed: when the supervisor ended or does not answer.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError, ValueError):  # it ended or was stopped; its stderr says why
            process.stdin.write(json.dumps(message).encode("ascii") + b"\n")
            process.stdin.flush()
        answers = poll()
        answers.register(process.stdout, POLLIN)
        if answers.poll((seconds + PATIENCE) * 1000) and (line := process.stdout.readline()):
            answer: dict[str, Any] = json.loads(line)
            return answer
        process.kill()
        raise CheckFailed(f"the sandbox's supervisor ended: {one_line(self._last_words() or 'it did not answer')}")

    def _last_words(self) -> str:
        """Wait for its end, and return the last line that it wrote to stderr."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        said = b"" if self._process.stderr.closed else self._process.stderr.read()
        self._process.stderr.close()
        self._process.wait()
        return said.decode("utf-8", "replace").strip().rpartition("\n")[2]
