"""The harness's end of a supervisor: one process that runs one trial at a time. Used by: ladder, judge."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path
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
            [sys.executable, "-I", "-S", "-c", START, package],
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

    def close(self) -> None:
        """End the supervisor and everything that it started."""
        self._process.communicate()  # closes stdin, which ends it, and waits

    def ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send one message and wait for the answer.

        Args:
            seconds: the wall limit of the trial.

        Raises:
            CheckFailed: when the supervisor ended or does not answer.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message).encode("ascii") + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its stderr says why
        if select.select([self._process.stdout], [], [], seconds + PATIENCE)[0] and (
            line := self._process.stdout.readline()
        ):
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._process.kill()
        _, said = self._process.communicate()
        last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise CheckFailed(f"the sandbox's supervisor ended: {one_line(last or 'it did not answer')}")
