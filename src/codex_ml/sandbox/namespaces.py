"""The last rung: user namespaces with Landlock and seccomp by system calls of our own, for machines without bubblewrap.

Two processes per program:

    first      process 1 of the new process namespace: builds the file system, reaps; the kernel ends all others with it
    program    its child: drops what is left, then becomes the interpreter

Each dies with its parent. Used by: supervisor.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

from codex_ml.sandbox import kernel
from codex_ml.sandbox.inventory import NULL, WORK, Inventory
from codex_ml.sandbox.trial import FILES

STAGE = "/tmp"  # noqa: S108 - a folder that every Linux has; only the new namespace sees the mount on it
FAILED = 125  # exit code of a process that could not set up the sandbox


@dataclass(frozen=True)
class Layout:
    """The file system of the sandbox as a list of steps, so that no program waits while they are worked out.

    Attributes:
        folders: to be made, a folder before what is below it.
        files: empty files that binds cover.
        binds: (place outside, place inside, attributes of the mount).
        links: (what the link says, place inside).
    """

    folders: tuple[Path, ...]
    files: tuple[Path, ...]
    binds: tuple[tuple[str, str, int], ...]
    links: tuple[tuple[str, Path], ...]


@cache
def lay_out(inventory: Inventory) -> Layout:
    """Return the steps for an inventory; places outside are below /old, and places inside below /new."""
    shut = kernel.SET_READ_ONLY | kernel.SET_NO_SUID | kernel.SET_NO_DEV
    shown = [*((*pair, shut) for pair in inventory.binds), (NULL, NULL, kernel.SET_NO_SUID)]
    whole = [inside for outside, inside, _ in shown if Path(outside).is_dir()]
    files = [inside for outside, inside, _ in shown if not Path(outside).is_dir()]
    above = {
        parent for place in (*files, *whole, *(path for _, path in inventory.links)) for parent in Path(place).parents
    }
    folders = sorted({*map(Path, whole), *above, Path(WORK)} - {Path("/")})
    return Layout(
        folders=tuple(Path(f"/new{folder}") for folder in folders),
        files=tuple(Path(f"/new{file}") for file in files),
        binds=tuple((f"/old{outside}", f"/new{inside}", flags) for outside, inside, flags in shown),
        links=tuple((says, Path(f"/new{path}")) for says, path in inventory.links),
    )


@dataclass(frozen=True)
class Confinement:
    """What one program is confined to.

    Attributes:
        layout: of its file system.
        folder_bytes: size of the work folder.
        filter: the seccomp filter.
        user: the user and the group that it is outside and inside.
    """

    layout: Layout
    folder_bytes: int
    filter: bytes
    user: tuple[int, int]


def become_confined(confinement: Confinement, start: Callable[[], NoReturn]) -> NoReturn:
    """Turn this process, the first of its namespaces, into the reaper of one program. It ends as the program ends.

    Args:
        start: becomes the program (execve).
    """
    kernel.prctl(kernel.PARENT_DEATH, signal.SIGKILL)
    kernel.prctl(kernel.DUMPABLE, 1)  # after setuid, the files of this process in /proc would be root's
    user, group = confinement.user
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with Path(f"/proc/self/{name}").open("wb", 0) as file:
            file.write(text.encode())
    _build(confinement.layout, confinement.folder_bytes)
    child = os.fork()
    if child:
        kernel.prctl(kernel.DUMPABLE, 0)
        _end_like(child)
    kernel.prctl(kernel.PARENT_DEATH, signal.SIGKILL)
    os.setsid()
    everything = (1 << 16) - 1 - kernel.MAKE_CHAR - kernel.MAKE_BLOCK
    null = kernel.READ_FILE | kernel.WRITE_FILE | kernel.TRUNCATE
    kernel.restrict_files({"/": kernel.LOOK, WORK: everything, NULL: null})
    kernel.install_filter(confinement.filter)
    start()


def _end_like(child: int) -> NoReturn:
    """Hold nothing open, reap until the child ends, and end with its exit code."""
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _build(layout: Layout, folder_bytes: int) -> None:
    """Make the file system of the sandbox the root of this process."""
    kernel.mount("none", "/", None, kernel.PRIVATE | kernel.RECURSIVE)
    plain = kernel.NO_SUID | kernel.NO_DEV
    kernel.mount("tmpfs", STAGE, "tmpfs", plain, "mode=0755")
    for name in ("old", "new"):
        Path(STAGE, name).mkdir()
    kernel.pivot_root(STAGE, f"{STAGE}/old")
    os.chdir("/")
    kernel.mount("tmpfs", "/new", "tmpfs", plain, "mode=0755")
    for folder in layout.folders:
        folder.mkdir()
    for file in layout.files:
        file.touch()
    for outside, inside, flags in layout.binds:
        kernel.mount(outside, inside, None, kernel.BIND | kernel.RECURSIVE)
        kernel.restrict_mount(inside, flags, recursive=True)
    for says, path in layout.links:
        path.symlink_to(says)
    kernel.mount("tmpfs", f"/new{WORK}", "tmpfs", plain, f"mode=0755,size={folder_bytes},nr_inodes={2 * FILES}")
    kernel.restrict_mount("/new", kernel.SET_READ_ONLY | plain, recursive=False)
    os.chdir("/new")
    kernel.pivot_root(".", ".")
    kernel.unmount(".")  # the old root lies on top of the new one
    os.chdir(WORK)
