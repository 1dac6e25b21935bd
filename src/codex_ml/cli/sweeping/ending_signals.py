"""SIGTERM (a scheduler, `timeout`) and SIGHUP (a closed terminal) end a command and its experiment, as Ctrl-C does.

DVC has its own process group, so a signal that reaches the command does not reach DVC: the command must end it.

Used by: `codex-ml sweep`, `codex-ml folds`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from codex_ml.core.errors import CheckFailed

ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """One of ENDING arrived; whatever handles Ctrl-C handles it."""


class EndedBySignal(CheckFailed):
    """A signal ended the command; the exit code is the one that a shell reports, 128 + its number."""

    interrupted = True

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"{signal.Signals(number).name}: {what} ended; run the same command again to go on")
        self.exit_code = 128 + number


@contextmanager
def ended_by_signals(what: str) -> Iterator[None]:
    """Raise `Terminated` in the block for each signal of ENDING, except one that is ignored, as under nohup.

    Args:
        what: what ends then, for the message.

    Raises:
        EndedBySignal: when `Terminated` leaves the block.
    """
    old = {number: signal.signal(number, _terminate) for number in ENDING if not _ignored(number)}
    try:
        yield
    except Terminated as stop:
        raise EndedBySignal(stop.args[0], what) from None
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(number)
