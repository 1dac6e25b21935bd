"""Run DVC on one experiment in a temporary copy, so that a signal or a kill leaves nothing behind.

DVC gets its own process group: a signal that reaches the command does not reach DVC, and the command lets the stage
save its checkpoint first. What a killed DVC left in the workspace is put back by the next run.

Used by: `codex-ml sweep`, `codex-ml folds`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from codex_ml.cli.output import say
from codex_ml.cli.sweeping.ending_signals import Terminated
from codex_ml.cli.sweeping.killed_trial import forget_trial, note_trial, put_back
from codex_ml.core.errors import CheckFailed, UserError

COPIES = Path(".dvc/tmp/exps/standalone")  # where `dvc exp run --temp` makes its copies
RWLOCKS = (Path(".dvc/tmp/rwlock"), Path(".dvc/tmp/exps/rwlock"))
POLL_SECONDS = 0.5
SHELLS = ("sh", "bash", "dash", "zsh", "fish")
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTIONS = (*(-number for number in STOPS), *(128 + number for number in STOPS))


@dataclass(frozen=True)
class DvcRun:
    """One start of DVC.

    Attributes:
        command: `dvc exp run --temp ...`.
        name: of the experiment.
        params: key -> value as text of params.yaml, which DVC will set.
        folder: of the command, for a note of what runs.
        lock: descriptor of the lock of that folder, which DVC inherits: it outlives a killed command.
    """

    command: list[str]
    name: str
    params: dict[str, str]
    folder: Path
    lock: int


@contextmanager
def command_lock(folder: Path) -> Iterator[int]:
    """Yield the descriptor of the lock of a command's folder, held by one command at a time.

    DVC gets the descriptor, too. So the lock outlives a command that was killed until the experiment that it left ends.

    Raises:
        UserError: in a folder in which DVC cannot run one.
    """
    if not str(Path.cwd()).isascii():  # DVC writes the path of its cache into the configuration of the copy, as ASCII
        what = f"{Path.cwd()} is not plain ASCII, and DVC cannot run an experiment in a temporary copy there"
        raise UserError(f"{what}; move the checkout to a folder with an ASCII name")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another command, or an experiment it left, uses {folder}; waiting until it ends", err=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle.fileno()


def run_dvc(
    run: DvcRun,
    output: tuple[IO[Any] | None, IO[Any] | None],
    wait: Callable[[subprocess.Popen[bytes]], object] = subprocess.Popen.wait,
) -> int:
    """Run DVC and return its exit code.

    Args:
        output: where stdout and stderr go; None: where those of this process go.
        wait: waits until the process ends.

    Raises:
        CheckFailed: when a signal ended DVC or the stage; the experiment is not over then.
    """
    forget_copies(run.name)  # of a killed run; DVC leaves them
    mend_locks()
    note_trial(run.folder, run.params)
    process = subprocess.Popen(
        run.command, env=_environment(), stdin=subprocess.DEVNULL, stdout=output[0], stderr=output[1],
        pass_fds=(run.lock,), process_group=0,
    )  # fmt: skip
    try:
        wait(process)
    except BaseException:
        _end(process)
        raise
    finally:
        killed = (process.returncode or 0) < 0
        (put_back if killed else forget_trial)(run.folder)
    if process.returncode in INTERRUPTIONS:
        what = f"the experiment {run.name} was interrupted (dvc ended with {process.returncode})"
        raise CheckFailed(f"{what}; run the command again to go on")
    return process.returncode


def _environment() -> dict[str, str]:
    binaries = str(Path(sys.executable).parent)  # DVC runs `python -P stages/...`: the Python of this environment
    return {**os.environ, "PATH": os.pathsep.join([binaries, os.environ.get("PATH", "")]), "PYTHONUTF8": "1"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the stage save its checkpoint and end; each further Ctrl-C sends it one more signal, and the second ends it.

    The terminal sends Ctrl-C to this command alone, because DVC has its own process group. A further SIGTERM or SIGHUP
    sends nothing: a terminal that closes and its shell both signal it. DVC ignores SIGINT from just before it
    starts a stage, so a stage that starts late gets the signal too.
    """
    more, told = True, False
    while process.poll() is None:
        try:
            if more or not told:
                told = interrupt(process, stage_only=not more)
                more = False
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
        except Terminated:  # it sends nothing, as said above
            pass
        except KeyboardInterrupt:
            more = True


def interrupt(process: subprocess.Popen[bytes], *, stage_only: bool = False) -> bool:
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
