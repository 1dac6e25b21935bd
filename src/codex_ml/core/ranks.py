"""The place of this process in a group that a launcher started: rank, number of processes, place on this machine.

Launchers number processes by environment variables such as RANK, which a shell can have too. So they are read only in
a process that a launcher started: torchrun, which also serves `accelerate launch` and sets TORCHELASTIC_RUN_ID, or
train.launch, which says so by an option of the interpreter. Programs that a process starts inherit no such option.

Used by: every stage; only train shares its work.
"""

from __future__ import annotations

import os
import sys

from codex_ml.core.errors import UserError

# Variables that torchrun, accelerate launch and the launchers of MPI set for each process.
RANKS = ("RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
SIZES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
NEEDED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # by torch and accelerate
TORCHRUN = "TORCHELASTIC_RUN_ID"
LIFELINE = "codex_ml_lifeline"  # python -X codex_ml_lifeline=FD: train.launch started this process


def lifeline() -> int | None:
    """The descriptor of the pipe that ends with the process of train.launch that started this one; None without it."""
    given = sys._xoptions.get(LIFELINE)
    return int(given) if isinstance(given, str) and given.isdigit() else None


def is_launched() -> bool:
    """Whether torchrun or train.launch started this process."""
    return bool(os.environ.get(TORCHRUN)) or lifeline() is not None


def rank() -> int:
    """Rank of this process; 0 without a launcher. Only rank 0 writes."""
    return _number("RANK", 0)


def world_size() -> int:
    """Number of processes of the group; 1 without a launcher."""
    return _number("WORLD_SIZE", 1)


def local_rank() -> int | None:
    """Place of this process among those of the group on this machine; None without a launcher."""
    return _number("LOCAL_RANK", 0) if is_launched() and os.environ.get("LOCAL_RANK") else None


def local_world_size() -> int:
    """Number of processes of the group on this machine; 1 without a launcher."""
    return _number("LOCAL_WORLD_SIZE", 1)


def _number(name: str, alone: int) -> int:
    return int(os.environ.get(name) or alone) if is_launched() else alone


def settle_launcher(name: str, *, parallel: bool) -> None:
    """Check the variables with which a launcher numbers processes; unset them where they describe a single process.

    Two processes that do not know of each other would write the same files, and a lone process of rank 1 would write
    none. Without a launcher the variables are unset too, because torch would read them. A launcher of MPI that starts
    the stage itself is refused; under DVC its variables are those of the shell.

    Raises:
        UserError: when the stage is not parallel, or the variables contradict each other.
    """
    if not is_launched() and ("DVC_STAGE" in os.environ or not _mpi_size(name) > 1):
        _unset()
        return
    ranks, sizes = _numbers(name, RANKS), _numbers(name, SIZES)
    others = {key: number for key, number in ranks.items() if number != 0}
    others |= {key: number for key, number in sizes.items() if number != 1}
    if not others:  # a single process: torch needs no process group, and runtime.processes applies
        _unset()
        return
    shown = ", ".join(f"{key}={number}" for key, number in others.items())
    if not parallel:
        raise UserError(
            f"{name} runs in one process, but a launcher started several ({shown}): run `dvc repro {name}` instead, or "
            "unset these variables; only train runs in several processes"
        )
    number, size = ranks.get("RANK", -1), sizes.get("WORLD_SIZE", 0)
    missing = [key for key in NEEDED if not os.environ.get(key)]
    if missing or not 0 <= number < size:
        lacks = f"{', '.join(missing)} not set" if missing else f"RANK must be below {size}"
        raise UserError(
            f"{name}: {shown}, but {lacks}: these variables describe no group of processes. Start it with torchrun, "
            "which sets all of them, or unset these variables and set runtime.processes"
        )
    if not is_launched():
        raise UserError(f"{name}: {shown}, but torchrun did not start it; start it with torchrun")


def _unset() -> None:
    for key in (*RANKS, *SIZES):
        os.environ.pop(key, None)


def _mpi_size(name: str) -> int:
    """The number of processes that a launcher of MPI says it has started; 1 without one."""
    return max([1, *_numbers(name, SIZES[2:]).values()])


def _numbers(name: str, keys: tuple[str, ...]) -> dict[str, int]:
    found = {key: value for key in keys if (value := os.environ.get(key))}
    for key, value in found.items():
        if not value.isascii() or not value.isdigit():
            raise UserError(f"{name}: the environment variable {key} must be a number, found {value!r}; unset it")
    return {key: int(value) for key, value in found.items()}
