"""Work for all cores whose result does not depend on how many there are."""

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

Task = TypeVar("Task")
Result = TypeVar("Result")

SMALL = 8 << 20  # bytes; a worker starts in half a second, in which one core does this much
AHEAD = 2  # tasks a worker that are read in advance; more would only hold memory


def workers_for(size: int, wanted: int) -> int:
    """Worker processes for `size` bytes of work: none where starting them would take longer than the work.

    Args:
        wanted: runtime.workers; 0: one per core.
    """
    return 0 if size < SMALL or (wanted or cores()) == 1 else wanted or cores()


def ordered_map(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int, folder: Path
) -> Iterator[tuple[Task, Result]]:
    """Apply `function` to every task and yield (task, result) in the order of the tasks.

    Tasks are drawn as they are needed, so an endless stream of them takes constant memory. Tasks and results travel in
    files: through a pipe, which holds 64 KiB, 4 MiB make both sides wait 64 times, a fourth of the time of ingest.

    Args:
        function: importable by name; what it returns must be picklable when there are workers.
        workers: processes; 0 for none, then all happens here.
        folder: where a folder for those files may be; it is gone in the end.

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
    """Let all calls of `ordered_map` in this block use the same processes: each start takes some 0.3 s of a core.

    Args:
        workers: processes; 0 for none. A block inside of such a block uses the processes of the outer one.
    """
    global _shared
    if _shared is not None:
        yield
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of pyarrow
    pool = ProcessPoolExecutor(workers or 1, mp_context=context, initializer=_start_worker)  # starts none by itself
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
        raise CheckFailed("a worker process died, most likely for want of memory; try runtime.workers: 1") from None
    finally:
        wait([future for _, future in pending if not future.cancel()])  # they write into the folder, which goes now


def _work(function: Callable[[Any], Any], task: str, folder: str) -> str:
    return _written(function(_read(task)), folder)


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


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells the workers to stop
    parent = multiprocessing.parent_process()
    assert parent is not None
    end_with_parent(parent.sentinel)  # a killed parent cannot stop them; they would wait for work for ever
