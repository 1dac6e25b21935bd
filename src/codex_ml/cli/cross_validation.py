"""Run the folds of a cross-validation as DVC experiments, one after the other, and collect their metrics.

The experiments themselves are the state: a fold whose experiment exists on the current commit is not run again. So a
killed command goes on where it stopped. Used by: `codex-ml folds`.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.cli.history.git_commands import files_of_commit, git_text
from codex_ml.cli.sweeping.experiment_run import DvcRun, run_dvc
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.strict_json import parse_json
from codex_ml.core.yaml import parse_yaml

PARAMS = "params.yaml"
FOLDER = Path("logs/folds")  # lock, and a note of the fold that runs
METRICS = ("reports/train/metrics.json", "reports/evaluate/metrics.json")
LEFT_OUT = frozenset({"step", "best_step"})  # where a run stopped, not how good it is


@dataclass(frozen=True)
class Fold:
    """One fold, and the DVC experiment that runs it.

    Attributes:
        number: `split.fold`, from 0.
        folds: `split.folds`.
        changes: further parameters in the form `key=value`, as `dvc exp run -S` takes them.
    """

    number: int
    folds: int
    changes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the experiment; other changes of parameters give another name."""
        text = json.dumps(self.changes)
        mark = f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}" if self.changes else ""
        return f"folds-{self.folds}{mark}-{self.number}"

    @property
    def command(self) -> list[str]:
        """The command that runs it in a temporary copy of the commit."""
        settings = (
            f"++split.folds={self.folds}",
            f"++split.fold={self.number}",
            *self.changes,
        )  # ++: also where params.yaml lacks it
        options = [word for setting in settings for word in ("-S", setting)]
        return [sys.executable, "-P", "-m", "dvc", "exp", "run", "--temp", "--name", self.name, *options]

    @property
    def params(self) -> dict[str, str]:
        """Key -> value as text of params.yaml, which DVC sets."""
        changed = (change.partition("=") for change in self.changes)
        own = {"split.folds": str(self.folds), "split.fold": str(self.number)}
        return own | {key.strip("+"): value for key, _, value in changed}

    def reference(self, head: str) -> str:
        """The Git reference that DVC gives the experiment on the commit `head`."""
        return f"refs/exps/{head[:2]}/{head[2:]}/{self.name}"


def clean_head() -> str:
    """The current commit, on which the folds are run.

    Raises:
        UserError: where there is none, or tracked files differ from it.
    """
    head = head_commit()
    refuse_changes(runs="folds")
    return head


def head_commit() -> str:
    """The current commit.

    Raises:
        UserError: where there is none.
    """
    head = git_text("rev-parse", "--verify", "--quiet", "HEAD")
    if not head:
        raise UserError("there is no commit yet, and experiments need one; commit the project first")
    return head


def refuse_changes(*, runs: str) -> None:
    """Refuse tracked files that differ from the commit: a run that starts later would use other files.

    Args:
        runs: what the experiments are, for the message.

    Raises:
        UserError: with one of the files.
    """
    if changed := git_text("diff", "--name-only", "--relative", "HEAD", "--", ".").splitlines():
        raise UserError(
            f"{len(changed)} tracked files differ from the commit, such as {changed[0]}; commit them: all {runs} "
            "must run on the same files"
        )


def finished(fold: Fold, head: str) -> str | None:
    """The commit of the fold's experiment, None where it has not been run.

    Raises:
        UserError: when an experiment of that name has other parameters.
    """
    commit = git_text("rev-parse", "--verify", "--quiet", f"{fold.reference(head)}^{{commit}}")
    if not commit:
        return None
    data = files_of_commit(commit, PARAMS).read(PARAMS)
    params: Any = parse_yaml(data.decode("utf-8"), PARAMS) if data else {}
    split = params.get("split") or {}
    if (split.get("folds"), split.get("fold")) != (fold.folds, fold.number):
        raise UserError(
            f"the experiment {fold.name} is not fold {fold.number} of {fold.folds}; `dvc exp remove {fold.name}` makes "
            "room for it"
        )
    return commit


def run_fold(fold: Fold, head: str, lock: int, *, to_stderr: bool) -> str:
    """Run the experiment of a fold; return its commit.

    Args:
        lock: descriptor of the lock of `FOLDER`.

    Raises:
        CheckFailed: when DVC fails. Finished stages stay in DVC's run cache, so the next run goes on from there.
    """
    code = run_dvc(
        DvcRun(fold.command, fold.name, fold.params, FOLDER, lock), (sys.stderr if to_stderr else None, None)
    )
    if code:
        raise CheckFailed(
            f"fold {fold.number} of {fold.folds} failed: dvc ended with {code}, see its output above; "
            "run the command again to go on"
        )
    commit = finished(fold, head)
    if commit is None:
        raise CheckFailed(f"DVC ran fold {fold.number}, but kept no experiment {fold.name}; see its output above")
    return commit


def metrics_of(commit: str) -> dict[str, float]:
    """The numbers of `METRICS` in a commit, by stage and dotted name."""
    files = files_of_commit(commit, *METRICS)
    result: dict[str, float] = {}
    for path in METRICS:
        data = files.read(path)
        if data is None:
            raise CheckFailed(f"the experiment {commit[:12]} has no {path}; remove it, and run the command again")
        for name, value in _numbers(parse_json(data.decode("utf-8"))):
            if name not in LEFT_OUT:
                result[f"{Path(path).parent.name}.{name}"] = value
    return result


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield name, float(value)


@dataclass(frozen=True)
class Spread:
    """A metric over the folds.

    Attributes:
        values: one per fold; None where the fold has no such number.
        mean, deviation, low, high: over the folds that have it. `deviation` divides by n - 1; None for one value.
    """

    values: list[float | None]
    mean: float
    deviation: float | None
    low: float
    high: float


@dataclass(frozen=True)
class FoldsResult:
    """What `codex-ml folds --json` prints.

    Attributes:
        experiments: name of the experiment of each fold.
        metrics: each over the folds.
    """

    experiments: list[str]
    metrics: dict[str, Spread]


def spread(folds: list[dict[str, float]]) -> dict[str, Spread]:
    """Mean and spread of each metric over folds.

    Folds share most of their train documents, so their results are not independent, and no unbiased interval of the
    mean can be had from them (Bengio and Grandvalet 2004).

    >>> spread([{"loss": 3.0}, {"loss": 5.0}])
    {'loss': Spread(values=[3.0, 5.0], mean=4.0, deviation=1.4142135623730951, low=3.0, high=5.0)}
    """
    result = {}
    for name in dict.fromkeys(name for fold in folds for name in fold):
        values = [fold.get(name) for fold in folds]
        present = [value for value in values if value is not None]
        deviation = statistics.stdev(present) if len(present) > 1 else None
        result[name] = Spread(values, statistics.fmean(present), deviation, min(present), max(present))
    return result
