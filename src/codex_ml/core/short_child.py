"""Run a program that gets bytes on its standard input and has a time limit; what goes wrong is one line.

It sees an allow-list of environment variables and no home folder of the user, like every child of the pipeline
(core.child).

Used by: core.event_hooks, core.result_sender.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from codex_ml.core.child import KEPT
from codex_ml.core.errors import one_line

SAID = 2000  # bytes at the end of its standard error that are read for its last line


def run_briefly(command: Sequence[str], given: bytes, *, seconds: float, variables: Mapping[str, str]) -> str:
    """Run a program to its end, and kill it and the processes that it started after `seconds`.

    Args:
        given: what it gets on its standard input.
        variables: of the environment, beside the allow-list.

    Returns:
        why it failed, on one line; "" if it ended with exit code 0.
    """
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    with tempfile.TemporaryFile() as errors:  # and not a pipe, which a child that left the group could hold open
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**environment, "HOME": str(Path.cwd()), **variables},
                start_new_session=True,  # so that its own children end with it
            )
        except (OSError, ValueError) as error:
            return one_line(error)
        try:
            process.communicate(given, timeout=seconds)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            with suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
            if isinstance(error, subprocess.TimeoutExpired):
                return f"it did not end within {seconds:g} s"
            raise
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - SAID))
        last = errors.read(SAID).decode("utf-8", "replace").strip().splitlines()[-1:]
    said = "".join(f": {one_line(text)}" for text in last)
    return f"exit code {process.returncode}{said}" if process.returncode else ""
