"""Loaded by Python at start when this folder is in PYTHONPATH: kill -9 at any moment of a stage's work.

A moment is an audit event (a file opened, renamed or deleted, a folder made, a module imported, ...; PEP 578), counted
from the first that names a temporary path. Both variables are about one process: the stage's own, or a worker.

    CODEX_TEST_KILL="stage 120"   SIGKILL at the 120th moment
    CODEX_TEST_COUNT="stage PATH" append how many moments there were; each worker has a line
"""

import atexit
import os
import signal
import sys

what, _, value = os.environ.get("CODEX_TEST_KILL", "").partition(" ")
counted, _, counts = os.environ.get("CODEX_TEST_COUNT", "").partition(" ")
here = (
    "stage" if sys.orig_argv[1].startswith("stages/") else "worker" if "--multiprocessing-fork" in sys.orig_argv else ""
)
last = int(value) if what == here else 0
moments = 0


def hook(name: str, args: tuple[object, ...]) -> None:
    global moments
    if moments or (args and isinstance(args[0], str | os.PathLike) and ".tmp-" in os.fspath(args[0])):
        moments += 1
        if moments == last:
            os.kill(os.getpid(), signal.SIGKILL)


def write() -> None:
    number = moments  # the lines below would count too
    with open(counts, "a", encoding="utf-8") as file:  # noqa: PTH123 - pathlib would be imported in every process
        file.write(f"{number}\n")


if here and here in (what, counted):
    sys.addaudithook(hook)
if here and counted == here:
    atexit.register(write)
