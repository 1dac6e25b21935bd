"""What the sandbox costs beyond the start of a Python that does nothing, in turns within one run.

    python benchmarks/evaluate_sandbox.py --runs 200

`bare` is `python -I -S -c pass`. `program` runs an empty program in the sandbox. `trial` judges a solution: it starts
two sandboxes, side by side. Run it on idle cores.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from measuring import cpu_name  # noqa: E402

from codex_ml.core.errors import UserError  # noqa: E402
from codex_ml.sandbox.ladder import RUNGS, open_sandbox  # noqa: E402
from codex_ml.sandbox.trial import ProgramLimits  # noqa: E402
from codex_ml.sandbox.worker import Worker  # noqa: E402

MOST = 15.0  # ms beyond a bare start
LIMITS = asdict(ProgramLimits())
PROGRAM = {"how": "alone", "solution": "pass", "limits": LIMITS}
TRIAL = {
    **{"how": "apart", "setup": "", "solution": "def f(): return 1", "tests": "assert f() == 1"},
    **{"entry_points": ["f"], "limits": LIMITS},
}


def bare() -> None:
    """Start a Python that does nothing, and wait for it."""
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    os.waitpid(os.posix_spawn(python, ["python", "-I", "-S", "-c", "pass"], {}), 0)


def asking(worker: Worker, task: dict[str, object], said: str) -> Callable[[], None]:
    """A function that runs the task and checks that it came to its end."""

    def ask() -> None:
        answer = worker.ask(task, LIMITS["wall_seconds"])
        assert answer[said], answer

    return ask


def main(runs: Annotated[int, typer.Option(min=1, help="Runs of each way; medians are printed.")] = 100) -> None:
    """Measure the wall time of each way."""
    print(f"{cpu_name()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}, {runs} runs", file=sys.stderr)
    with ExitStack() as stack:
        ways: dict[str, Callable[[], None]] = {"bare": bare}
        for rung in RUNGS:
            try:
                worker = stack.enter_context(open_sandbox(rung).start())
            except UserError as error:
                print(f"{rung}: {str(error).partition('. ')[0]}", file=sys.stderr)
                continue
            ways[f"{rung} program"] = asking(worker, PROGRAM, "started")
            ways[f"{rung} trial"] = asking(worker, TRIAL, "passed")
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
    least = median(seconds["bare"])
    print("| way | median ms | beyond a bare start | fastest ms |\n|---|---|---|---|")
    for name, values in seconds.items():
        beyond = (median(values) - least) * 1e3
        mark = "" if beyond <= MOST else f" (more than {MOST:.0f})"
        print(f"| {name} | {median(values) * 1e3:.1f} | {beyond:.1f}{mark} | {min(values) * 1e3:.1f} |")


if __name__ == "__main__":
    typer.run(main)
