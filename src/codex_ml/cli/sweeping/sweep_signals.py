"""SIGTERM (a scheduler, `timeout`) and SIGHUP (a closed terminal) end a sweep and its trial, as Ctrl-C does.

DVC has its own process group, so a signal that reaches the sweep does not reach the trial: the sweep must end it.

Used by: `codex-ml sweep`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from codex_ml.core.errors import CheckFailed

ENDING = (signal.SIGTERM, signal.SIGHUP)


class SweepTerminated(KeyboardInterrupt):
    """One of ENDING arrived; whatever handles Ctrl-C handles it."""


class SweepEnded(CheckFailed):
    """A signal ended the sweep; the exit code is the one that a shell reports, 128 + its number."""

    interrupted = True

    def __init__(self, number: int) -> None:
        super().__init__(f"{signal.Signals(number).name}: the sweep ended; run the same command again to go on")
        self.exit_code = 128 + number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise `SweepTerminated` in the block for each signal of ENDING, except one that is ignored, as under nohup.

    Raises:
        SweepEnded: when `SweepTerminated` leaves the block.
    """
    old = {number: signal.signal(number, _terminate) for number in ENDING if not _ignored(number)}
    try:
        yield
    except SweepTerminated as stop:
        raise SweepEnded(stop.args[0]) from None
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SweepTerminated(number)
