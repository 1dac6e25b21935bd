"""The rank of this process: read and check the environment variables that torchrun and other launchers set.

Used by: every stage; only train shares its work.
"""

from __future__ import annotations

import os

from codex_ml.core.errors import UserError

# Variables that torchrun, accelerate launch and the launchers of MPI set for each process.
RANKS = ("RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
SIZES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
NEEDED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # by torch and accelerate


def rank() -> int:
    """Rank of this process, as a launcher sets it; 0 without a launcher. Only rank 0 writes."""
    return int(os.environ.get("RANK", "0"))


def settle_launcher(name: str, *, parallel: bool) -> None:
    """Check the variables with which a launcher numbers processes; unset them where they describe a single process.

    Two processes that do not know of each other would write the same files, and a lone process of rank 1 would write
    none.

    Raises:
        UserError: when the stage is not parallel, or the variables contradict each other.
    """
    ranks, sizes = _numbers(name, RANKS), _numbers(name, SIZES)
    others = {key: number for key, number in ranks.items() if number != 0}
    others |= {key: number for key, number in sizes.items() if number != 1}
    if not others:  # a single process: torch needs no process group, and runtime.processes applies
        for key in (*RANKS, *SIZES):
            os.environ.pop(key, None)
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


def _numbers(name: str, keys: tuple[str, ...]) -> dict[str, int]:
    found = {key: value for key in keys if (value := os.environ.get(key))}
    for key, value in found.items():
        if not value.isascii() or not value.isdigit():
            raise UserError(f"{name}: the environment variable {key} must be a number, found {value!r}; unset it")
    return {key: int(value) for key, value in found.items()}
