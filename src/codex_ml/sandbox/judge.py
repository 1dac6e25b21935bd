"""Judge solutions of a benchmark inside the sandbox. Used by: evaluate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from codex_ml.sandbox.ladder import Sandbox
from codex_ml.sandbox.trial import Oracle, Outcome, ProgramLimits, Trial


def run_trials(
    sandbox: Sandbox, trials: Iterable[Trial], *, limits: ProgramLimits, workers: int = 1
) -> Iterator[Outcome]:
    """Run each trial and yield the outcomes in the order of the trials.

    A trial that ran out of time is run once more, alone, so that a busy machine does not decide.

    Args:
        workers: trials that run at the same time.
    """
    raise NotImplementedError


def choose_oracles(
    sandbox: Sandbox, references: Sequence[Trial], *, limits: ProgramLimits, workers: int = 1
) -> list[Oracle | None]:
    """Say for each task how its trials can be judged, by running its reference solution.

    Args:
        references: one trial per task, with the reference solution as its solution.

    Returns:
        "apart" where the reference passes apart, else "in_child" where it passes in one process with the tests, else
        None: the task's tests refuse its own reference.
    """
    raise NotImplementedError
