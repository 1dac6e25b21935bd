"""Several processes on one machine, each a copy of the stage with a rank, as torchrun starts them.

Own, because DVC and people see the stage's process: it passes signals on, ends with the first failure's code and line,
and its death ends all, also by kill -9. Whoever sets RANK and WORLD_SIZE (torchrun, accelerate launch, SLURM through
either) has processes already; this module then starts none.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from codex_ml.core.child import end_with_parent
from codex_ml.core.errors import UserError

LAUNCHED = "CODEX_ML_LAUNCHED"
PEER_LOST = 75  # exit code of a process that ends because another one did
GRACE = 30.0  # seconds in which the others may end by themselves
# What gloo, NCCL and torch's store say when the other end of a connection is gone. Only the text tells: gloo raises a
# plain RuntimeError for it (torch 2.13), as torch does for other errors. A text that is not listed here costs an error
# of its own from the process that lost the other one; that all end and the next run goes on does not depend on it.
LOST = re.compile(
    r"connection (closed|reset)|broken pipe|recv.*failed|sendBytes failed|store.*timeout|remote process exited"
    r"|communicator was aborted",
    re.IGNORECASE,
)


def launch(processes: int, *, threads: int) -> None:
    """Run this script in several processes and end with their exit code; returns at once inside one of them.

    Args:
        processes: how many; 0 for one a GPU, which is one on a machine without.
        threads: CPU threads that they share.

    Raises:
        UserError: when there are fewer GPUs than processes, and at least one, or when `accelerate launch` was told to
            train in a way that the loop does not know.
        SystemExit: in the process that launched.
    """
    _drop_settings()
    if "RANK" in os.environ:
        if os.environ.pop(LAUNCHED, None):
            end_with_parent(0)
        return
    if processes != 1:
        processes = _resolve(processes)
    if processes == 1:
        return
    with TemporaryDirectory() as folder, ExitStack() as stack:
        started = []
        for rank, environment in enumerate(_environments(processes, threads)):
            stderr = None if rank == 0 else stack.enter_context((Path(folder) / str(rank)).open("wb"))
            started.append(
                subprocess.Popen(
                    [sys.executable, *sys.argv], env=environment, stdin=subprocess.PIPE, stderr=stderr, process_group=0
                )
            )
        first = _wait(started)
        code = 0 if first is None else started[first].returncode
        if first is not None and not _told(first, [process.returncode for process in started]):
            _tell(first, code, Path(folder) / str(first))
    raise SystemExit(1 if code < 0 or code == PEER_LOST else code)


def _drop_settings() -> None:
    """Forget what `accelerate launch` says beside the ranks: accelerate would obey, and the record would not know."""
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        wanted = os.environ.pop(name).lower() == "true"
        if wanted and name.startswith("ACCELERATE_USE_") and name != "ACCELERATE_USE_CPU":
            raise UserError(
                f"{name} is true: accelerate's configuration asks for a way to train that params.yaml decides; use "
                "torchrun, or a configuration with distributed_type MULTI_GPU"
            )


def _resolve(processes: int) -> int:
    import torch

    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise UserError(f"runtime.processes: {processes} were asked for, but torch finds {gpus} GPUs; 0 takes them all")
    return processes or max(1, gpus)


def _environments(processes: int, threads: int) -> Iterator[dict[str, str]]:
    """The variables of torchrun (torch.distributed.run, "Environment Variables"), for each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    size, share = str(processes), str(max(1, threads // processes))
    common = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for rank in map(str, range(processes)):
        own = {"RANK": rank, "LOCAL_RANK": rank, LAUNCHED: "1", "OMP_NUM_THREADS": share}
        yield {**os.environ, **common, **own}


def _wait(started: list[subprocess.Popen[bytes]]) -> int | None:
    """Wait for all, pass signals on; the rank that failed first, for a reason of its own."""

    def pass_on(number: int, frame: object) -> None:
        for process in started:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    first, deadline = None, None
    while None in [process.poll() for process in started]:  # a list: each is polled, also those after one that runs
        failed = [rank for rank, process in enumerate(started) if process.returncode not in (None, 0)]
        own = [rank for rank in failed if started[rank].returncode != PEER_LOST]
        first = first if first is not None or not own else own[0]
        if failed and deadline is None:
            deadline = time.monotonic() + GRACE
        if deadline is not None and time.monotonic() > deadline:
            for process in started:
                process.kill()
        time.sleep(0.05)
    if first is None:
        failed = [rank for rank, process in enumerate(started) if process.returncode]
        first = next((rank for rank in failed if started[rank].returncode != PEER_LOST), failed[0] if failed else None)
    return first


def _told(first: int, codes: list[int]) -> bool:
    """Whether rank 0, whose stderr is this process's own, has said it: its own failure, or one that all came to."""
    return codes[first] == codes[0] > 0 and codes[0] != PEER_LOST


def _tell(rank: int, code: int, errors: Path) -> None:
    if code < 0:
        name = signal.Signals(-code).name
        line = f"error: process {rank} was ended by {name}; run the same command to go on from the last checkpoint"
    elif code == PEER_LOST:
        line = f"error: process {rank} lost the others; run the same command to go on from the last checkpoint"
    else:
        line = f"process {rank}: {errors.read_text(encoding='utf-8', errors='replace').strip()}"
    print(line, file=sys.stderr, flush=True)


@contextmanager
def among_others() -> Iterator[None]:
    """End quietly when a call failed because another process is gone; that one reports why."""
    try:
        yield
    except RuntimeError as error:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and LOST.search(str(error)):
            raise SystemExit(PEER_LOST) from None
        raise
