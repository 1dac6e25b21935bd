"""A run that Muon trains is as exact as one of AdamW: interrupted, accumulated, clipped, skipped, continued."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from codex_ml.core.config import Runtime
from codex_ml.core.errors import UserError
from codex_ml.core.hashing import sha256_of
from codex_ml.train import step as step_module
from codex_ml.train.checkpoint import copy_weights, export_newest, load_newest, optimizer_tensors
from codex_ml.train.loss import summed_loss
from codex_ml.train.recipe import Recipe
from codex_ml.train.run import Run, prepare_run
from codex_ml.train.step import optimizer_step

from .outcomes import assert_equal, assert_same_tensors, run, stop_in_step

pytestmark = pytest.mark.usefixtures("one_thread")
MUON = {"optimizer": "muon", "embedding_lr": 0.05}
EIGHT_ROWS = (7, 1, 12, 3, 1, 20, 2, 8)
FIRST = Path("models/base/first")


def prepared(recipe, folder: Path, *, model: Any = None, **changes: Any) -> Run:
    """A run at step 0 on eight rows, without dropout."""
    train, rows = recipe.settings(**changes), recipe.packed(EIGHT_ROWS, seed=1)
    settings = Recipe(train, recipe.plan_of(train), Runtime(), recipe.HARDWARE, 3, rows, rows, tokenizer="")
    return prepare_run(model or recipe.tiny_model(), settings, scratch=folder)


def momenta(run: Run) -> dict[str, torch.Tensor]:
    """What each optimizer has averaged of the gradients: Muon's buffers and AdamW's first moments."""
    kept = ("momentum_buffer", "exp_avg")
    return {key: value for key, value in optimizer_tensors(run.model, run.optimizer).items() if key.endswith(kept)}


HARD = {**MUON, "accumulation": 3, "max_steps": 5, "ema": 0.5, "clip_norm": 0.1}


def test_a_run_stopped_by_sigterm_ends_with_the_same_bytes(recipe, monkeypatch, tmp_path):
    whole = run(recipe, monkeypatch, tmp_path / "whole", **HARD)
    stop_in_step(recipe, monkeypatch, tmp_path / "resumed", 3, **HARD)
    resumed = run(recipe, monkeypatch, tmp_path / "resumed", **HARD)
    assert list(resumed.steps) == [3, 4]
    assert_equal(resumed, whole)
    assert {name.rpartition("/")[2] for name in whole.checkpoint.optimizer} == {
        "momentum_buffer", "step", "exp_avg", "exp_avg_sq"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kill", "saved"),
    [({"step": 3}, 2), ({"step": 4, "file": "optimizer.safetensors"}, 2), ({"step": 4, "file": "ema.safetensors"}, 2)],
)
def test_a_killed_run_ends_with_the_same_bytes(recipe, train_and_kill, monkeypatch, tmp_path, kill, saved):
    whole = run(recipe, monkeypatch, tmp_path / "whole", **HARD)
    (tmp_path / "cut").mkdir()
    assert train_and_kill(tmp_path / "cut", kill, **HARD) == -signal.SIGKILL
    resumed = run(recipe, monkeypatch, tmp_path / "cut", **HARD)
    assert list(resumed.steps) == list(range(saved, 5))
    assert_equal(resumed, whole)


def test_a_step_is_the_same_in_one_pass_and_in_several(recipe, tmp_path):
    ends = []
    for size, passes in ((8, 1), (2, 4), (1, 8)):
        changes = {**MUON, "micro_batch_size": size, "accumulation": passes}
        one = prepared(recipe, tmp_path, model=recipe.tiny_model().double(), **changes)
        for _ in range(3):
            optimizer_step(one)
            one.step += 1
        ends.append(copy_weights(one.model))
    for other in ends[1:]:
        for name, value in ends[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-6, atol=1e-9, msg=name)


def test_one_norm_clips_the_gradients_of_both_optimizers(recipe, tmp_path):
    """After one step the averages are (1 - momentum) and (1 - beta1) times the gradient."""
    one = prepared(recipe, tmp_path, **MUON, clip_norm=0.01, micro_batch_size=8)
    assert optimizer_step(one)["train/grad_norm"] > 0.01
    shares = {"momentum_buffer": 1 - one.train.momentum, "exp_avg": 1 - one.train.beta1}
    gradients = [value / shares[name.rpartition("/")[2]] for name, value in momenta(one).items()]
    assert float(torch.cat([gradient.flatten() for gradient in gradients]).norm()) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_skipped_first_update_leaves_both_optimizers_and_can_be_resumed(recipe, monkeypatch, tmp_path, optimizer):
    """The checkpoint of a run without an update yet has states of zeros."""
    calls = 0

    def spoilt(forward, batch, train):
        nonlocal calls
        calls += 1
        return summed_loss(forward, batch) * (float("inf") if calls == 1 else 1.0)

    changes = {"optimizer": optimizer, "max_steps": 4, "max_skipped_steps": 1, "checkpoint_every": 1}
    with monkeypatch.context() as patch:
        patch.setattr(step_module, "training_loss", spoilt)
        stop_in_step(recipe, monkeypatch, tmp_path / "cut", 1, **changes)
    start, found = copy_weights(recipe.tiny_model()), load_newest(tmp_path / "cut/scratch")
    assert (found.state["step"], found.state["skipped"]) == (1, 1)
    assert_same_tensors(found.weights, start)
    assert found.optimizer and not any(value.any() for value in found.optimizer.values())
    resumed = run(recipe, monkeypatch, tmp_path / "cut", **changes)
    assert list(resumed.steps) == [1, 2, 3]
    assert resumed.checkpoint.state["skipped"] == 1


def test_an_overflow_of_fp16_moves_nothing_and_the_next_step_moves_all(recipe, tmp_path):
    one = prepared(recipe, tmp_path, **MUON, micro_batch_size=8)
    one.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1e38)  # more than float32 holds, times the loss
    start = copy_weights(one.model)
    optimizer_step(one)
    assert_same_tensors(copy_weights(one.model), start)
    assert not any(value.any() for value in optimizer_tensors(one.model, one.optimizer).values())
    assert (one.skipped, one.accelerator.scaler.get_scale()) == (0, pytest.approx(5e37))
    one.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer_step(one)
    assert not any(torch.equal(value, start[name]) for name, value in copy_weights(one.model).items())


BUDGET = {"schedule": "constant", "max_steps": 4, "ema": 0.5}


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> dict[str, Path]:
    """Finished runs of four steps by optimizer, each a copy of models/checkpoints."""
    folders = {}
    for name, changes in (("muon", MUON), ("adamw", {"optimizer": "adamw"})):
        folders[name] = tmp_path_factory.mktemp(name)
        recipe.seed_everything()
        recipe.train(folders[name], **BUDGET, **changes)
        export_newest(folders[name] / "scratch", folders[name] / "last")
    return folders


def go_on(recipe, source: Path, **changes: Any) -> Any:
    shutil.copytree(source, FIRST / "last")
    recipe.seed_everything()
    recipe.train(Path("second"), **{**BUDGET, "max_steps": 8, "resume_from": str(FIRST), **changes})
    return load_newest(Path("second/scratch"))


def test_resume_from_goes_on_exactly(recipe, finished, tmp_path):
    recipe.seed_everything()
    recipe.train(tmp_path / "whole", **{**BUDGET, "max_steps": 8}, **MUON)
    whole, found = load_newest(tmp_path / "whole/scratch"), go_on(recipe, finished["muon"] / "last", **MUON)
    assert_same_tensors(found.weights, whole.weights)
    assert_same_tensors(found.optimizer, whole.optimizer)
    assert_same_tensors(found.ema, whole.ema)
    assert list(found.points()) == list(whole.points())
    assert [set(continued["changed"]) for continued in found.state["continued"]] == [{"train.max_steps"}]


@pytest.mark.parametrize(("before", "now"), [("adamw", "muon"), ("muon", "adamw")])
def test_a_checkpoint_of_the_other_optimizer_is_refused_by_name(recipe, finished, before, now):
    with pytest.raises(UserError, match=f"is another run: train.optimizer is {now} and was {before}. Restore the old"):
        go_on(recipe, finished[before] / "last", optimizer=now)
    assert not list(Path("second").rglob("step-*"))


def earlier_version(source: Path) -> Path:
    """A copy of a checkpoint whose identity knows no optimizer and no rates but train.lr."""
    old = shutil.copytree(source, Path("old/last"))
    state, manifest = (json.loads((old / name).read_text()) for name in ("state.json", "manifest.json"))
    del state["identity"]["fixed"]["train.optimizer"]
    for name in ("train.embedding_lr", "train.momentum", "optimizer.lr", "optimizer.embedding_lr"):
        del state["identity"]["settings"][name]
    (old / "state.json").write_text(json.dumps(state))
    (old / "manifest.json").write_text(json.dumps({**manifest, "state.json": sha256_of(old / "state.json")}))
    return old


def test_a_checkpoint_of_an_earlier_version_goes_on_with_adamw_only(recipe, finished):
    old = earlier_version(finished["adamw"] / "last")
    found = go_on(recipe, old, optimizer="adamw")
    assert found.state["step"] == 8
    assert [set(continued["changed"]) for continued in found.state["continued"]] == [{"train.max_steps"}]
    shutil.rmtree(FIRST)
    shutil.rmtree("second")
    with pytest.raises(UserError, match=r"is another run: train\.optimizer is muon and was adamw"):
        go_on(recipe, old, **MUON)


def test_a_rate_that_an_earlier_version_did_not_have_is_listed(recipe, finished):
    """It had one rate for all weights."""
    old = earlier_version(finished["adamw"] / "last")
    changed = go_on(recipe, old, optimizer="adamw", lr=0.01, embedding_lr=0.3).state["continued"][0]["changed"]
    assert changed["optimizer.lr"] == {"before": 0.02, "now": 0.01} == changed["train.lr"]
    assert changed["optimizer.embedding_lr"] == {"before": None, "now": 0.3} == changed["train.embedding_lr"]
