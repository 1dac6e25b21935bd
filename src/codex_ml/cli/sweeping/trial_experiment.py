"""Run one trial as a DVC experiment in a temporary copy, watch its validation curve, read its metric.

Used by: `codex-ml sweep`.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from codex_ml.cli.history.git_commands import files_of_commit, git_text
from codex_ml.cli.sweeping.experiment_run import POLL_SECONDS, DvcRun, interrupt, run_dvc, running_copy
from codex_ml.cli.sweeping.metric_number import number_at
from codex_ml.cli.sweeping.trial_output import keep_output, unnamed_file
from codex_ml.cli.sweeping.trial_values import overrides
from codex_ml.core.folders import scratch_folder
from codex_ml.core.strict_json import parse_json

CURVE = "reports/train/plots/metrics/val/loss.tsv"

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class SweepMetric:
    """The number that ranks the trials.

    Attributes:
        stage: the stage that writes it; a trial runs the pipeline up to it.
        name: dotted name in reports/<stage>/metrics.json.
    """

    stage: str
    name: str

    @property
    def file(self) -> str:
        return f"reports/{self.stage}/metrics.json"


@dataclass(frozen=True)
class Launch:
    """What a run of an experiment needs.

    Attributes:
        name: of the experiment.
        params: key -> value as text of params.yaml.
        head: the commit it starts from.
        log: file for what DVC and the stages print, written when the trial ends.
        lock: descriptor of the sweep's lock, which DVC inherits.
    """

    name: str
    params: dict[str, str]
    head: str
    log: Path
    lock: int

    def commit(self) -> str | None:
        """The commit of the experiment, None where there is none."""
        reference = f"refs/exps/{self.head[:2]}/{self.head[2:]}/{self.name}"
        return git_text("rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}") or None


def experiment_name(sweep: str, number: int, params: dict[str, str], varied: Sequence[str]) -> str:
    """A name that says what the trial tries, in the letters that Git allows in a reference.

    >>> experiment_name("warm", 7, {"train.lr": "0.00312345", "model.layers": "2"}, ["train.lr", "model.layers"])
    'warm-007-lr-0.00312-layers-2'
    """
    parts = [f"{key.rpartition('.')[2]}-{_short(params[key])}" for key in varied]
    text = "-".join([f"{sweep}-{number:03d}", *parts])
    return re.sub(r"[^A-Za-z0-9_-]+$", "", re.sub(r"\.\.+", ".", re.sub(r"[^A-Za-z0-9._-]+", "_", text))[:100])


def _short(text: str) -> str:
    with suppress(ValueError):
        return f"{float(text):.3g}"
    return text


def run_experiment(launch: Launch, target: str, stop_at: Callable[[Points], int | None] | None) -> tuple[int, str]:
    """Run `dvc exp run --temp` up to the stage `target`; return DVC's exit code, and what it and the stages printed.

    The text is cleaned by the policy; see trial_output.

    Args:
        stop_at: given the validation curve so far, returns an index to stop the stage, or None; None to watch nothing.

    Raises:
        CheckFailed: when a signal ended DVC or the stage; the trial is not over then.
    """
    began = time.time()
    run = DvcRun(command(launch, target), launch.name, launch.params, launch.log.parent, launch.lock)
    with unnamed_file() as output:
        try:
            code = run_dvc(run, (output, output), lambda process: _wait(process, launch, stop_at, began))
        finally:
            printed = keep_output(output, launch.log)
    return code, printed


def command(launch: Launch, target: str) -> list[str]:
    """The command of an experiment; `++` sets a key that params.yaml has as well as one that it lacks."""
    settings = [word for override in overrides(launch.params) for word in ("-S", f"++{override}")]
    return [sys.executable, "-P", "-m", "dvc", "exp", "run", "--temp", "--name", launch.name, *settings, target]


def _wait(
    process: subprocess.Popen[bytes], launch: Launch, stop_at: Callable[[Points], int | None] | None, began: float
) -> None:
    if stop_at is None:
        process.wait()
        return
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
            return
        copy = running_copy(launch.name, began)
        if copy and stop_at(read_curve_file(copy / CURVE)) is not None:
            interrupt(process)
            process.wait()
            return


def forget_checkpoints(name: str) -> None:
    """Remove the checkpoints of a stopped trial, which no run will continue; the lock's last holder names the trial."""
    for lock in (scratch_folder() / "train").glob("*.lock"):
        if f"(experiment {name})" in lock.read_text(encoding="utf-8", errors="replace"):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)


def read_curve_file(file: Path) -> Points:
    """The whole lines of a curve that DVCLive writes: `step` and the loss, separated by a tab, under a header."""
    try:
        return read_curve(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return []


def read_curve(text: str) -> Points:
    """See `read_curve_file`; a last line without its newline is still being written, and is left out.

    >>> read_curve("step\\tloss\\n10\\t3.5\\n20\\t3.")
    [(10, 3.5)]
    """
    points = []
    for line in text.splitlines(keepends=True)[1:]:
        step, _, loss = line.partition("\t")
        if line.endswith("\n"):
            with suppress(ValueError):
                points.append((int(step), float(loss)))
    return [(step, loss) for step, loss in points if math.isfinite(loss)]


def result_of(commit: str, metric: SweepMetric) -> tuple[float | None, Points, str]:
    """The metric in an experiment, its validation curve, and why it has no metric ("" where it has)."""
    files = files_of_commit(commit, metric.file, CURVE)
    curve = read_curve((files.read(CURVE) or b"").decode("utf-8", "replace"))
    data = files.read(metric.file)
    if data is None:
        return None, curve, f"the experiment has no {metric.file}"
    value = number_at(parse_json(data), metric.name)
    return value, curve, f"{metric.file} has no number {metric.name}" if value is None else ""
