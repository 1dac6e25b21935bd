"""Runs of stages, put together from the events of the logs. Used by: `codex-ml runs`, `logs` and `plan`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from codex_ml.core.contract import Contract
from codex_ml.core.error_log import ERRORS
from codex_ml.core.events import FAILED, FINISHED, INTERRUPTED, STARTED, LogLine, read_log
from codex_ml.core.folders import logs_folder
from codex_ml.core.lock import last_holder
from codex_ml.core.out_of_memory import LOWER

Result = Literal["done", "failed", "interrupted", "running", "killed"]
RESULTS: dict[str, Result] = {FINISHED: "done", FAILED: "failed", INTERRUPTED: "interrupted"}
EXPERIMENTS = "experiments"


class RunSummary(Contract):
    """One run of a stage.

    Attributes:
        started: UTC, as in the log.
        result: "killed" for a run that has no end in the log and whose process is gone.
        seconds: wall time; None until a run ends, and for a killed run.
        peak_memory_mb: MiB of the process and of its largest child, whichever is larger.
        message: why it failed or was interrupted; of a killed run what to lower if memory ran out; "" of any other.
        experiment: the experiment of DVC that it was part of, "" outside one.
    """

    run: str
    stage: str
    started: str
    result: Result
    seconds: float | None
    cpu_seconds: float | None
    peak_memory_mb: float | None
    message: str
    experiment: str


class RunList(Contract):
    """What `codex-ml runs --json` prints."""

    runs: list[RunSummary]


def log_files(stage: str | None = None, *, experiments: bool = True) -> list[tuple[str, Path]]:
    """(experiment, file) of every log of stages, those of experiments after those of this checkout."""
    logs = logs_folder()
    folders = [("", logs)]
    if experiments and (inner := logs / EXPERIMENTS).is_dir():
        folders += sorted((folder.name, folder) for folder in inner.iterdir() if folder.is_dir())
    found = []
    for experiment, folder in folders:
        files = sorted(folder.glob(f"{stage or '*'}.ndjson"))
        found += [(experiment, file) for file in files if file.name != ERRORS and file.is_file()]
    return found


def runs_of(stage: str | None = None, *, experiments: bool = True) -> list[RunSummary]:
    """All runs of which a log still has the start, in the order of their starts."""
    found = [run for name, file in log_files(stage, experiments=experiments) for run in _runs(name, file)]
    return sorted(found, key=lambda run: (run.started, run.run))


def _runs(experiment: str, file: Path) -> Iterator[RunSummary]:
    """The runs of a log; only the newest without an end can still run, because a stage runs once per checkout."""
    open_run: LogLine | None = None
    for line in read_log(file):
        if line.event == STARTED:
            if open_run:
                yield _summary(experiment, open_run, None, "killed")
            open_run = line
        elif open_run and line.run == open_run.run and line.event in RESULTS:
            yield _summary(experiment, open_run, line, RESULTS[line.event])
            open_run = None
    if open_run:
        yield _summary(experiment, open_run, None, "running" if _lives(open_run) else "killed")


def _summary(experiment: str, started: LogLine, ended: LogLine | None, result: Result) -> RunSummary:
    numbers = {name: value for name, value in (ended.fields if ended else {}).items() if isinstance(value, int | float)}
    peak = [numbers[name] for name in ("peak_memory_mb", "child_peak_memory_mb") if name in numbers]
    return RunSummary(
        run=started.run,
        stage=started.stage,
        started=started.time,
        result=result,
        seconds=numbers.get("seconds"),
        cpu_seconds=numbers.get("cpu_seconds"),
        peak_memory_mb=max(peak) if peak else None,
        message=_killed(started.stage) if result == "killed" else ended.message if ended and result != "done" else "",
        experiment=experiment,
    )


def _killed(stage: str) -> str:
    """A killed run logs nothing, so what ended it is not known; mostly it is the kernel, for memory."""
    advice = f": lower {LOWER[stage]}" if stage in LOWER else ": end other programs"
    return f"it has no end in the log; if the kernel ended it for lack of memory (dmesg){advice}"


def _lives(started: LogLine) -> bool:
    """Whether the process that began a run still holds the lock of its stage."""
    pid = started.fields.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 1 << 31:
        return False
    lock = Path(".cache/locks") / started.stage
    if not started.fields.get("experiment") and last_holder(lock) != pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        return True
    return True
