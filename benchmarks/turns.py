"""Training loops that take turns, each in a process of its own, so that other load on the machine hits all of them.

The parent starts a `Process` per loop. The child runs its loop inside `take_turns`: it warms up and writes one line to
stdout. Then it reads a number of steps from stdin, takes these steps, answers, and repeats this until stdin ends. The
hook of torch after each optimizer step paces all loops, so no loop needs a change: a round lasts from one update of the
weights to another and includes everything that the loop does between them.

Used by: train.py, train_peers.py, recipe.py, recipe_race.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codex_ml.modeling.process import ALLOCATOR


def loop_environment(*, threads: int, kernels: Path, allocator: bool) -> dict[str, str]:
    """Return the caller's environment, with a loop's own settings of allocator and compiler.

    Args:
        kernels: folder of compiled kernels.
        allocator: whether the loop has our allocator settings.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "TORCHINDUCTOR_"))}
    own = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TORCHINDUCTOR_CACHE_DIR": str(kernels)}
    return {**plain, **own, **(ALLOCATOR if allocator else {})}


class Process:
    """The process of one loop, which waits for its turn."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._errors = log.open("w+")
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def answer(self) -> dict[str, Any]:
        """Wait for the end of the warm-up, or of a turn. All loops warm up at the same time."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            sys.exit(f"{self._process.args}: status {status}\n{self._errors.read()[-3000:]}")
        return dict(json.loads(line))

    def steps(self, number: int) -> dict[str, Any]:
        """Train this many steps; return the answer: "seconds", and what the child measures after a turn."""
        assert self._process.stdin
        print(number, file=self._process.stdin, flush=True)
        return self.answer()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes stdin, so the process ends
        self._errors.close()


class Pace:
    """Hook that lets a loop take as many steps as stdin says, and reports how long they took.

    It counts the steps of AdamW. Each loop takes one per update of the weights, as the last part of it: the steps of
    Muon are not counted, because AdamW updates the other parameters in the same update.
    """

    def __init__(self, warm_up: int, answers: Any, measure: Callable[[], dict[str, Any]] = dict) -> None:
        self._left, self._answers, self._measure = warm_up, answers, measure
        self._started = time.perf_counter()

    def __call__(self, optimizer: Any, *_: object) -> None:
        from torch.optim import AdamW

        if not isinstance(optimizer, AdamW):
            return
        self._left -= 1
        if self._left:
            return
        seconds = time.perf_counter() - self._started
        print(json.dumps({"seconds": seconds, **self._measure()}), file=self._answers, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise SystemExit
        self._left, self._started = int(line), time.perf_counter()


@contextmanager
def take_turns(warm_up: int, measure: Callable[[], dict[str, Any]] = dict) -> Iterator[None]:
    """Pace the loop inside the block. stdout is for answers; prints of a loop go to stderr.

    Args:
        warm_up: steps before the first answer.
        measure: adds to each answer, outside the clock.
    """
    from torch.optim.optimizer import register_optimizer_step_post_hook

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    hook = register_optimizer_step_post_hook(Pace(warm_up, answers, measure))
    try:
        yield
    finally:
        hook.remove()
