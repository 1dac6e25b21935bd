"""The events with which a run of a stage begins and ends; `codex-ml runs` reads them.

A run that is killed has a `stage_started` and no end.

Used by: core.stage.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from codex_ml.core.errors import one_line
from codex_ml.core.events import FAILED, FINISHED, INTERRUPTED, STARTED, event
from codex_ml.core.interruption import is_interruption
from codex_ml.core.side_note import forget_side_note

log = logging.getLogger("codex_ml")
MAXRSS = 1 << 20 if sys.platform == "darwin" else 1 << 10  # units of ru_maxrss per MiB: bytes on macOS, else KiB


@contextmanager
def logged_run(stage: str) -> Iterator[None]:
    """Log the start of a stage's run, and how it ends: time, memory, and for a failure the reason."""
    started = time.monotonic()
    who = {"pid": os.getpid(), "experiment": os.environ.get("DVC_EXP_NAME")}
    log.info("%s: started", stage, extra=event(STARTED, quiet=True, **who))
    try:
        yield
    except BaseException as error:
        name, why = _ended(error)
        level = logging.WARNING if name == INTERRUPTED else logging.ERROR
        # the line on the screen follows, from one_line_errors
        log.log(level, "%s: %s", stage, why, extra=event(name, quiet=True, kind=type(error).__name__, **_cost(started)))
        raise
    finally:
        forget_side_note()
    cost = _cost(started)
    log.info("%s: done in %.1f s", stage, cost["seconds"], extra=event(FINISHED, **cost))


def _ended(error: BaseException) -> tuple[str, str]:
    """The event of a failure, and its reason."""
    if is_interruption(error):
        return INTERRUPTED, "interrupted"
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128:
        return INTERRUPTED, f"ended by {signal.Signals(error.code - 128).name}"
    if isinstance(error, SystemExit):
        return FAILED, f"exit code {error.code}"
    return INTERRUPTED if getattr(error, "interrupted", False) else FAILED, one_line(error)


def _cost(started: float) -> dict[str, Any]:
    """Seconds of the clock and of the CPU, and peak memory in MiB of this process and of its largest child."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    used = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return {
        "seconds": round(time.monotonic() - started, 3),
        "cpu_seconds": round(used, 3),
        "peak_memory_mb": round(own.ru_maxrss / MAXRSS, 1),
        "child_peak_memory_mb": round(children.ru_maxrss / MAXRSS, 1),
    }
