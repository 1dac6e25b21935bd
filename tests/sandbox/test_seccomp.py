"""The seccomp filter refuses what it lists, by the numbers of the kernel's own headers, and nothing else."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from codex_ml.sandbox.seccomp import ARCHITECTURES, CLONE, CLONE3, IOCTL, REFUSED, SIGACTION, filter_program

ALLOW, KILL = "allow", "kill"
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def answer(machine: str, number: int, first: int = 0, second: int = 0, architecture: int | None = None) -> str | int:
    """What the filter answers to a system call: an interpreter of the classic BPF (linux/filter.h) for its five steps."""
    told = ARCHITECTURES[machine][1] if architecture is None else architecture
    data = struct.pack("<IIQQQ", number, told, 0, first, second)
    program, at, loaded = filter_program(machine), 0, 0
    while True:
        code, hit, miss, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        match code:
            case 0x20:
                (loaded,) = struct.unpack_from("<I", data, value)
            case 0x15:
                at += hit if loaded == value else miss
            case 0x35:
                at += hit if loaded >= value else miss
            case 0x45:
                at += hit if loaded & value else miss
            case 0x06:
                return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(value, value & 0xFFFF)
            case _:
                raise AssertionError(hex(code))


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_listed_calls_fail_with_eperm_and_others_pass(machine: str) -> None:
    column = ARCHITECTURES[machine][0]
    refused = {numbers[column] for numbers in REFUSED.values()}
    special = {CLONE3[column]: errno.ENOSYS}
    for number in range(500):
        assert answer(machine, number) == special.get(number, errno.EPERM if number in refused else ALLOW), number


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_clone_passes_unless_it_makes_a_namespace(machine: str) -> None:
    clone = CLONE[ARCHITECTURES[machine][0]]
    threads, fork = 0x003D0F00, 0x01200011  # what the C library asks for
    assert [answer(machine, clone, first) for first in (threads, fork)] == [ALLOW, ALLOW]
    for namespace in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer(machine, clone, fork | namespace) == errno.EPERM


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_ioctl_passes_unless_it_types_into_a_terminal(machine: str) -> None:
    ioctl = IOCTL[ARCHITECTURES[machine][0]]
    size, type_in = 0x5413, 0x5412
    assert [answer(machine, ioctl, 0, second) for second in (size, type_in)] == [ALLOW, errno.EPERM]


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_action_of_sigchld_can_be_read_and_not_set(machine: str) -> None:
    sigaction, child, interrupt = SIGACTION[ARCHITECTURES[machine][0]], 17, 2
    assert answer(machine, sigaction, child, 0) == ALLOW
    assert answer(machine, sigaction, child, 0x1000) == errno.EPERM
    assert answer(machine, sigaction, child, 0x7FFF00000000) == errno.EPERM
    assert answer(machine, sigaction, interrupt, 0x7FFF00000000) == ALLOW


def test_calls_of_another_architecture_end_the_program() -> None:
    assert answer("x86_64", 0, architecture=0x40000003) == KILL  # i386
    assert answer("aarch64", 0, architecture=ARCHITECTURES["x86_64"][1]) == KILL
    assert answer("x86_64", 0x40000000 + 101) == KILL  # ptrace by the x32 interface


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_those_of_the_kernel(machine: str) -> None:
    if not HEADERS[machine].is_file():
        pytest.skip(f"this machine has no {HEADERS[machine]}")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[machine].read_text()))
    column = ARCHITECTURES[machine][0]
    listed = {**REFUSED, "clone": CLONE, "clone3": CLONE3, "ioctl": IOCTL, "rt_sigaction": SIGACTION}
    missing = {name for name in listed if name not in known}
    assert missing <= {"memfd_secret"}, "newer than the header"
    assert {name: numbers[column] for name, numbers in listed.items() if name in known} == {
        name: int(known[name]) for name in listed if name in known
    }
