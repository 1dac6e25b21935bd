"""A program by itself: what it prints and its exit code are the result.

Runs inside the sandbox: it imports the standard library only. Used by: supervisor, for the probe.
"""

from __future__ import annotations

import os

from codex_ml.sandbox import guest


def main() -> None:
    """Run the program."""
    task = guest.start()
    os.close(guest.RESULT)
    guest.run(task["solution"], "program", guest.fresh_module("program"))
