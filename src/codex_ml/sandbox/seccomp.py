"""The seccomp filter: system calls that a judged program never needs, and that widen the kernel's surface.

A program of the classic BPF (linux/filter.h): load the number of the call, compare, answer. Refused calls fail with
EPERM; clone3 fails with ENOSYS, after which the C library uses clone, whose flags a filter can read.

Used by: bubblewrap, namespaces.
"""

from __future__ import annotations

import errno
import struct

# Numbers of asm/unistd_64.h (x86-64) and asm-generic/unistd.h (AArch64).
REFUSED = {
    # other processes, and the kernel
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "perf_event_open": (298, 241), "bpf": (321, 280), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "personality": (135, 92),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "reboot": (169, 142), "acct": (163, 89), "syslog": (103, 116), "quotactl": (179, 60),
    "swapon": (167, 224), "swapoff": (168, 225),
    # mounts and namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    # the network: AF_VSOCK reaches the host of a virtual machine from any network namespace
    "socket": (41, 198),
    # memory that no limit of a process counts
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180),
}  # fmt: skip
CLONE3 = (435, 435)
CLONE = (56, 220)  # refused with the flag of any namespace
SIGACTION = (13, 134)  # refused for SIGCHLD with a new action: the kernel adds the time of an ignored child to nobody
IOCTL = (16, 29)  # refused with TIOCSTI, which types into the terminal
NAMESPACES = 0x7E020000  # CLONE_NEW* of linux/sched.h that clone takes
TIOCSTI = 0x5412
SIGCHLD = 17

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the numbers, linux/audit.h
X32 = 0x40000000  # calls of the x32 interface have this bit

# linux/bpf_common.h, linux/seccomp.h
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, FAIL = 0x7FFF0000, 0x80000000, 0x00050000
AT_NUMBER, AT_ARCHITECTURE, AT_FIRST, AT_SECOND = 0, 4, 16, 24  # offsets in struct seccomp_data; little-endian


def _step(code: int, value: int, hit: int = 0, miss: int = 0) -> bytes:
    return struct.pack("<HBBI", code, hit, miss, value)


def filter_program(machine: str) -> bytes:
    """Return the filter for an architecture, as the bytes of its instructions (8 each).

    Args:
        machine: "x86_64" or "aarch64", as `os.uname` names it.
    """
    column, architecture = ARCHITECTURES[machine]
    refuse = _step(RETURN, FAIL | errno.EPERM)
    steps = [
        _step(LOAD, AT_ARCHITECTURE),
        _step(JUMP_EQUAL, architecture, hit=1),
        _step(RETURN, KILL),
        _step(LOAD, AT_NUMBER),
        _step(JUMP_AT_LEAST, X32, miss=1),
        _step(RETURN, KILL),
        _step(JUMP_EQUAL, CLONE3[column], miss=1),
        _step(RETURN, FAIL | errno.ENOSYS),
    ]
    for numbers in REFUSED.values():
        steps += [_step(JUMP_EQUAL, numbers[column], miss=1), refuse]
    steps += [_step(JUMP_EQUAL, CLONE[column], miss=4), _step(LOAD, AT_FIRST), _step(JUMP_BITS, NAMESPACES, miss=1)]
    steps += [refuse, _step(RETURN, ALLOW)]
    steps += [_step(JUMP_EQUAL, SIGACTION[column], miss=8), _step(LOAD, AT_FIRST), _step(JUMP_EQUAL, SIGCHLD, miss=5)]
    steps += [_step(LOAD, AT_SECOND), _step(JUMP_EQUAL, 0, miss=2)]  # the address of the new action, in two halves
    steps += [_step(LOAD, AT_SECOND + 4), _step(JUMP_EQUAL, 0, hit=1)]
    steps += [refuse, _step(RETURN, ALLOW)]
    steps += [_step(JUMP_EQUAL, IOCTL[column], miss=3), _step(LOAD, AT_SECOND), _step(JUMP_EQUAL, TIOCSTI, miss=1)]
    steps += [refuse, _step(RETURN, ALLOW)]
    return b"".join(steps)
