"""Run work on all cores; the result does not depend on their number."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkstemp
from typing import Any, TypeVar

from codex_ml.core.child import end_with_parent
from codex_ml.core.cores import cores
from codex_ml.core.errors import CheckFailed, naming
from codex_ml.core.loaded_code import WatchedStage, refuse_new, watched
from codex_ml.core.machine_memory import refuse_too_many

Task = TypeVar("Task")
Result = TypeVar("Result")

SMALL = 8 << 20  # bytes that one core processes in the 0.5 s that a worker takes to start
WORKER_BYTES = 24 << 20  # that a worker has for itself once it has imported its libraries (measured)
AHEAD = 2  # tasks per worker that are read in advance; more would only take memory


def workers_for(size: int, wanted: int) -> int:
    """Number of worker processes for `size` bytes of work: 0 where starting them would take longer than the work.

    Args:
        wanted: runtime.workers; 0: one per core.

    Raises:
        UserError: when so many cannot fit into memory.
    """
    if wanted > cores():
        refuse_too_many("runtime.workers", wanted, WORKER_BYTES)
    return 0 if size < SMALL or (wanted or cores()) == 1 else wanted or cores()


def ordered_map(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int, folder: Path
) -> Iterator[tuple[Task, Result]]:
    """Apply `function` to every task and yield (task, result) in the order of the tasks.

    Tasks are read as they are needed, so an endless stream of tasks takes constant memory. Tasks and results go through
    files: a pipe holds 64 KiB, so both sides would wait 64 times for 4 MiB, which took a fourth of the time of ingest.

    Args:
        function: importable by name; what it returns must be picklable when there are workers.
        workers: number of processes; 0: all work runs in this process.
        folder: gets a temporary folder for those files, which is deleted at the end.

    Raises:
        whatever `function` raises; CheckFailed when a worker dies.
    """
    if workers == 0:
        for task in tasks:
            yield task, function(task)
        return
    with shared_workers(workers), TemporaryDirectory(dir=folder) as private:
        yield from _mapped(function, tasks, workers, private)


_shared: ProcessPoolExecutor | None = None


@contextmanager
def shared_workers(workers: int) -> Iterator[None]:
    """Let all calls of `ordered_map` in this block use the same processes: a start takes about 0.3 s of CPU time.

    Args:
        workers: number of processes; 0 for none. A block inside such a block uses the processes of the outer one.
    """
    global _shared
    if _shared is not None:
        yield
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of pyarrow
    # the first task starts a process
    pool = ProcessPoolExecutor(workers or 1, mp_context=context, initializer=_start_worker, initargs=(watched(),))
    _shared = pool
    try:
        yield
    finally:
        _shared = None
        pool.shutdown(wait=True, cancel_futures=True)


def _mapped(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int, folder: str
) -> Iterator[tuple[Task, Result]]:
    pending: deque[tuple[Task, Future[str]]] = deque()
    pool = _shared
    assert pool is not None
    try:
        for task in tasks:
            pending.append((task, pool.submit(_work, function, _written(task, folder), folder)))
            if len(pending) > workers * AHEAD:
                first, future = pending.popleft()
                yield first, _read(future.result())
        while pending:
            first, future = pending.popleft()
            yield first, _read(future.result())
    except BrokenProcessPool:
        raise CheckFailed("a worker process died, most likely out of memory; try runtime.workers: 1") from None
    finally:
        # they write into the folder, which is deleted next
        wait([future for _, future in pending if not future.cancel()])


def _work(function: Callable[[Any], Any], task: str, folder: str) -> str:
    result = function(_read(task))
    refuse_new()
    return _written(result, folder)


def _written(value: Any, folder: str) -> str:
    handle, name = mkstemp(dir=folder)
    with naming(name), os.fdopen(handle, "wb") as file:
        pickle.dump(value, file, pickle.HIGHEST_PROTOCOL)
    return name


def _read(name: str) -> Any:
    path = Path(name)
    with path.open("rb") as file:
        value = pickle.load(file)  # noqa: S301 - our own: the folder is closed to others
    path.unlink()
    return value


def _start_worker(watch: WatchedStage | None) -> None:
    if watch is not None:
        watch.begin()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops the workers
    parent = multiprocessing.parent_process()
    assert parent is not None
    end_with_parent(parent.sentinel)  # a killed parent cannot stop them; they would wait for work forever
