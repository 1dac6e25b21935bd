"""How many cores this process may use: those it may run on, and no more than the quota of its control groups.

A container with `--cpus=2` on a machine with 64 cores may run on all of them, for 200 ms of CPU time per 100 ms.
64 threads would use that up in 3 ms and then wait for the rest of the 100 ms.

Sources: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max) and Documentation/scheduler/sched-bwc.rst
(cpu.cfs_quota_us). Used by: parallel, record, hashing, tokens.engine; `codex-ml doctor`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

GROUPS = Path("/sys/fs/cgroup")  # where systemd and containers mount them
OWN_GROUPS = Path("/proc/self/cgroup")
NUMBER = re.compile("[1-9][0-9]{0,17}")


def cores() -> int:
    """Cores that this process may use, at least 1.

    A quota of 1.5 cores counts as 2: one thread would leave a third of it unused.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine_cores()
    return max(1, min([allowed, *(math.ceil(quota) for quota in quotas(GROUPS, OWN_GROUPS))]))


def machine_cores() -> int:
    """Cores of the machine, whatever this process may use; 1 where the system does not say."""
    return os.cpu_count() or 1


def quotas(groups: Path, own: Path) -> Iterator[float]:
    """Quotas of this process, in cores: of its control group and of each group around that one; none where unlimited.

    Args:
        groups: where the control groups are mounted.
        own: the file in which the kernel names the groups of this process, a line `number:controllers:/path` for each
            hierarchy; version 2 has one, without a list of controllers.
    """
    for line in _text(own).splitlines():
        if line.count(":") < 2:
            continue
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in (groups / controllers, groups / "cpu") if controllers else (groups, groups / "unified"):
            for folder in _with_parents(mount, path):
                yield from _quota_v1(folder) if controllers else _quota_v2(folder)


def _with_parents(mount: Path, path: str) -> Iterator[Path]:
    """The folder of a group and of all groups around it; only the mount where `path` lies outside the container."""
    group = PurePosixPath(path.lstrip("/"))
    for part in (group, *group.parents):
        if ".." not in part.parts:
            yield mount / part


def _quota_v2(folder: Path) -> Iterator[float]:
    """The quota in cpu.max: `150000 100000`, microseconds per period, or `max 100000` for no quota."""
    yield from _share(*[*_text(folder / "cpu.max").split(), "", ""][:2])


def _quota_v1(folder: Path) -> Iterator[float]:
    """The quota in cpu.cfs_quota_us: microseconds per period, or -1 for no quota."""
    yield from _share(_text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip())


def _share(quota: str, period: str) -> Iterator[float]:
    """Quota / period; none unless both are numbers above 0, because other kernels write other texts there."""
    if NUMBER.fullmatch(quota) and NUMBER.fullmatch(period):
        yield int(quota) / int(period)


def _text(file: Path) -> str:
    """A file of the kernel; empty where this system, or this group, does not have it."""
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
