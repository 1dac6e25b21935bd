"""Metrics of executed code: numbers per task that add up over tasks, in the protocol of all metrics.

They are not chosen by name: which pass@k there are follows from `evaluate.code.k`. Used by: the task `code` of
evaluate; `codex-ml compare`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codex_ml.evaluate.metrics.protocol import SHARE, ratio
from codex_ml.statistics.pass_at_k import pass_at_k

PASS_AT_K = re.compile(r"pass_at_([1-9][0-9]*)")
VERDICTS = ("passed", "wrong", "crashed", "time", "memory", "output")


@dataclass(frozen=True, slots=True)
class SolvedTask:
    """What the programs of one task came to.

    Attributes:
        verdicts: number of programs by verdict, in the order of VERDICTS; their sum is the number of programs.
        parsed: programs that are Python.
        nll: sum of -ln p of the reference solution after the prompt, nats; NaN without a model.
        bytes: of the reference solution in UTF-8.
    """

    verdicts: tuple[int, ...]
    parsed: int
    nll: float
    bytes: int

    @property
    def programs(self) -> int:
        return sum(self.verdicts)

    @property
    def passed(self) -> int:
        return self.verdicts[0]


@dataclass(frozen=True)
class CodeMetric:
    """A ratio of two sums over tasks.

    Attributes:
        columns: what is above, and what is below the line.
        of: the two numbers of one task.
    """

    name: str
    columns: tuple[str, ...]
    of: Callable[[SolvedTask], tuple[float, float]]
    signature: str
    higher_is_better: bool = True
    bounds: tuple[float, float] = SHARE
    scale: float = 1.0
    inputs: Literal["task"] = "task"

    def measure(self, item: SolvedTask) -> Sequence[float]:
        return self.of(item)

    def aggregate(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return ratio(sums[..., 0], sums[..., 1]) * self.scale


def pass_metric(k: int) -> CodeMetric:
    """pass@k: the mean over tasks of the unbiased estimate (Chen et al. 2021, section 2.1). The task is the unit.

    >>> pass_metric(5).measure(SolvedTask((3, 7, 0, 0, 0, 0), parsed=10, nll=0.0, bytes=1))
    (0.9166666666666667, 1.0)
    """
    return CodeMetric(
        name=f"pass_at_{k}",
        columns=(f"pass_at_{k}", "tasks"),
        of=lambda task: (float(pass_at_k(task.programs, task.passed, k)), 1.0),
        signature=f"unbiased|k:{k}|unit:task",
    )


PARSE_RATE = CodeMetric(
    name="program_parse_rate",
    columns=("parsed", "programs"),
    of=lambda task: (float(task.parsed), float(task.programs)),
    signature="whole_program|syntax:python",
)
SOLUTION_BITS = CodeMetric(
    name="solution_bits_per_byte",
    columns=("solution_nll", "solution_bytes"),
    of=lambda task: (task.nll, float(task.bytes)),
    signature="context:prompt|scored:reference_solution|end:no|bytes:utf8",
    higher_is_better=False,
    bounds=(0.0, math.inf),
    scale=1 / math.log(2),
)


def code_metrics(k: Sequence[int]) -> tuple[CodeMetric, ...]:
    """The metrics of executed code, for each k."""
    return (*map(pass_metric, k), PARSE_RATE, SOLUTION_BITS)


def code_metric(name: str) -> CodeMetric | None:
    """The metric of a name, such as pass_at_10; None for another name."""
    if match := PASS_AT_K.fullmatch(name):
        return pass_metric(int(match[1]))
    return next((metric for metric in (PARSE_RATE, SOLUTION_BITS) if metric.name == name), None)
