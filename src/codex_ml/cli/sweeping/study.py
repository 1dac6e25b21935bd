"""A sweep: propose, run, record, until the budget is used up.

Used by: `codex-ml sweep`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.cli.history.git_commands import files_of_commit
from codex_ml.cli.output import say
from codex_ml.cli.sweeping import trial_proposals as proposals
from codex_ml.cli.sweeping.killed_trial import with_values
from codex_ml.cli.sweeping.median_rule import stop_index
from codex_ml.cli.sweeping.search_space import SweepAxis
from codex_ml.cli.sweeping.sweep_journal import Journal, SweepSettings, SweepTrial
from codex_ml.cli.sweeping.trial_experiment import (
    Launch,
    Points,
    SweepMetric,
    experiment_name,
    forget_checkpoints,
    result_of,
    run_experiment,
)
from codex_ml.cli.sweeping.trial_values import leaves
from codex_ml.core.errors import CheckFailed, UserError, disk_error_in, one_line
from codex_ml.core.message_cleaner import clean_message
from codex_ml.core.yaml import parse_yaml, read_yaml

PARAMS = "params.yaml"
FAILURES = 3  # in a row without any success: then something is wrong that the next trial cannot mend
STAGE_FAILED = "failed to run: "  # what DVC prints when a stage ends with an error; other errors are not the trial's
INTERRUPTED = ("error: SIGINT", "error: SIGTERM", "error: interrupted")  # what a stage says that was told to end
LOOKED_AHEAD = 64  # trials whose values are checked before any work


@dataclass(frozen=True)
class Budget:
    """When a sweep ends.

    Attributes:
        trials: number of trials; None: until the time is up.
        seconds: that all trials together may take before the last one starts; None: no limit.
    """

    trials: int | None
    seconds: float | None

    def left(self, journal: Journal, number: int) -> bool:
        """Whether trial `number` may start."""
        spent = math.fsum(trial.seconds or 0.0 for trial in journal.trials.values())
        return (self.trials is None or number < self.trials) and (self.seconds is None or spent < self.seconds)


class Study:
    """The trials of one sweep, in order."""

    def __init__(self, settings: SweepSettings, axes: tuple[SweepAxis, ...], journal: Journal, *, lock: int) -> None:
        self.settings, self.axes, self.journal, self.lock = settings, axes, journal, lock
        stage, _, name = settings.metric.partition(".")
        self.metric = SweepMetric(stage, name)

    def run(self, budget: Budget) -> None:
        """Run the trials that the journal lacks.

        Raises:
            CheckFailed: when a trial was interrupted, or when the first FAILURES trials fail.
        """
        number = 0
        while budget.left(self.journal, number):
            trial = self.journal.trials.get(number)
            if trial is None:
                trial = self._ended(number)
                self.journal.add(trial)
                say(f"sweep: {line_of(trial)}", err=True)
            self._stop_where_all_fail()
            number += 1

    def propose(self, number: int) -> dict[str, str]:
        """The parameters of trial `number`: key -> value as text of params.yaml."""
        axes, seed = self.axes, self.settings.seed
        if self.settings.method == "grid":
            return proposals.grid(axes, number)
        if self.settings.method == "random":
            return proposals.random(axes, number, seed=seed)
        if self.settings.method == "sobol":
            return proposals.sobol(axes, number, seed=seed)
        before = self.journal.before(number)
        return proposals.tpe(axes, number, seed=seed, before=before, direction=self.settings.direction)

    def refuse_edited(self) -> None:
        """Refuse a journal with trials that this sweep does not propose.

        A proposal of tpe depends on the trials before it, of which the user may delete failed ones. So its values must
        lie in the space only.

        Raises:
            UserError: with the first such trial.
        """
        size = proposals.grid_size(self.axes) if self.settings.method == "grid" else proposals.MOST_TRIALS
        for number, trial in self.journal.trials.items():
            inside = number < size and trial.params.keys() == {axis.key for axis in self.axes}
            inside = inside and all(axis.holds(trial.params[axis.key]) for axis in self.axes)
            if not inside or (self.settings.method != "tpe" and trial.params != self.propose(number)):
                raise UserError(
                    f"{self.journal.file}: trial {number} has values that this sweep does not propose; delete its line "
                    "to run the trial again, or give the sweep another --name"
                )

    def refuse_impossible(self, trials: int) -> None:
        """Refuse a sweep none of whose trials params.yaml allows, before any work.

        Raises:
            UserError: with what is wrong with the first trial.
        """
        ahead = 1 if self.settings.method == "tpe" else min(trials, LOOKED_AHEAD)
        refusals = [refusal(self.propose(number)) for number in range(ahead)]
        if all(refusals):
            raise UserError(f"no trial of this sweep can run; the first: {refusals[0]}")

    def _ended(self, number: int) -> SweepTrial:
        """Run trial `number`, or take over the experiment that a killed sweep left complete."""
        params, began, adopted = self.propose(number), time.monotonic(), False
        varied = [axis.key for axis in self.axes if axis.varies]
        name = experiment_name(self.settings.name, number, params, varied)

        def ended(state: str, why: str = "", **more: Any) -> SweepTrial:
            seconds = None if adopted else round(time.monotonic() - began, 1)
            shown = clean_message(why) if why else ""
            values = {"value": None, "curve": [], "commit": None, "seconds": seconds, "why": shown, **more}
            return SweepTrial.model_validate(
                {"number": number, "params": dict(sorted(params.items())), "state": state, "experiment": name, **values}
            )

        if why := refusal(params):
            return ended("refused", why)
        log = self.journal.file.parent / f"{number:03d}.log"
        launch = Launch(name, params, self.settings.head, log, self.lock)
        stop_at, seen = self._stopper(number)
        code, printed, commit = 0, "", self._left_complete(launch)
        adopted = commit is not None
        if commit is None:
            said = f"sweep: trial {number}: experiment {name}; `codex-ml logs --follow` shows its stages"
            say(said, err=True)
            code, printed = run_experiment(launch, self.metric.stage, stop_at)
            commit = launch.commit()
        value, curve, missing = result_of(commit, self.metric) if commit else (None, seen, "")
        index = stop_at(curve) if stop_at else None
        if index is not None:
            if commit is None:
                forget_checkpoints(name)
            return ended("stopped", _why_stopped(curve[index]), curve=curve[: index + 1], commit=commit)
        if commit is None:
            said = last_error(printed)
            why = f"dvc ended with {code}: {said} (all of it: {log})"
            if STAGE_FAILED not in printed or said.startswith(INTERRUPTED) or disk_error_in(said):
                raise CheckFailed(f"trial {number} did not run, and is not recorded; run the command again. {why}")
            return ended("failed", why)
        return ended("failed" if missing else "finished", missing, value=value, curve=curve, commit=commit)

    def _stopper(self, number: int) -> tuple[Callable[[Points], int | None] | None, Points]:
        """The median rule over the trials before, and the list of the last points that it was asked about."""
        seen: Points = []
        if not self.settings.stop_early:
            return None, seen
        finished = [trial.curve for trial in self.journal.before(number) if trial.state == "finished"]

        def stop_at(curve: Points) -> int | None:
            seen[:] = curve
            return stop_index(curve, finished)

        return stop_at, seen

    def _left_complete(self, launch: Launch) -> str | None:
        commit = launch.commit()
        if commit is None:
            return None
        data = files_of_commit(commit, PARAMS).read(PARAMS) or b""
        params = parse_yaml(data.decode("utf-8"), PARAMS)
        for key, value in leaves(launch.params).items():
            if _at(params, key) != value:
                raise UserError(
                    f"an experiment {launch.name} with another {key} exists already; `dvc exp remove {launch.name}` "
                    "makes room for the trial, or give the sweep another --name"
                )
        return commit

    def _stop_where_all_fail(self) -> None:
        trials = list(self.journal.trials.values())
        if len(trials) >= FAILURES and all(trial.state == "failed" for trial in trials):
            raise CheckFailed(
                f"the first {len(trials)} trials failed, so the sweep stops; the last: {trials[-1].why}. To run them "
                f"again, delete {self.journal.file}"
            )


def _why_stopped(point: tuple[int, float]) -> str:
    return f"at step {point[0]} the best validation loss so far was above the median of the trials before"


def _at(params: Any, key: str) -> Any:
    for part in key.split("."):
        params = params.get(part) if isinstance(params, dict) else None
    return params


def refusal(params: dict[str, str]) -> str:
    """Why params.yaml does not allow these values together; "" where it does."""
    from codex_ml.cli.param_rules import validate_params

    try:
        validate_params(with_values(read_yaml(Path(PARAMS)), params))
    except UserError as error:
        return one_line(error)
    return ""


def last_error(printed: str) -> str:
    """The line that says most: the last one of a stage that begins with `error:`, else the last one."""
    lines = [line for line in printed.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return one_line((errors or lines or ["it printed nothing"])[-1])


def line_of(trial: SweepTrial) -> str:
    """One line about a trial that ended."""
    result = f"{trial.value:.6g}" if trial.value is not None else trial.state
    values = ", ".join(f"{key}={text}" for key, text in trial.params.items())
    return f"trial {trial.number}: {result} with {values}" + (f"; {trial.why}" if trial.why else "")
