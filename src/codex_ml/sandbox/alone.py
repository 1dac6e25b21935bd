"""A program by itself: what it prints and its exit code are the result.

Runs inside the sandbox: it imports the standard library only. Used by: supervisor, for the probe.
"""

from __future__ import annotations

import posix

from codex_ml.sandbox import guest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(task: dict[str, Any]) -> None:
    """Run the program."""
    guest.start(task)
    posix.close(guest.RESULT)
    guest.run(task["solution"], "program", guest.fresh_module("program"))
