"""Run one trial as a DVC experiment in a temporary copy, watch its validation curve, read its metric.

Used by: `codex-ml sweep`.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from codex_ml.cli.history.git_commands import files_of_commit, git_text
from codex_ml.cli.sweeping.killed_trial import forget_trial, note_trial, put_back
from codex_ml.cli.sweeping.metric_number import number_at
from codex_ml.cli.sweeping.sweep_signals import SweepTerminated
from codex_ml.cli.sweeping.trial_output import keep_output, unnamed_file
from codex_ml.cli.sweeping.trial_values import overrides
from codex_ml.core.errors import CheckFailed
from codex_ml.core.folders import scratch_folder
from codex_ml.core.strict_json import parse_json

CURVE = "reports/train/plots/metrics/val/loss.tsv"
COPIES = Path(".dvc/tmp/exps/standalone")  # where `dvc exp run --temp` makes its copies
RWLOCKS = (Path(".dvc/tmp/rwlock"), Path(".dvc/tmp/exps/rwlock"))
POLL_SECONDS = 0.5
SHELLS = ("sh", "bash", "dash", "zsh", "fish")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTIONS = (*(-number for number in STOPS), *(128 + number for number in STOPS))

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
    forget_copies(launch.name)  # of a killed run; DVC leaves them
    mend_locks()
    note_trial(launch.log.parent, launch.params)
    began = time.time()
    with unnamed_file() as output:
        process = subprocess.Popen(
            command(launch, target), env=_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            pass_fds=(launch.lock,), process_group=0,
        )  # fmt: skip
        try:
            _wait(process, launch, stop_at, began)
        except BaseException:
            _end(process)
            raise
        finally:
            printed = keep_output(output, launch.log)
            killed = (process.returncode or 0) < 0
            (put_back if killed else forget_trial)(launch.log.parent)
    if process.returncode in INTERRUPTIONS:
        raise CheckFailed(
            f"the trial {launch.name} was interrupted (dvc ended with {process.returncode}); run the command again to "
            "go on"
        )
    return process.returncode, printed


def command(launch: Launch, target: str) -> list[str]:
    """The command of an experiment; `++` sets a key that params.yaml has as well as one that it lacks."""
    settings = [word for override in overrides(launch.params) for word in ("-S", f"++{override}")]
    return [sys.executable, "-P", "-m", "dvc", "exp", "run", "--temp", "--name", launch.name, *settings, target]


def _environment() -> dict[str, str]:
    binaries = str(Path(sys.executable).parent)  # DVC runs `python -P stages/...`: the Python of this environment
    return {**os.environ, "PATH": os.pathsep.join([binaries, os.environ.get("PATH", "")]), "PYTHONUTF8": "1"}


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
            _interrupt(process)
            process.wait()
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the stage save its checkpoint and end; each further Ctrl-C sends it one more signal, and the second ends it.

    The terminal sends Ctrl-C to the sweep alone, because DVC has its own process group. A further SIGTERM or SIGHUP
    sends nothing: a terminal that closes and its shell both signal the sweep. DVC ignores SIGINT from just before it
    starts a stage, so a stage that starts late gets the signal too.
    """
    more, told = True, False
    while process.poll() is None:
        try:
            if more or not told:
                told = _interrupt(process, stage_only=not more)
                more = False
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
        except SweepTerminated:
            pass
        except KeyboardInterrupt:
            more = True


def _interrupt(process: subprocess.Popen[bytes], *, stage_only: bool = False) -> bool:
    """Send SIGINT to the stage alone: it saves what it has and ends, and DVC cleans up after it.

    Only the topmost process of the stage gets it. It tells its own processes, and a second SIGINT would end them at
    once. Before a stage runs, DVC itself gets it, unless `stage_only`.

    Returns:
        whether a stage got it.
    """
    import psutil

    with suppress(psutil.NoSuchProcess):
        todo = psutil.Process(process.pid).children()
        while todo:
            child = todo.pop(0)
            with suppress(psutil.Error):
                if any(word.startswith("stages/") for word in child.cmdline()) and child.name() not in SHELLS:
                    child.send_signal(signal.SIGINT)
                    return True
                todo += child.children()
    if not stage_only:
        process.send_signal(signal.SIGINT)
    return False


def _copies(name: str) -> Iterator[tuple[Path, Path]]:
    """The files in which DVC describes the temporary copies of an experiment, and the copies, newest first."""
    files = sorted(COPIES.glob("run/*/*.run"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files:
        with suppress(OSError, ValueError):
            described = json.loads(file.read_bytes())
            copy = Path(described["root_dir"])
            if described.get("name") == name and copy.parent.resolve() == COPIES.resolve():
                yield file, copy


def running_copy(name: str, began: float) -> Path | None:
    """The temporary copy in which DVC runs the experiment `name` since `began` (seconds since 1970), or None."""
    return next((copy for file, copy in _copies(name) if copy.is_dir() and file.stat().st_mtime >= began - 1), None)


def forget_copies(name: str) -> None:
    """Remove the temporary copies that a killed run of the experiment left."""
    for file, copy in list(_copies(name)):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.rmtree(file.parent, ignore_errors=True)


def mend_locks() -> None:
    """Remove a list of locks that was cut when DVC was killed while it wrote it; every later DVC would refuse it.

    The guard beside it, which DVC holds while it writes the list, is taken first.
    """
    for file in RWLOCKS:
        if not file.is_file():
            continue
        with file.with_name("rwlock.lock").open("a") as guard, suppress(BlockingIOError):
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                json.loads(file.read_bytes())
            except ValueError:
                file.unlink(missing_ok=True)


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
