"""System calls that Python does not offer: namespaces, mounts, Landlock, seccomp. Linux on x86-64 and AArch64.

Only the supervisor and its children load this module; ctypes takes 20 ms.

Used by: supervisor, namespaces.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct

LIBC = ctypes.CDLL(None, use_errno=True)
HOLDING = ctypes.PyDLL(None, use_errno=True)  # keeps the lock of the interpreter during a call

# linux/sched.h: the namespaces that a sandbox has for itself
NEW_MOUNTS, NEW_USERS = 0x00020000, 0x10000000
NEW_ALL = NEW_MOUNTS | NEW_USERS | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
# linux/mount.h
READ_ONLY, NO_SUID, NO_DEV, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
DETACH = 2
SET_READ_ONLY, SET_NO_SUID, SET_NO_DEV = 1, 2, 4  # of mount_setattr
AT_RECURSIVE, AT_THIS_FOLDER = 0x8000, -100
# System calls with one number on all architectures
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT, MOUNT_SETATTR = 444, 445, 446, 442
CLONE = {"x86_64": 56, "aarch64": 220}
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
# linux/prctl.h
PARENT_DEATH, DUMPABLE, NO_NEW_PRIVILEGES, SECCOMP, SUBREAPER = 1, 4, 38, 22, 36


def _checked(result: int, what: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Give this process new namespaces."""
    _checked(LIBC.unshare(flags), "unshare")


def fork_into(flags: int) -> int:
    """Fork once, with the child as the first process of new namespaces; return 0 in the child, its id in the parent.

    os.fork and unshare would need a process between them. This process must have one thread: no handler of the
    interpreter or of the C library runs in the child.
    """
    words = [ctypes.c_ulong(word) for word in (flags | signal.SIGCHLD, 0, 0, 0, 0)]
    return _checked(int(HOLDING.syscall(ctypes.c_long(CLONE[os.uname().machine]), *words)), "clone")


def prctl(option: int, value: int, address: int = 0) -> None:
    """Set one property of this process; all arguments are machine words."""
    words = [ctypes.c_ulong(word) for word in (value, address, 0, 0)]
    _checked(LIBC.prctl(option, *words), f"prctl {option}")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount a file system, or bind a file or folder to a second place."""
    name = None if kind is None else kind.encode()
    _checked(
        LIBC.mount(os.fsencode(source), os.fsencode(target), name, ctypes.c_ulong(flags), options.encode() or None),
        f"mount {target}",
    )


def restrict_mount(target: str, flags: int, *, recursive: bool) -> None:
    """Set attributes (SET_...) of a mount; `recursive`: of the mounts below it too (Linux 5.12)."""
    attributes = struct.pack("=QQQQ", flags, 0, 0, 0)
    at = AT_RECURSIVE if recursive else 0
    _call(MOUNT_SETATTR, AT_THIS_FOLDER, os.fsencode(target), at, attributes, len(attributes))


def pivot_root(new: str, old: str) -> None:
    """Make a mount the root of this process; the previous root appears at `old`."""
    _call(PIVOT_ROOT[os.uname().machine], os.fsencode(new), os.fsencode(old))


def unmount(target: str) -> None:
    """Detach a mount and everything below it."""
    _checked(LIBC.umount2(os.fsencode(target), DETACH), f"umount {target}")


def install_filter(program: bytes) -> None:
    """Install a seccomp filter for this process and its children, for good; also forbids to gain privileges."""
    prctl(NO_NEW_PRIVILEGES, 1)
    code = ctypes.create_string_buffer(program, len(program))
    packed = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    prctl(SECCOMP, 2, ctypes.addressof(packed))


# linux/landlock.h: rights on files
EXECUTE, WRITE_FILE, READ_FILE, READ_FOLDER, MAKE_CHAR, MAKE_BLOCK, TRUNCATE = 1, 2, 4, 8, 1 << 6, 1 << 11, 1 << 14
LOOK = EXECUTE | READ_FILE | READ_FOLDER


def landlock_version() -> int:
    """The version of Landlock's interface that this kernel offers; 0 without Landlock."""
    return max(int(LIBC.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)), 0)


def restrict_files(rights: dict[str, int]) -> None:
    """Allow this process, for good, only the rights on files that are listed, no TCP, and no signals to others.

    Args:
        rights: path -> sum of rights on it and below it.
    """
    version = landlock_version()
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    attributes = struct.pack("=QQQ", files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    attributes = attributes[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = _call(LANDLOCK_CREATE, attributes, len(attributes), 0)
    for path, allowed in rights.items():
        place = os.open(path, os.O_PATH)
        _call(LANDLOCK_ADD, rules, 1, struct.pack("=Qi", allowed & files, place), 0)
        os.close(place)
    prctl(NO_NEW_PRIVILEGES, 1)
    _call(LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


def _call(number: int, *arguments: int | bytes) -> int:
    words = [word if isinstance(word, bytes) else ctypes.c_long(word) for word in arguments]
    return _checked(int(LIBC.syscall(ctypes.c_long(number), *words)), f"system call {number}")
