"""What goes into a trial of a program and what comes out: the trial, its limits, the verdict.

Used by: evaluate, and the modules of this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

SPARE_BYTES = 64 << 20  # for the tests and the sandbox's own processes: one process meets its address space first
FILES = 10_000  # in the work folder of a program
Oracle = Literal["apart", "in_child"]


@dataclass(frozen=True)
class ProgramLimits:
    """What one trial may use. A program gains nothing by starting processes.

    Attributes:
        cpu_seconds: CPU time of the solution, its tests and all their processes together. It decides the verdict
            `time`, so that a busy machine changes no verdict.
        wall_seconds: a generous limit on elapsed time, for programs that wait without computing.
        memory_bytes: address space of each process; also resident memory of all together, with SPARE_BYTES more.
        processes: processes and threads of the solution at the same time, the main thread among them.
        file_bytes: size of one file, and of the whole work folder.
        output_bytes: bytes written to stdout and stderr together, and the longest answer of one call.
    """

    cpu_seconds: float = 5.0
    wall_seconds: float = 30.0
    memory_bytes: int = 512 << 20
    processes: int = 16
    file_bytes: int = 16 << 20
    output_bytes: int = 1 << 20


class Verdict(Enum):
    """How a trial ended. Only `PASSED` counts as solved."""

    PASSED = "passed"  # the last test held
    WRONG = "wrong"  # a test did not hold
    CRASHED = "crashed"  # the solution raised, ended early, or broke the protocol
    TIME = "time"  # CPU seconds or elapsed time ran out
    MEMORY = (
        "memory"  # the memory limit was reached, or the work folder holds more than FILES files, which take memory too
    )
    OUTPUT = "output"  # it wrote too much


@dataclass(frozen=True)
class Trial:
    """A solution and the tests that judge it.

    Attributes:
        setup: trusted code that runs before the tests and never together with the solution when judged apart:
            HumanEval's prompt with the reference solution, since its tests call helpers of the prompt; the imports and
            the setup text of an MBPP task.
        solution: the whole program that a model wrote, such as prompt + completion.
        tests: code that runs after `setup`; it raises unless the solution is right. It finds the functions of
            `entry_points` under their names. HumanEval: `test` and a last line `check(NAME)`; MBPP: the assert lines.
        entry_points: names of the functions of the solution that the tests call.
        oracle: "apart": solution and tests run in two processes, and only plain values pass between them;
            "in_child": both run in one process, for tests whose values are not plain. See `choose_oracles`.
    """

    setup: str
    solution: str
    tests: str
    entry_points: tuple[str, ...]
    oracle: Oracle = "apart"


@dataclass(frozen=True)
class Outcome:
    """The result of a trial.

    Attributes:
        detail: one line that says why, "" when passed. It may quote the program, so it needs redaction before it is
            published. It has no addresses, paths of this machine, or times.
        oracle: how the trial was judged.
    """

    verdict: Verdict
    detail: str
    oracle: Oracle
