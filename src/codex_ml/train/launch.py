"""Start several processes of a stage on one machine, each with a rank, as torchrun does.

This is not torchrun, because DVC and users watch the stage's own process. That process forwards signals, and it exits
with the code and the message of the first failure. When it dies, even by kill -9, all processes end. If a launcher
started this process (torchrun, accelerate launch, or SLURM through either), the others exist already, and this module
starts none.
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
from codex_ml.core.errors import UserError, safe_text
from codex_ml.core.events import RUN, run_id
from codex_ml.core.machine_memory import refuse_too_many
from codex_ml.core.out_of_memory import LOWER, ended_without_memory
from codex_ml.core.ranks import LIFELINE, is_launched, lifeline, world_size
from codex_ml.modeling.memory_need import BASE

PEER_LOST = 75  # exit code of a process that ends because another one did
GRACE = 30.0  # seconds that the others have to end by themselves
# Error texts of gloo, NCCL and torch's store when the other end of a connection is gone. Only the text shows it: gloo
# raises a plain RuntimeError (torch 2.13), as torch does for other errors. If a text is not listed here, the process
# that lost the other one reports an error too. Even then all processes end, and the next run resumes.
LOST = re.compile(
    r"connection (closed|reset)|broken pipe|recv.*failed|sendBytes failed|store.*timeout|remote process exited"
    r"|communicator was aborted",
    re.IGNORECASE,
)


def launch(processes: int, *, threads: int) -> None:
    """Run this script in several processes and exit with their exit code.

    Returns at once inside one of these processes, and where one process is enough.

    Args:
        processes: how many; 0: one per GPU, or one on a machine without GPUs.
        threads: CPU threads that the processes share.

    Raises:
        UserError: when a machine with GPUs has fewer GPUs than processes, when the processes cannot fit into memory, or
            when accelerate's configuration asks for a way of training that the loop does not support.
        SystemExit: in the process that launched the others.
    """
    _drop_settings()
    if (pipe := lifeline()) is not None:
        end_with_parent(pipe)
    if is_launched() and "RANK" in os.environ:
        return
    if processes != 1:
        processes = _resolve(processes)
    if processes == 1:
        return
    with TemporaryDirectory() as folder, ExitStack() as stack:
        started = []
        held, own = os.pipe()  # only this process has the other end, so it ends with this process
        for end in (held, own):
            stack.callback(os.close, end)
        given = ["-P", "-X", f"{LIFELINE}={held}", "-X", f"{RUN}={run_id()}"]
        for rank, environment in enumerate(_environments(processes, threads)):
            stderr = None if rank == 0 else stack.enter_context((Path(folder) / str(rank)).open("wb"))
            started.append(
                subprocess.Popen(
                    [sys.executable, *given, *sys.argv],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stderr=stderr,
                    process_group=0,
                    pass_fds=[held],
                )
            )
        first = _wait(started)
        code = 0 if first is None else started[first].returncode
        if first is not None and not _told(first, [process.returncode for process in started]):
            _tell(first, code, Path(folder) / str(first))
    raise SystemExit(1 if code < 0 or code == PEER_LOST else code)


def _drop_settings() -> None:
    """Remove the settings of `accelerate launch`: accelerate would obey them, and the record would not show them."""
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        wanted = os.environ.pop(name).lower() == "true"
        if is_launched() and wanted and name.startswith("ACCELERATE_USE_") and name != "ACCELERATE_USE_CPU":
            raise UserError(
                f"{name} is true: params.yaml decides how to train, not accelerate's configuration; use torchrun, or a "
                "configuration with distributed_type MULTI_GPU"
            )


def _resolve(processes: int) -> int:
    import torch

    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise UserError(f"runtime.processes: {processes} exceeds the {gpus} GPUs that torch finds; 0 takes them all")
    processes = processes or max(1, gpus)
    refuse_too_many("runtime.processes", processes, BASE[0])
    return processes


def _environments(processes: int, threads: int) -> Iterator[dict[str, str]]:
    """Yield the environment of each rank with torchrun's variables (torch.distributed.run, "Environment Variables")."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    size, share = str(processes), str(max(1, threads // processes))
    common = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for rank in map(str, range(processes)):
        own = {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": share}
        yield {**os.environ, **common, **own}


def _wait(started: list[subprocess.Popen[bytes]]) -> int | None:
    """Wait for all processes and forward signals. Return the first rank that failed for its own reason.

    If all failed ones only lost another process, return the first of them; None if none failed.
    """

    def pass_on(number: int, frame: object) -> None:
        for process in started:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    first, deadline = None, None
    while None in [process.poll() for process in started]:  # a list polls every process, also after a running one
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
    """Whether rank 0 has reported the failure: its own, or one with the same exit code. It shares our stderr."""
    return codes[first] == codes[0] > 0 and codes[0] != PEER_LOST


def _tell(rank: int, code: int, errors: Path) -> None:
    if code < 0:
        name = signal.Signals(-code).name
        line = f"error: process {rank} was ended by {name}; run the same command to go on from the last checkpoint"
        if ended_without_memory(code):
            line += f"; if memory ran out, lower {LOWER['train']}"
    elif code == PEER_LOST:
        line = f"error: process {rank} lost the others; run the same command to go on from the last checkpoint"
    else:
        line = f"process {rank}: {errors.read_text(encoding='utf-8', errors='replace').strip()}"
    print(safe_text(line), file=sys.stderr, flush=True)


@contextmanager
def among_others() -> Iterator[None]:
    """Exit without a message when a call failed because another process is gone; that process reports why."""
    try:
        yield
    except RuntimeError as error:
        if world_size() > 1 and LOST.search(str(error)):
            raise SystemExit(PEER_LOST) from None
        raise
