"""A sweep without DVC: whatever interrupts it, the list of trials is the same. `test_real_sweep.py` uses the real DVC."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codex_ml.cli.sweeping import study
from codex_ml.cli.sweeping.search_space import read_axes
from codex_ml.cli.sweeping.study import Budget, Study
from codex_ml.cli.sweeping.sweep_journal import Journal, SweepSettings
from codex_ml.cli.sweeping.trial_experiment import Launch, Points, SweepMetric
from codex_ml.core.errors import CheckFailed, UserError

SPACE = ["train.lr=loguniform(1e-4,1e-1)", "train.accumulation=choice(1,2)"]


class FakeDvc:
    """Keeps experiments in a dict. The loss depends on the parameters; a rate above 0.05 fails; it can be killed."""

    def __init__(self) -> None:
        self.experiments: dict[str, dict[str, str]] = {}
        self.started: list[str] = []
        self.calls = itertools.count()
        self.kill_at = -1

    def _may_kill(self) -> None:
        if next(self.calls) == self.kill_at:
            raise KeyboardInterrupt

    def curve(self, params: dict[str, str]) -> Points:
        end = abs(np.log10(float(params["train.lr"])) + 2) + 0.1 * int(params["train.accumulation"])
        return [(step, end + 10 / step) for step in (10, 20, 30)]

    def run(self, launch: Launch, target: str, stop_at: Callable[[Points], int | None] | None) -> tuple[int, str]:
        assert target == "train"
        printed = "train: it begins\nerror: the loss is not finite\nERROR: failed to run: python -P stages/train.py, exited with 1\n"
        self.started.append(launch.name)
        self._may_kill()
        if float(launch.params["train.lr"]) > 0.05:
            return 1, printed
        curve = self.curve(launch.params)
        for end in range(1, len(curve)):  # the last point is never seen while it runs
            if stop_at and stop_at(curve[:end]) is not None:
                return 1, printed
        self.experiments[launch.name] = launch.params
        self._may_kill()
        return 0, printed

    def result(self, commit: str, metric: SweepMetric) -> tuple[float | None, Points, str]:
        assert metric == SweepMetric("train", "best_val_loss")
        curve = self.curve(self.experiments[commit])
        return curve[-1][1], curve, ""


@pytest.fixture
def fake(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDvc:
    made = FakeDvc()
    monkeypatch.setattr(study, "run_experiment", made.run)
    monkeypatch.setattr(study, "result_of", made.result)
    monkeypatch.setattr(Launch, "commit", lambda launch: launch.name if launch.name in made.experiments else None)
    monkeypatch.setattr(Study, "_left_complete", lambda self, launch: launch.commit())
    return made


def sweep(folder: Path, method: str = "tpe", trials: int = 16, *, stop_early: bool = True) -> list[tuple[object, ...]]:
    settings = SweepSettings.model_validate(
        {"name": "s", "space": SPACE, "method": method, "metric": "train.best_val_loss", "direction": "min", "seed": 1}
        | {"stop_early": stop_early, "head": "0" * 40}
    )
    folder.mkdir(exist_ok=True)
    journal = Journal(folder, settings)
    Study(settings, read_axes(SPACE), journal, lock=0).run(Budget(trials, None))
    return [
        (t.number, t.params, t.state, t.value, t.curve, t.experiment, t.why.replace(str(folder), ""))
        for t in journal.trials.values()
    ]


@pytest.mark.parametrize("method", ["tpe", "sobol", "random"])
def test_a_sweep_killed_anywhere_and_resumed_has_the_same_list(fake: FakeDvc, tmp_path: Path, method: str) -> None:
    whole = sweep(tmp_path / "whole", method)
    assert {state for _, _, state, *_ in whole} >= {"finished", "stopped"}
    assert len(set(fake.started)) == len(fake.started) == 16
    random = np.random.default_rng(5)
    for kill in range(3):
        fake.__init__()  # type: ignore[misc]
        for _ in range(3):
            fake.kill_at = next(fake.calls) + int(random.integers(1, 8))
            with pytest.raises(KeyboardInterrupt):
                sweep(tmp_path / f"killed-{kill}", method)
        fake.kill_at = -1
        assert sweep(tmp_path / f"killed-{kill}", method) == whole
        assert len(fake.started) <= 16 + 3, "only a trial that was interrupted runs again"


def test_more_trials_continue_the_list(fake: FakeDvc, tmp_path: Path) -> None:
    whole = sweep(tmp_path / "whole", trials=12)
    short = sweep(tmp_path / "longer", trials=7)
    assert short == whole[:7]
    assert sweep(tmp_path / "longer", trials=12) == whole


def test_a_stopped_trial_is_the_same_whether_it_was_stopped_in_time_or_not(
    fake: FakeDvc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_time = sweep(tmp_path / "in time", "sobol")
    monkeypatch.setattr(study, "run_experiment", lambda launch, target, stop_at: fake.run(launch, target, None))
    fake.__init__()  # type: ignore[misc]
    assert sweep(tmp_path / "late", "sobol") == in_time


def test_a_failed_trial_says_why_and_the_sweep_goes_on(fake: FakeDvc, tmp_path: Path) -> None:
    found = sweep(tmp_path / "s", "random", stop_early=False)
    failed = [entry for entry in found if entry[2] == "failed"]
    assert failed and all(float(entry[1]["train.lr"]) > 0.05 for entry in failed)  # type: ignore[index]
    assert str(failed[0][-1]).startswith("dvc ended with 1: error: the loss is not finite (all of it:")


def test_a_sweep_whose_first_trials_all_fail_ends(
    fake: FakeDvc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "run_experiment", lambda launch, target, stop_at: (255, "failed to run: x"))
    with pytest.raises(CheckFailed, match=r"the first 3 trials failed.*dvc ended with 255: failed to run: x"):
        sweep(tmp_path / "s")


def test_values_that_params_yaml_does_not_allow_together_run_nothing(fake: FakeDvc, tmp_path: Path) -> None:
    space = ["model.hidden_size=choice(64, 63)", "train.lr=1e-3", "train.accumulation=1"]
    settings = SweepSettings.model_validate(
        {"name": "s", "space": space, "method": "grid", "metric": "train.best_val_loss", "direction": "min"}
        | {"seed": 1, "stop_early": False, "head": "0" * 40}
    )
    made = Study(settings, read_axes(space), Journal(tmp_path, settings), lock=0)
    made.refuse_impossible(2)
    made.run(Budget(2, None))
    trials = made.journal.trials
    assert [trials[n].state for n in range(2)] == ["finished", "refused"]
    assert "hidden_size 63 must be a multiple of 2 x heads" in trials[1].why
    assert len(fake.started) == 1
    only = ["model.hidden_size=choice(63, 61)"]
    other = settings.model_copy(update={"space": only, "name": "o"})
    (tmp_path / "o").mkdir()
    with pytest.raises(
        UserError, match=r"no trial of this sweep can run; the first: params\.yaml: model: hidden_size 63"
    ):
        Study(other, read_axes(only), Journal(tmp_path / "o", other), lock=0).refuse_impossible(2)


def test_minutes_are_those_of_the_trials(fake: FakeDvc, tmp_path: Path) -> None:
    sweep(tmp_path / "s", trials=3)
    settings = Journal.__new__(Journal)
    settings.trials = {n: t.model_copy(update={"seconds": 20.0}) for n, t in _trials(tmp_path / "s").items()}
    assert Budget(None, 60.5).left(settings, 3)
    assert not Budget(None, 60.0).left(settings, 3)
    assert not Budget(3, 600.0).left(settings, 3)


def _trials(folder: Path) -> dict[int, study.SweepTrial]:
    from codex_ml.cli.sweeping.sweep_journal import SweepTrial

    lines = (folder / "journal.ndjson").read_text().splitlines()[1:]
    return {n: SweepTrial.model_validate_json(line) for n, line in enumerate(lines)}


@pytest.mark.parametrize(
    "printed",
    [
        "ERROR: Unable to acquire lock",
        "error: the disk is full; free some space (No space left on device)\nERROR: failed to run: x",
        "error: SIGTERM: saved the checkpoint of step 3\nERROR: failed to run: x",
        "",
    ],
)
def test_what_is_not_the_fault_of_a_trial_is_not_recorded(
    fake: FakeDvc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str
) -> None:
    monkeypatch.setattr(study, "run_experiment", lambda launch, target, stop_at: (255, printed))
    with pytest.raises(CheckFailed, match="trial 0 did not run, and is not recorded"):
        sweep(tmp_path / "s")
    assert len((tmp_path / "s/journal.ndjson").read_text().splitlines()) == 1
