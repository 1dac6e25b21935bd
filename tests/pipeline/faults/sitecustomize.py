"""Loaded by Python at start in every workspace: makes the Nth file operation of a kind fail, and imports cheaper.

CODEX_TEST_FAULT="kill os.rename 2" kills the process (SIGKILL) at its second rename of a path with ".tmp-" in it
outside logs/, whose files no stage depends on; "ENOSPC os.rename 1" raises that error instead. `os.replace` and `Path.rename` are the audit event `os.rename`.
"""

import errno
import gc
import os
import signal
import sys

gc.set_threshold(50_000, 10, 10)  # see tests/guard

what, event, number = os.environ.get("CODEX_TEST_FAULT", "none none 0").split()
count = 0


def hook(name: str, args: tuple[object, ...]) -> None:
    global count
    if name != event:
        return
    path = os.fsdecode(args[0])  # type: ignore[arg-type]
    if ".tmp-" in path and "logs/" not in path:
        count += 1
        if count == int(number):
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(getattr(errno, what), os.strerror(getattr(errno, what)), os.fsdecode(args[0]))  # type: ignore[arg-type]


if what != "none":
    sys.addaudithook(hook)
