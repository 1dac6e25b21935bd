"""Run trials as root or as nobody, in a process that inherits every orphan; a script for test_hostile.py.

Reads one JSON object from stdin (user, rung, header, groups of programs with limits) and prints one: the outcomes, and
how many processes outlived the supervisors.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

from codex_ml.sandbox import judge, kernel, ladder, trial

NOBODY = 65534
DROP_FROM_BOUNDING_SET, CAP_SYS_ADMIN = 24, 21  # linux/prctl.h, linux/capability.h


def unlock(paths: list[str]) -> None:
    """Show the paths to nobody in a mount namespace of this process, where a folder above them is root's alone."""
    kernel.unshare(kernel.NEW_MOUNTS)
    kernel.mount("none", "/", None, kernel.PRIVATE | kernel.RECURSIVE)
    locked: dict[str, dict[str, int]] = {}
    for path in paths:
        top = Path(*Path(path).parts[:2])
        if not top.stat().st_mode & stat.S_IXOTH:
            locked.setdefault(str(top), {})[path] = os.open(path, os.O_PATH)
    for top, opened in locked.items():
        kernel.mount("tmpfs", top, "tmpfs", 0, "mode=0755")
        for path, descriptor in opened.items():
            Path(path).mkdir(parents=True)
            kernel.mount(f"/proc/self/fd/{descriptor}", path, None, kernel.BIND)


def main() -> None:
    task = json.loads(sys.stdin.read())
    if task["user"] != "root" and os.getuid() == 0:
        unlock(sorted({sys.base_prefix, sys.prefix, str(Path(judge.__file__).parents[3])}))
    if task["user"] == "root without mounts":
        kernel.prctl(DROP_FROM_BOUNDING_SET, CAP_SYS_ADMIN)  # holds for the programs that this process starts
    if task["user"] == "nobody" and os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        kernel.prctl(kernel.DUMPABLE, 1)
    kernel.prctl(kernel.SUBREAPER, 1)
    sandbox = ladder.open_sandbox(task["rung"])
    header = task["header"].replace("@PID@", str(os.getpid()))
    outcomes = []
    for group in task["groups"]:
        trials = [trial.Trial("", header + solution, tests, ("f",)) for solution, tests in group["programs"]]
        limits = trial.ProgramLimits(**group["limits"])
        outcomes += list(judge.run_trials(sandbox, trials, limits=limits, workers=2))
    survivors = 0
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        survivors += 1
        if not ended:  # it still runs
            break
    print(json.dumps({
        "rung": sandbox.rung,
        "user": os.getuid(),
        "survivors": survivors,
        "outcomes": [[outcome.verdict.value, outcome.detail, outcome.oracle] for outcome in outcomes],
    }))  # fmt: skip


main()
