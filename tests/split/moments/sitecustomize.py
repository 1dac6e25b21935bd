"""Loaded by Python at start when this folder is in PYTHONPATH: kill -9 at any moment of a stage's work.

A moment is an audit event (a file opened, renamed or deleted, a folder made, a module imported, ...; PEP 578), counted
from the first that names a temporary path, in each process by itself: the stage's own, and the workers.

    CODEX_TEST_KILL="stage 120"   SIGKILL at the 120th moment
    CODEX_TEST_COUNT=PATH         append how many moments there were to PATH.stage and PATH.worker; each worker has a line
"""

import atexit
import os
import signal
import sys

what, _, value = os.environ.get("CODEX_TEST_KILL", "").partition(" ")
counts = os.environ.get("CODEX_TEST_COUNT", "")
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
    with open(f"{counts}.{here}", "a", encoding="utf-8") as file:  # noqa: PTH123 - pathlib would be imported in every process
        file.write(f"{number}\n")


if here and (here == what or counts):
    sys.addaudithook(hook)
if here and counts:
    atexit.register(write)
