"""Act on signals that arrive while the main thread waits in C++, where Python's own handlers do not run.

A process waits in C++ for others: in torch's store at the rendezvous, later in gloo or NCCL. Python's C handler still
writes each signal's number to the wakeup descriptor at once (signal.set_wakeup_fd). A thread reads it there.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from codex_ml.core.ranks import world_size
from codex_ml.modeling.process import remove_private

STOPS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def watch_signals(act: Callable[[int], None]) -> Iterator[None]:
    """Call `act` from a thread with the number of each SIGTERM and SIGINT in the block, even while C++ waits.

    The Python handlers run too, as soon as the main thread is back in Python. Blocks nest: the inner one gets the
    signals.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        while number := os.read(reader, 1):
            if number[0] in STOPS:
                act(number[0])

    thread = threading.Thread(target=watch, name="codex-ml-signals", daemon=True)
    thread.start()
    old = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(old)
        os.close(writer)  # the thread reads the end of the pipe and returns
        thread.join()
        os.close(reader)


@contextmanager
def waiting() -> Iterator[None]:
    """Let a signal end this process in a block in which it waits for other processes: there is nothing to save."""
    with watch_signals(end_now) if world_size() > 1 else nullcontext():
        yield


def end_now(number: int) -> None:
    """End this process from a thread, while its main thread waits for a process that may never answer."""
    remove_private()
    line = f"error: {signal.Signals(number).name} while waiting for the other processes; run the same command again\n"
    sys.stderr.write(line)
    sys.stderr.flush()
    os._exit(128 + number)
