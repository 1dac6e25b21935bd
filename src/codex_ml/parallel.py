"""Work for all cores whose result does not depend on how many there are."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from codex_ml.errors import CheckFailed

Task = TypeVar("Task")
Result = TypeVar("Result")

SMALL = 8 << 20  # bytes; a worker starts in half a second, in which one core does this much
AHEAD = 2  # tasks a worker that are read in advance; more would only hold memory


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_for(size: int, wanted: int) -> int:
    """Worker processes for `size` bytes of work: none where starting them would take longer than the work.

    Args:
        wanted: runtime.workers; 0 for one a core.
    """
    return 0 if size < SMALL or (wanted or cores()) == 1 else wanted or cores()


def ordered_map(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int
) -> Iterator[tuple[Task, Result]]:
    """Apply `function` to every task and yield (task, result) in the order of the tasks.

    Tasks are drawn as they are needed, so an endless stream of them takes constant memory.

    Args:
        function: importable by name; what it returns must be picklable when there are workers.
        workers: processes; 0 for none, then all happens here.

    Raises:
        whatever `function` raises; CheckFailed when a worker dies.
    """
    if workers == 0:
        for task in tasks:
            yield task, function(task)
        return
    pending: deque[tuple[Task, Future[Result]]] = deque()
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of pyarrow
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        for task in tasks:
            pending.append((task, pool.submit(function, task)))
            if len(pending) > workers * AHEAD:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    except BrokenProcessPool:
        raise CheckFailed("a worker process died, most likely for want of memory; try runtime.workers: 1") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells the workers to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers; they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
