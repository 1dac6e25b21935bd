"""Judge solutions of a benchmark inside the sandbox. Used by: evaluate."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict, replace
from queue import SimpleQueue
from typing import Any

from codex_ml.core.errors import CheckFailed, one_line, safe_text
from codex_ml.sandbox.ladder import Sandbox
from codex_ml.sandbox.trial import FILES, Oracle, Outcome, ProgramLimits, Trial, Verdict
from codex_ml.sandbox.worker import Worker

AHEAD = 4  # trials per worker that are taken from the iterator before the first of them is yielded


def run_trials(
    sandbox: Sandbox, trials: Iterable[Trial], *, limits: ProgramLimits, workers: int = 1
) -> Iterator[Outcome]:
    """Run each trial and yield the outcomes in the order of the trials.

    A trial that ran out of time is run once more, alone, so that a busy machine does not decide.

    Args:
        limits: of each trial.
        workers: trials that run at the same time.

    Raises:
        CheckFailed: when the sandbox itself fails; a program cannot cause that.
    """
    with ExitStack() as stack:
        supervisors = [stack.enter_context(sandbox.start()) for _ in range(workers)]
        idle: SimpleQueue[Worker] = SimpleQueue()
        for supervisor in supervisors:
            idle.put(supervisor)
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        pending: deque[tuple[Trial, Future[Outcome]]] = deque()

        def run(trial: Trial) -> Outcome:
            worker = idle.get()
            try:
                return _outcome(trial, worker.ask(_task(trial, limits), limits.wall_seconds), limits)
            finally:
                idle.put(worker)

        def first() -> Outcome:
            trial, future = pending.popleft()
            outcome = future.result()
            if outcome.verdict is Verdict.TIME:
                wait([other for _, other in pending])
                outcome = run(trial)
            return outcome

        try:
            for trial in trials:
                pending.append((trial, pool.submit(run, trial)))
                if len(pending) == workers * AHEAD:
                    yield first()
            while pending:
                yield first()
        finally:  # also after an error, an interruption, or a caller that wants no more
            for _, future in pending:
                future.cancel()
            for supervisor in supervisors:
                supervisor.stop()


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
    oracles: list[Oracle | None] = [None] * len(references)
    for oracle in ("apart", "in_child"):
        left = [number for number, found in enumerate(oracles) if found is None]
        trials = [replace(references[number], oracle=oracle) for number in left]
        for number, outcome in zip(left, run_trials(sandbox, trials, limits=limits, workers=workers), strict=True):
            if outcome.verdict is Verdict.PASSED:
                oracles[number] = outcome.oracle
    return oracles


def _task(trial: Trial, limits: ProgramLimits) -> dict[str, Any]:
    fields = asdict(trial)
    return {**fields, "how": fields.pop("oracle"), "limits": asdict(limits)}


def _outcome(trial: Trial, answer: dict[str, Any], limits: ProgramLimits) -> Outcome:
    word = answer["word"]
    if not answer["started"] or (trial.oracle == "apart" and "error" in word):
        raise CheckFailed(f"the sandbox did not start a program: {one_line(answer['output'])}")
    verdict, detail = _judged(word)
    if answer["passed"]:
        verdict, detail = Verdict.PASSED, ""
    if answer["exceeded"]:
        verdict, detail = {
            "time": (Verdict.TIME, f"more than {limits.cpu_seconds:g} s of CPU time"),
            "wall": (Verdict.TIME, f"it did not end within {limits.wall_seconds:g} s"),
            "memory": (Verdict.MEMORY, f"more than {limits.memory_bytes} bytes of memory"),
            "files": (Verdict.MEMORY, f"more than {FILES} files"),
            "output": (Verdict.OUTPUT, f"more than {limits.output_bytes} bytes of output"),
        }[answer["exceeded"]]
    return Outcome(verdict, detail, trial.oracle)


def _judged(word: dict[str, Any]) -> tuple[Verdict, str]:
    """The verdict in a last word, which is hostile when solution and tests ran in one process."""
    known = {verdict.value: verdict for verdict in Verdict if verdict is not Verdict.PASSED}
    said, detail = word.get("verdict"), word.get("detail")
    if isinstance(said, str) and said in known and isinstance(detail, str):
        return known[said], safe_text(one_line(detail)) if detail else ""
    return Verdict.CRASHED, "it ended before the last test"
