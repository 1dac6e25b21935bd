"""How much memory this process may use: that of the machine, and no more than its control groups allow.

Sources: Linux, Documentation/admin-guide/cgroup-v2.rst (memory.max) and cgroup-v1/memory.rst (limit_in_bytes).
Used by: parallel, modeling.memory_need, train.launch; `codex-ml check` and `codex-ml doctor`.
"""

from __future__ import annotations

from pathlib import Path

from codex_ml.core.cores import GROUPS, OWN_GROUPS
from codex_ml.core.errors import UserError

GIB = 1 << 30
# Devices of a machine with a GPU: the drivers of NVIDIA, of AMD, and of Windows under WSL.
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def machine_memory() -> int:
    """Bytes that all processes of this run may use together, swap space included."""
    import psutil

    limits = [limit for limit, _ in memory_limits(GROUPS, OWN_GROUPS)]
    return int(min([psutil.virtual_memory().total, *limits]) + psutil.swap_memory().total)


def refuse_too_many(key: str, number: int, least: int) -> None:
    """Raise UserError where so many processes cannot fit into memory.

    Args:
        key: the parameter that asks for them.
        least: bytes that each of them has for itself.
    """
    if number * least > (memory := machine_memory()):
        raise UserError(
            f"{key} {number} needs at least {number * least / GIB:,.1f} GiB of memory, {least >> 20} MiB for each "
            f"process, and this machine has {memory / GIB:,.1f} GiB; use at most {max(1, memory // least)}"
        )


def gpu_memory() -> int | None:
    """Bytes of the largest GPU; None where NVML finds none."""
    if not any(Path(device).exists() for device in GPU_DEVICES):
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        return max((int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) for handle in handles), default=None)
    except pynvml.NVMLError:
        return None


def memory_limits(groups: Path, own: Path) -> list[tuple[int, int]]:
    """(limit, used) in bytes of the control groups of this process that limit memory.

    Args:
        groups: where the control groups are mounted.
        own: the file in which the kernel names the groups of this process, see `cores.quotas`.
    """
    found = []
    lines = own.read_text(encoding="ascii", errors="replace").splitlines() if own.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        place = Path("" if ".." in Path(path).parts else path.lstrip("/"))  # outside the container: only the mount
        mount = groups / "memory" if controllers else groups
        names = ("limit_in_bytes", "usage_in_bytes") if controllers else ("max", "current")
        for folder in (mount / place, *(mount / parent for parent in place.parents)):
            limit, used = (_number(folder / f"memory.{name}") for name in names)
            if limit is not None and used is not None:
                found.append((limit, used))
    return found


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max", or no such group
        return None
