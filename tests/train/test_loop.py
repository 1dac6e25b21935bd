"""A step, a validation and the ways a run may end."""

from __future__ import annotations

import csv
import os
import signal
import sys

import numpy as np
import pytest
import torch

from codex_ml.core.config import Runtime
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.events import RUN, run_id
from codex_ml.core.strict_json import parse_json
from codex_ml.modeling.hardware import Hardware
from codex_ml.modeling.rows import IGNORE, Rows
from codex_ml.train import loop, validation
from codex_ml.train import step as step_module
from codex_ml.train.checkpoint import load_newest
from codex_ml.train.loss import summed_loss
from codex_ml.train.recipe import OptimizerPlan, Recipe, RunFolders

pytestmark = pytest.mark.usefixtures("one_thread")

EIGHT_ROWS = (7, 1, 12, 3, 1, 20, 2, 8)  # 62 targets: seven rows of 8, one of 6


@pytest.fixture
def optimizers(monkeypatch):
    """The optimizers that are made, each with the gradients of its steps."""
    made = []

    class Recorder(torch.optim.AdamW):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.gradients = []
            made.append(self)

        def step(self, *args, **kwargs):
            self.gradients.append({id(p): p.grad.clone() for g in self.param_groups for p in g["params"]})
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", Recorder)
    return made


@pytest.mark.parametrize(("micro_batch_size", "accumulation"), [(8, 1), (2, 4), (1, 8)])
def test_gradient_is_that_of_the_mean_over_all_targets(recipe, tmp_path, optimizers, micro_batch_size, accumulation):
    rows = recipe.packed(EIGHT_ROWS, seed=1)
    assert len(rows) == 8
    expected = recipe.tiny_model().double()
    batch = rows.batch(np.arange(8))
    targets = int((batch["labels"] != IGNORE).sum())
    assert targets == 62
    (summed_loss(expected, {k: torch.from_numpy(v) for k, v in batch.items()}) / targets).backward()

    model = recipe.tiny_model().double()
    recipe.train(
        tmp_path,
        model=model,
        rows=rows,
        max_steps=1,
        warmup_steps=0,
        micro_batch_size=micro_batch_size,
        accumulation=accumulation,
        clip_norm=1e9,
    )
    found = optimizers[0].gradients[0]
    for (name, p), reference in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert found[id(p)].dtype == torch.float64
        torch.testing.assert_close(found[id(p)], reference.grad, rtol=1e-10, atol=0, msg=name)


def test_gradient_is_clipped_to_the_norm_and_logged_whole(recipe, tmp_path, optimizers):
    recipe.train(tmp_path, max_steps=2, clip_norm=0.05)
    logged = [point["train/grad_norm"] for point in load_newest(tmp_path / "scratch").points() if len(point) > 2]
    assert min(logged) > 0.05
    for gradients in optimizers[0].gradients:
        norm = torch.stack([g.norm() for g in gradients.values()]).norm()
        assert float(norm) == pytest.approx(0.05, rel=1e-4)  # torch divides by norm + 1e-6


def test_only_matrices_decay(recipe, tmp_path, optimizers):
    model = recipe.tiny_model()
    recipe.train(tmp_path, model=model, max_steps=2, weight_decay=0.25)
    decay = {id(p): group["weight_decay"] for group in optimizers[0].param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        name: 0.0 if "norm" in name else 0.25 for name, _ in model.named_parameters()
    }


def test_each_step_uses_the_rate_of_the_schedule(recipe, tmp_path):
    """lr 0.02, 2 steps of warm-up, then half a cosine over 4 steps down to a tenth."""
    recipe.train(tmp_path, max_steps=6)
    history = load_newest(tmp_path / "scratch").points()
    assert [point["train/lr"] for point in history if "train/lr" in point] == pytest.approx(
        [0.01, 0.02, 0.02, 0.002 + 0.018 * (1 + 0.5**0.5) / 2, 0.011, 0.002 + 0.018 * (1 - 0.5**0.5) / 2]
    )


def validation_loss(recipe, model) -> float:
    rows = recipe.packed((9, 1, 13), seed=2)
    batch = rows.batch(np.arange(len(rows)))
    with torch.no_grad():
        total = summed_loss(model.eval(), {k: torch.from_numpy(v) for k, v in batch.items()})
    return float(total) / int((batch["labels"] != IGNORE).sum())


def test_weights_of_the_lowest_validation_loss_are_kept(recipe, tmp_path):
    """At a constant rate a run that ends at the best step has the best weights; this one goes on and overfits."""
    constant = {"lr": 0.05, "warmup_steps": 0, "min_lr_ratio": 1.0, "eval_every": 1}
    (tmp_path / "long").mkdir(), (tmp_path / "short").mkdir()
    model, best = recipe.train(tmp_path / "long", max_steps=12, **constant)
    losses = {
        point["step"]: point["val/loss"]
        for point in load_newest(tmp_path / "long/scratch").points()
        if "val/loss" in point
    }
    assert list(losses) == list(range(1, 13))
    assert best == {"step": min(losses, key=losses.get), "val/loss": min(losses.values())}
    assert best["step"] < 12
    assert validation_loss(recipe, model) == pytest.approx(best["val/loss"], rel=1e-6)

    short, _ = recipe.train(tmp_path / "short", max_steps=best["step"], **constant)
    newest = load_newest(tmp_path / "long/scratch").weights
    for (name, kept), expected in zip(model.named_parameters(), short.parameters(), strict=True):
        if name != "lm_head.weight":
            assert torch.equal(kept, expected), name
            assert not torch.equal(kept, newest[name]), name


def test_validation_reads_evenly_spaced_rows(recipe, tmp_path, monkeypatch):
    read = []
    batch = Rows.batch

    def recorded(self, rows):
        if len(self) == 4:
            read.extend(rows.tolist())
        return batch(self, rows)

    monkeypatch.setattr(Rows, "batch", recorded)
    recipe.train(tmp_path, max_steps=1, warmup_steps=0, eval_rows=2)
    assert read == [0, 3]


def break_loss(monkeypatch, model, how, at):
    """Make the loss or a gradient of step `at` not finite."""
    calls = []

    def broken(forward, batch, train):
        loss = summed_loss(forward, batch)
        calls.append(loss)
        if len(calls) != at:
            return loss
        if how == "gradient":
            model.model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
            return loss
        return loss * float(how)

    monkeypatch.setattr(step_module, "training_loss", broken)


@pytest.mark.parametrize("how", ["nan", "inf", "gradient"])
def test_step_whose_loss_is_not_finite_is_not_applied(recipe, monkeypatch, tmp_path, how):
    """Case C058: the step is named, the last checkpoint is step 2, every JSON file stays JSON."""
    whole = tmp_path / "whole"
    whole.mkdir()
    recipe.train(whole, max_steps=10, checkpoint_every=2, keep=5)
    (tmp_path / "run").mkdir()
    model = recipe.tiny_model(dropout=0.3)
    break_loss(monkeypatch, model, how, at=3)
    with pytest.raises(CheckFailed, match=r"^step 3: the loss is .* the update was not applied") as failure:
        recipe.train(tmp_path / "run", model=model, max_steps=10, checkpoint_every=100)

    assert failure.value.exit_code == 1
    assert [path.name for path in (tmp_path / "run/scratch").glob("step-*")] == ["step-00000002"]
    assert load_newest(tmp_path / "run/scratch").state["step"] == 2
    for file in ("model.safetensors", "optimizer.safetensors"):
        expected = (whole / "scratch/step-00000002" / file).read_bytes()
        assert (tmp_path / "run/scratch/step-00000002" / file).read_bytes() == expected
    for name, saved in load_newest(tmp_path / "run/scratch").weights.items():
        assert torch.equal(model.get_parameter(name), saved)
    for file in (tmp_path / "run").rglob("*.json"):
        parse_json(file.read_bytes())
    assert parse_json((tmp_path / "run/curves/metrics.json").read_bytes())["step"] == 2
    assert [parse_json(line)["step"] for line in (tmp_path / "run/events.ndjson").read_text().splitlines()] == [1, 2]
    with (tmp_path / "run/curves/plots/metrics/train/loss.tsv").open() as handle:
        assert [row["step"] for row in csv.DictReader(handle, delimiter="\t")] == ["1", "2"]


def test_validation_loss_that_is_not_finite_ends_the_run_and_is_no_best(recipe, monkeypatch, tmp_path):
    def broken(model, batch):
        return summed_loss(model, batch) * float("nan")

    monkeypatch.setattr(validation, "summed_loss", broken)
    with pytest.raises(CheckFailed, match="step 2: the validation loss is nan"):
        recipe.train(tmp_path, checkpoint_every=1)
    newest = load_newest(tmp_path / "scratch")
    assert (newest.state["step"], newest.state["best"]) == (1, [])
    assert "val" not in parse_json((tmp_path / "curves/metrics.json").read_bytes())


def send(monkeypatch, *signals: int, at: int) -> None:
    """Send the signals to this process while step `at` runs."""
    schedule = step_module.rates_of

    def sending(plan, step, train):
        if step + 1 == at:
            for number in signals:
                os.kill(os.getpid(), number)
        return schedule(plan, step, train)

    monkeypatch.setattr(step_module, "rates_of", sending)


def test_first_sigint_saves_and_the_second_stops_at_once(recipe, monkeypatch, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        send(patch, signal.SIGINT, at=3)
        with pytest.raises(loop.Interrupted, match="SIGINT: saved the checkpoint of step 3 of 10"):
            recipe.train(tmp_path)
    assert max(path.name for path in (tmp_path / "scratch").glob("step-*")) == "step-00000003"

    send(monkeypatch, signal.SIGINT, signal.SIGINT, at=5)
    with pytest.raises(KeyboardInterrupt):
        recipe.train(tmp_path)
    assert max(path.name for path in (tmp_path / "scratch").glob("step-*")) == "step-00000004"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_sigterm_may_come_twice(recipe, monkeypatch, tmp_path, signals):
    """SLURM or systemd signal each process of a job, and the launcher, which got the signal too, forwards it."""
    send(monkeypatch, *signals, at=3)
    with pytest.raises(loop.Interrupted, match=f"{signals[0].name}: saved the checkpoint of step 3 of 10"):
        recipe.train(tmp_path)


def test_signal_in_the_last_step_lets_the_run_finish(recipe, monkeypatch, tmp_path):
    send(monkeypatch, signal.SIGTERM, at=10)
    recipe.train(tmp_path)
    assert load_newest(tmp_path / "scratch").state["step"] == 10


@pytest.mark.parametrize("name", ["train", "val"])
def test_stream_without_a_row_is_refused(recipe, tmp_path, name):
    empty, full = recipe.packed((), seed=1), recipe.packed(EIGHT_ROWS, seed=1)
    rows, val_rows = (empty, full) if name == "train" else (full, empty)
    with pytest.raises(UserError, match=f"packed {name} stream has no row"):
        loop.train_model(
            recipe.tiny_model(),
            Recipe(
                recipe.settings(),
                OptimizerPlan("adamw", 0.02),
                Runtime(),
                recipe.HARDWARE,
                1,
                rows,
                val_rows,
                tokenizer="",
            ),
            RunFolders(tmp_path / "scratch", tmp_path / "curves", tmp_path / "logs", tmp_path / "logs"),
            record={"params": {}, "environment": recipe.ENVIRONMENT},
        )
    assert not any(tmp_path.iterdir())


def test_a_model_trained_in_bf16_computes_in_float32_afterwards(recipe, tmp_path):
    """accelerate's wrapper would round every result; merged adapters would be compared with 8 bits of mantissa."""
    hardware = Hardware("cpu", "bf16", compile=False, threads=1, capability="test")
    model, _ = recipe.train(tmp_path, hardware=hardware, max_steps=2)
    fresh = recipe.tiny_model()
    fresh.load_state_dict(model.state_dict())
    ids = torch.arange(2, 10)[None]
    with torch.no_grad():
        assert torch.equal(model.eval()(input_ids=ids).logits, fresh.eval()(input_ids=ids).logits)


def test_the_folder_of_the_checkpoints_names_each_run_that_wrote_them(recipe, monkeypatch, tmp_path):
    for commit in ("a" * 40, "b" * 40):
        monkeypatch.setattr("codex_ml.core.events._begun", {})  # as in a new process
        monkeypatch.setitem(sys._xoptions, RUN, f"20260131-120000-{commit[:6]}")
        tags = {"run": run_id(), "experiment": "workspace", "seed": "3", "commit": commit}
        monkeypatch.setattr(loop, "run_tags", lambda seed, tags=tags: {**tags, "seed": str(seed)})
        model = recipe.tiny_model()
        break_loss(monkeypatch, model, "nan", at=3)
        with pytest.raises(CheckFailed):
            recipe.train(tmp_path, model=model, max_steps=10)
    lines = [parse_json(line) for line in (tmp_path / "scratch/runs.ndjson").read_bytes().splitlines()]
    assert lines == [
        {"run": f"20260131-120000-{'a' * 6}", "experiment": "workspace", "seed": "3", "commit": "a" * 40},
        {"run": f"20260131-120000-{'b' * 6}", "experiment": "workspace", "seed": "3", "commit": "b" * 40},
    ]
