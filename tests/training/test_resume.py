"""Interruption changes nothing (DESIGN.md, invariant 2): every byte of a run that was stopped equals one that was not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from codex_ml.training import loop
from codex_ml.training import step as step_module
from codex_ml.training.checkpoint import load_newest

pytestmark = pytest.mark.usefixtures("one_thread")

# (rows are 2 x accumulation a step, 12 an epoch) -> steps inside epoch 0, at its end, inside epoch 1
MATRIX = [(1, 10, 3), (1, 10, 6), (1, 10, 8), (3, 5, 1), (3, 5, 2), (3, 5, 3)]
NAMES = [
    f"accumulation {accumulation}, {place}"
    for accumulation in (1, 3)
    for place in ("middle of epoch 0", "end of epoch 0", "middle of epoch 1")
]


class Outcome:
    """Everything that a run leaves behind, and the rows it read."""

    def __init__(self, folder: Path, model: torch.nn.Module, best: dict, windows: list[np.ndarray]) -> None:
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.best = best
        self.windows = windows
        self.checkpoint = load_newest(folder / "scratch")
        newest = max((folder / "scratch").glob("step-*"))
        files = [*newest.rglob("*"), *(folder / "curves").rglob("*")]
        self.files = {file.name: file.read_bytes() for file in files if file.is_file()}


def run(recipe, monkeypatch, folder: Path, **changes: object) -> Outcome:
    folder.mkdir(exist_ok=True)
    windows: list[np.ndarray] = []
    look_up = step_module.rows_of_step

    def recorded(*args, **kwargs):
        windows.append(look_up(*args, **kwargs))
        return windows[-1]

    with monkeypatch.context() as patch:
        patch.setattr(step_module, "rows_of_step", recorded)
        recipe.seed_everything()
        model, best = recipe.train(folder, **changes)
    return Outcome(folder, model, best, windows)


def assert_equal(resumed: Outcome, whole: Outcome) -> None:
    assert resumed.best == whole.best
    for name, expected in whole.weights.items():
        assert torch.equal(resumed.weights[name], expected), name
    for part in ("weights", "optimizer"):
        found, expected = getattr(resumed.checkpoint, part), getattr(whole.checkpoint, part)
        assert found.keys() == expected.keys()
        for name in expected:
            assert torch.equal(found[name], expected[name]), name
    assert resumed.checkpoint.state == whole.checkpoint.state  # step, history, best, random states
    assert resumed.files == whole.files  # the last checkpoint and the curves, byte by byte


@pytest.mark.parametrize(("accumulation", "steps", "at"), MATRIX, ids=NAMES)
def test_run_stopped_by_sigterm_ends_with_the_same_bytes(recipe, monkeypatch, tmp_path, accumulation, steps, at):
    changes = {"accumulation": accumulation, "max_steps": steps}
    whole = run(recipe, monkeypatch, tmp_path / "whole", **changes)
    schedule, read = step_module.learning_rate, step_module.rows_of_step
    first: list[np.ndarray] = []

    def stop(step, train):
        if step == at - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return schedule(step, train)

    def recorded(*args, **kwargs):
        first.append(read(*args, **kwargs))
        return first[-1]

    with monkeypatch.context() as patch:
        patch.setattr(step_module, "learning_rate", stop)
        patch.setattr(step_module, "rows_of_step", recorded)
        (tmp_path / "resumed").mkdir()
        with pytest.raises(loop.Interrupted, match=f"SIGTERM.* step {at} of {steps}"):
            recipe.train(tmp_path / "resumed", **changes)
    resumed = run(recipe, monkeypatch, tmp_path / "resumed", **changes)

    assert_equal(resumed, whole)
    assert len(first) == at
    np.testing.assert_array_equal([*first, *resumed.windows], whole.windows)


@pytest.mark.parametrize(("accumulation", "steps", "at"), MATRIX, ids=NAMES)
def test_run_killed_in_a_step_ends_with_the_same_bytes(
    recipe, train_and_kill, monkeypatch, tmp_path, accumulation, steps, at
):
    changes = {"accumulation": accumulation, "max_steps": steps}
    whole = run(recipe, monkeypatch, tmp_path / "whole", **changes)
    (tmp_path / "resumed").mkdir()
    assert train_and_kill(tmp_path / "resumed", {"step": at}, **changes) == -signal.SIGKILL
    resumed = run(recipe, monkeypatch, tmp_path / "resumed", **changes)

    assert_equal(resumed, whole)
    saved = at - at % 2  # checkpoint_every is 2
    np.testing.assert_array_equal(resumed.windows, whole.windows[saved:])


FILES = ["model.safetensors", "optimizer.safetensors", "best"] * 2
SAVES = [(*place, file) for place, file in zip(MATRIX, FILES, strict=True)]


@pytest.mark.parametrize(("accumulation", "steps", "at", "file"), SAVES, ids=NAMES)
def test_run_killed_in_a_save_goes_on_from_the_checkpoint_before(
    recipe, train_and_kill, monkeypatch, tmp_path, accumulation, steps, at, file
):
    changes = {"accumulation": accumulation, "max_steps": steps, "checkpoint_every": 1, "eval_every": 1, "keep_best": 9}
    whole = run(recipe, monkeypatch, tmp_path / "whole", **changes)
    (tmp_path / "resumed").mkdir()
    assert train_and_kill(tmp_path / "resumed", {"step": at, "file": file}, **changes) == -signal.SIGKILL
    assert not (tmp_path / f"resumed/scratch/step-{at:08d}").exists()
    resumed = run(recipe, monkeypatch, tmp_path / "resumed", **changes)

    assert_equal(resumed, whole)
    np.testing.assert_array_equal(resumed.windows, whole.windows[at - 1 :])
    assert sorted(path.name for path in (tmp_path / "resumed/scratch").glob("step-*")) == [
        f"step-{steps - 1:08d}",
        f"step-{steps:08d}",
    ]


def test_a_step_across_two_epochs_resumes_too(recipe, monkeypatch, tmp_path):
    changes = {"micro_batch_size": 5, "max_steps": 6}  # 12 rows: step 2 takes two of epoch 0 and three of epoch 1
    whole = run(recipe, monkeypatch, tmp_path / "whole", **changes)
    schedule = step_module.learning_rate

    def stop(step, train):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return schedule(step, train)

    with monkeypatch.context() as patch:
        patch.setattr(step_module, "learning_rate", stop)
        (tmp_path / "resumed").mkdir()
        with pytest.raises(loop.Interrupted):
            recipe.train(tmp_path / "resumed", **changes)
    assert_equal(run(recipe, monkeypatch, tmp_path / "resumed", **changes), whole)


def test_finished_run_resumes_without_a_step(recipe, monkeypatch, tmp_path):
    whole = run(recipe, monkeypatch, tmp_path / "run")
    again = run(recipe, monkeypatch, tmp_path / "run")

    assert len(whole.windows) == 10
    assert again.windows == []
    assert_equal(again, whole)


def test_damaged_newest_checkpoint_costs_its_steps_and_nothing_else(recipe, monkeypatch, tmp_path, caplog):
    whole = run(recipe, monkeypatch, tmp_path / "run")
    newest = tmp_path / "run/scratch/step-00000010/model.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    again = run(recipe, monkeypatch, tmp_path / "run")

    assert_equal(again, whole)
    np.testing.assert_array_equal(again.windows, whole.windows[8:])
    assert "step-00000010 is damaged (model.safetensors has another hash)" in caplog.text


def test_two_runs_of_one_recipe_are_equal_and_another_seed_is_not(recipe, monkeypatch, tmp_path):
    one = run(recipe, monkeypatch, tmp_path / "one")
    assert_equal(run(recipe, monkeypatch, tmp_path / "two"), one)
    other = run(recipe, monkeypatch, tmp_path / "other", lr=0.021)
    assert other.files["model.safetensors"] != one.files["model.safetensors"]
