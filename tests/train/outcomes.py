"""Record the files that a run leaves and the batches that it read, and compare two runs."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from codex_ml.train import loop
from codex_ml.train import step as step_module
from codex_ml.train.checkpoint import copy_weights, load_newest, optimizer_tensors

Tensors = dict[str, torch.Tensor]


@dataclass
class Seen:
    """The state when a step began, and the batches that it then read, one per forward pass."""

    weights: Tensors
    optimizer: Tensors
    batches: list[Tensors] = field(default_factory=list)


class Outcome:
    """All files that a run leaves, and what each of its steps read."""

    def __init__(self, folder: Path, model: torch.nn.Module, best: dict, steps: dict[int, Seen]) -> None:
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.best, self.steps = best, steps
        self.checkpoint = load_newest(folder / "scratch")
        newest = max((folder / "scratch").glob("step-*"))
        files = [(top, file) for top in (newest, folder / "curves") for file in top.rglob("*") if file.is_file()]
        self.files = {file.relative_to(top.parent).as_posix(): file.read_bytes() for top, file in files}
        self.history = (folder / "scratch/history.ndjson").read_bytes()


def run(recipe, monkeypatch: pytest.MonkeyPatch, folder: Path, **changes: object) -> Outcome:
    """Train or resume in this process; `recipe` is the fixture."""
    folder.mkdir(exist_ok=True)
    steps: dict[int, Seen] = {}
    step, loss = loop.optimizer_step, step_module.training_loss

    def watched(run):
        steps[run.step] = Seen(copy_weights(run.model), optimizer_tensors(run.model, run.optimizer))
        return step(run)

    def reading(model, batch, train):
        steps[max(steps)].batches.append({name: tensor.clone() for name, tensor in batch.items()})
        return loss(model, batch, train)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimizer_step", watched)
        patch.setattr(step_module, "training_loss", reading)
        recipe.seed_everything()
        model, best = recipe.train(folder, **changes)
    return Outcome(folder, model, best, steps)


def stop_in_step(recipe, monkeypatch, folder: Path, number: int, **changes: object) -> pytest.ExceptionInfo:
    """Train until SIGTERM comes in the middle of step `number`, counted from 1."""
    schedule = step_module.rates_of

    def stop(plan, step, train):
        if step == number - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return schedule(plan, step, train)

    folder.mkdir(exist_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(step_module, "rates_of", stop)
        recipe.seed_everything()
        with pytest.raises(loop.Interrupted) as stopped:
            recipe.train(folder, **changes)
    return stopped


def assert_equal(resumed: Outcome, whole: Outcome) -> None:
    """Assert that the steps of both runs began and read the same, and that both runs ended with the same bytes."""
    for step, seen in resumed.steps.items():
        expected = whole.steps[step]
        assert_same_tensors(seen.weights, expected.weights)
        assert_same_tensors(seen.optimizer, expected.optimizer)
        assert len(seen.batches) == len(expected.batches)
        for found, wanted in zip(seen.batches, expected.batches, strict=True):
            assert_same_tensors(found, wanted)
    assert resumed.best == whole.best
    assert_same_tensors(resumed.weights, whole.weights)
    assert_same_tensors(resumed.checkpoint.weights, whole.checkpoint.weights)
    assert_same_tensors(resumed.checkpoint.optimizer, whole.checkpoint.optimizer)
    assert resumed.checkpoint.state == whole.checkpoint.state  # step, hash of the history, best, random states
    assert resumed.history == whole.history
    assert resumed.files == whole.files  # the last checkpoint with its best weights and the curves, byte by byte


def assert_same_tensors(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
