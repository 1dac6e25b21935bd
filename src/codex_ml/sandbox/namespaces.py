"""The last rung: user namespaces with Landlock and seccomp by system calls of our own, for machines without bubblewrap.

Three processes per program, each the child of the one before:

    monitor    makes the namespaces and waits
    first      process 1 of the new process namespace: builds the file system, reaps; the kernel ends all others with it
    program    drops what is left, then becomes the interpreter

Each dies with its parent. Used by: supervisor.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from codex_ml.sandbox import kernel
from codex_ml.sandbox.inventory import NULL, WORK, Inventory

STAGE = "/tmp"  # noqa: S108 - a folder that every Linux has; only the new namespace sees the mount on it
FILES = 10_000  # files in the work folder
FAILED = 125  # exit code of a process that could not set up the sandbox


def become_confined(inventory: Inventory, folder_bytes: int, program: bytes, start: Callable[[], NoReturn]) -> NoReturn:
    """Turn this process, a fresh fork, into the monitor of one program. It ends as the program ends.

    Args:
        folder_bytes: size of the work folder.
        program: the seccomp filter.
        start: becomes the program (execve).
    """
    user, group = os.getuid(), os.getgid()
    kernel.prctl(kernel.PARENT_DEATH, signal.SIGKILL)
    kernel.prctl(kernel.DUMPABLE, 1)  # after setuid, the files of this process in /proc would be root's
    kernel.unshare(kernel.NEW_ALL)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    child = os.fork()
    if child:
        _end_like(child)
    kernel.prctl(kernel.PARENT_DEATH, signal.SIGKILL)
    _build(inventory, folder_bytes)
    child = os.fork()
    if child:
        kernel.prctl(kernel.DUMPABLE, 0)
        _end_like(child)
    kernel.prctl(kernel.PARENT_DEATH, signal.SIGKILL)
    os.setsid()
    everything = (1 << 16) - 1 - kernel.MAKE_CHAR - kernel.MAKE_BLOCK
    null = kernel.READ_FILE | kernel.WRITE_FILE | kernel.TRUNCATE
    kernel.restrict_files({"/": kernel.LOOK, WORK: everything, NULL: null})
    kernel.install_filter(program)
    start()


def _end_like(child: int) -> NoReturn:
    """Hold nothing open, reap until the child ends, and end with its exit code."""
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _build(inventory: Inventory, folder_bytes: int) -> None:
    """Make the file system of the sandbox the root of this process."""
    kernel.mount("none", "/", None, kernel.PRIVATE | kernel.RECURSIVE)
    plain = kernel.NO_SUID | kernel.NO_DEV
    kernel.mount("tmpfs", STAGE, "tmpfs", plain, "mode=0755")
    for folder in ("old", "new"):
        Path(STAGE, folder).mkdir()
    kernel.pivot_root(STAGE, f"{STAGE}/old")
    os.chdir("/")
    kernel.mount("tmpfs", "/new", "tmpfs", plain, "mode=0755")
    for outside, inside in inventory.binds:
        _bind(outside, inside, kernel.SET_READ_ONLY | kernel.SET_NO_SUID | kernel.SET_NO_DEV)
    _bind(NULL, NULL, kernel.SET_NO_SUID)
    for says, path in inventory.links:
        link = Path(f"/new{path}")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(says)
    Path(f"/new{WORK}").mkdir()
    kernel.mount("tmpfs", f"/new{WORK}", "tmpfs", plain, f"mode=0755,size={folder_bytes},nr_inodes={FILES}")
    kernel.restrict_mount("/new", kernel.SET_READ_ONLY | plain, recursive=False)
    os.chdir("/new")
    kernel.pivot_root(".", ".")
    kernel.unmount(".")  # the old root lies on top of the new one
    os.chdir(WORK)


def _bind(outside: str, inside: str, flags: int) -> None:
    source, target = Path(f"/old{outside}"), Path(f"/new{inside}")
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    kernel.mount(str(source), str(target), None, kernel.BIND | kernel.RECURSIVE)
    kernel.restrict_mount(str(target), flags, recursive=True)
