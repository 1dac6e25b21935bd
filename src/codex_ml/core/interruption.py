"""An interruption by the user, in whatever form it arrives.

Ctrl-C reaches all processes of a terminal, the C++ compiler of torch.compile too. torch then reports that the compiler
failed, and raises that from, or with, what interrupted it.

Used by: errors, error_log, run_events.
"""

from __future__ import annotations

import signal
import subprocess


def is_interruption(error: BaseException | None) -> bool:
    """Whether an exception is KeyboardInterrupt, or was raised because of one, or of a program that Ctrl-C ended.

    An error of ours, which has an exit code, says itself what it is.
    """
    if hasattr(error, "exit_code"):
        return False
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        if isinstance(each, KeyboardInterrupt):
            return True
        if isinstance(each, subprocess.CalledProcessError) and each.returncode == -signal.SIGINT:
            return True
        seen.add(id(each))
        # torch's BackendCompilerFailed keeps the error of the compiler in an attribute
        left += [each.__cause__, each.__context__, getattr(each, "inner_exception", None)]
    return False
