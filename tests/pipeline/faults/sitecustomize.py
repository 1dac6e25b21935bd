"""Loaded by Python at start in every workspace: makes the Nth file operation of a kind fail, and imports cheaper.

CODEX_TEST_FAULT="kill os.rename 2" kills the process (SIGKILL) at its second rename of a path with "tmp" in it;
"ENOSPC os.rename 1" raises that error instead. `os.replace` and `Path.rename` are the audit event `os.rename`.
"""

import errno
import gc
import os
import signal
import sys

# Importing torch and transformers makes a million objects. By default the collector reads them again and again meanwhile:
# 1 s of the 6 s of CPU time that training takes here.
gc.set_threshold(100_000, 20, 100)

what, event, number = os.environ.get("CODEX_TEST_FAULT", "none none 0").split()
count = 0


def hook(name: str, args: tuple[object, ...]) -> None:
    global count
    if name == event and ".tmp-" in os.fsdecode(args[0]):  # type: ignore[arg-type]
        count += 1
        if count == int(number):
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(getattr(errno, what), os.strerror(getattr(errno, what)), os.fsdecode(args[0]))  # type: ignore[arg-type]


if what != "none":
    sys.addaudithook(hook)
