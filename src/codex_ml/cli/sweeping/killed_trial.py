"""Put back what DVC changed in the workspace when it is killed while it sets up an experiment.

For about a second, `dvc exp run --temp` detaches HEAD, writes the values of the trial into params.yaml, and adds a file
of its own to the index. It puts that back itself, unless it is killed.

Used by: `codex-ml sweep`, `codex-ml folds`.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from codex_ml.cli.history.git_commands import change_index, files_of_commit, git_text
from codex_ml.cli.output import say
from codex_ml.cli.sweeping.trial_values import leaves
from codex_ml.core.contract import Contract
from codex_ml.core.errors import UserError
from codex_ml.core.io import write_json
from codex_ml.core.yaml import parse_yaml, read_yaml

NOTE = "running.json"  # in the folder of the command while DVC runs
PARAMS = "params.yaml"
PACKED = ".dvc/tmp/repro.dat"  # what DVC adds to the index


class RunningTrial(Contract):
    """What the workspace was before DVC started.

    Attributes:
        branch: full name of the current branch; "" for a detached HEAD.
        params: key -> value of the trial, as text of params.yaml.
    """

    branch: str
    params: dict[str, str]


def note_trial(folder: Path, params: dict[str, str]) -> None:
    """Note in the command's folder that DVC will set these values."""
    write_json(folder / NOTE, {"branch": git_text("symbolic-ref", "--quiet", "HEAD"), "params": params})


def put_back(folder: Path) -> None:
    """Put back what a killed DVC changed, if the folder has a note of its trial; no DVC of the command may run.

    Only what DVC wrote is undone: params.yaml must have exactly the values of the commit and the trial, and no other
    tracked file may differ, as after `dvc exp apply`.
    """
    try:
        trial = RunningTrial.model_validate_json((folder / NOTE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return
    _remove_stale_lock((folder / NOTE).stat().st_mtime)
    head = git_text("rev-parse", "HEAD")
    branch = trial.branch.startswith("refs/heads/") and git_text("rev-parse", "--verify", "--quiet", trial.branch)
    if branch == head and not git_text("symbolic-ref", "--quiet", "HEAD"):
        change_index("symbolic-ref", "HEAD", trial.branch)
    if git_text("ls-files", "--", PACKED):
        change_index("rm", "--cached", "--quiet", "--force", "--", PACKED)
    if _is_of_trial(head, trial):
        change_index("checkout", "HEAD", "--", PARAMS)
        say(f"put back {PARAMS}, into which a killed experiment wrote its values", err=True)
    forget_trial(folder)


def forget_trial(folder: Path) -> None:
    """Remove the note, because DVC ended by itself and has put everything back."""
    (folder / NOTE).unlink(missing_ok=True)


def _remove_stale_lock(since: float) -> None:
    """Remove the lock of Git's index that a killed DVC left since a time, unless a Git runs in the repository."""
    import psutil

    lock, top = Path(git_text("rev-parse", "--git-path", "index.lock")), Path(git_text("rev-parse", "--show-toplevel"))
    if not lock.is_file() or lock.stat().st_mtime < since:
        return
    for process in psutil.process_iter(["name", "cwd"]):  # of other users and ended ones: None
        if process.info["name"] == "git" and Path(process.info["cwd"] or "/").is_relative_to(top):
            raise UserError(f"{lock} exists, and Git (process {process.pid}) runs; run the command again when it ended")
    lock.unlink()


def _is_of_trial(head: str, trial: RunningTrial) -> bool:
    """Whether params.yaml is that of the commit `head` with the values of the trial, and nothing else differs."""
    if git_text("diff", "--name-only", "--relative", "HEAD", "--", ".") != PARAMS:
        return False
    data = files_of_commit(head, PARAMS).read(PARAMS) or b""
    try:
        return bool(with_values(parse_yaml(data.decode("utf-8"), PARAMS), trial.params) == read_yaml(Path(PARAMS)))
    except (UserError, UnicodeDecodeError):
        return False


def with_values(params: Any, values: dict[str, str]) -> Any:
    """A copy of the content of params.yaml with the values of a trial.

    >>> with_values({"train": {"lr": 1.0, "ema": 0.0}}, {"train.lr": "1e-3"})
    {'train': {'lr': 0.001, 'ema': 0.0}}
    """
    whole = copy.deepcopy(params)
    for key, value in leaves(values).items():
        *above, leaf = key.split(".")
        place = whole
        for part in above:
            inner = place.get(part)
            place[part] = place = inner if isinstance(inner, dict) else {}
        place[leaf] = value
    return whole
