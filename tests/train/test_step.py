"""A step with numbers that are not finite or with too little memory; the results of averaging and smoothing."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.modeling.rows import IGNORE
from codex_ml.train import loop
from codex_ml.train import step as step_module
from codex_ml.train.checkpoint import load_newest
from codex_ml.train.loss import summed_loss, training_loss
from codex_ml.train.step import newest_share

from .outcomes import assert_equal, run

pytestmark = pytest.mark.usefixtures("one_thread")


def spoil(monkeypatch, *calls: int) -> None:
    """Make the loss of these forward passes (from 1) infinite."""
    count = 0

    def spoilt(forward, batch, train):
        nonlocal count
        count += 1
        return summed_loss(forward, batch) * (float("inf") if count in calls else 1.0)

    monkeypatch.setattr(step_module, "training_loss", spoilt)


def test_allowed_skips_leave_the_weights_and_go_on_with_the_next_rows(recipe, monkeypatch, tmp_path, caplog):
    spoil(monkeypatch, 2)
    caplog.set_level("WARNING")
    recipe.train(tmp_path, max_steps=3, max_skipped_steps=1, checkpoint_every=1, keep=5)
    weights = [load_file(tmp_path / f"scratch/step-{step:08d}/model.safetensors") for step in (1, 2, 3)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[1][name], weights[2][name]) for name in weights[0])
    state = load_newest(tmp_path / "scratch").state
    assert (state["skipped"], state["step"]) == (1, 3)
    assert "step 2: the loss is inf" in caplog.text
    assert "Skipped, 1 of 1" in caplog.text


def test_one_skip_more_than_allowed_ends_the_run(recipe, monkeypatch, tmp_path):
    spoil(monkeypatch, 2, 4)
    with pytest.raises(CheckFailed, match=r"^step 4: the loss is inf .*Documents \[.*pack show --step 4"):
        recipe.train(tmp_path, max_steps=9, max_skipped_steps=1)
    assert load_newest(tmp_path / "scratch").state["step"] == 3


FORMS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


def run_out_of_memory(monkeypatch, rows: int, error: BaseException = FORMS[0]) -> list[int]:
    """Forward passes of more than `rows` rows run out of memory."""
    sizes: list[int] = []

    def hungry(forward, batch, train):
        sizes.append(len(batch["labels"]))
        if sizes[-1] > rows:
            raise error
        return training_loss(forward, batch, train)

    monkeypatch.setattr(step_module, "training_loss", hungry)
    return sizes


def test_out_of_memory_halves_the_rows_and_keeps_the_step(recipe, monkeypatch, tmp_path, caplog):
    (tmp_path / "whole").mkdir(), (tmp_path / "short").mkdir()
    settings = {"max_steps": 2, "micro_batch_size": 4, "accumulation": 2, "checkpoint_every": 1}
    whole, _ = recipe.train(tmp_path / "whole", model=recipe.tiny_model().double(), **settings)
    sizes = run_out_of_memory(monkeypatch, 1)
    caplog.set_level("WARNING")
    short, _ = recipe.train(tmp_path / "short", model=recipe.tiny_model().double(), **settings)
    assert sizes == [4, 2, *[1] * 16]
    assert "step 1 ran out of memory; from now on 1 rows per pass, 8 passes per step" in caplog.text
    assert load_newest(tmp_path / "short/scratch").state["micro_batch_size"] == 1
    for found, expected in zip(short.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("error", FORMS, ids=lambda error: type(error).__name__)
def test_memory_for_no_single_row_is_told(recipe, monkeypatch, tmp_path, error):
    run_out_of_memory(monkeypatch, 0, error)
    with pytest.raises(UserError, match=r"^out of memory with 1 rows per forward pass; lower train.micro_batch_size"):
        recipe.train(tmp_path, max_steps=2)


def test_averaged_weights_follow_their_formula_and_are_what_is_kept(recipe, monkeypatch, tmp_path):
    """Weights after step i of t count decay^(t - i), all divided by the sum of these; those at the start count 0."""
    model, _ = recipe.train(
        tmp_path, model=recipe.tiny_model(), max_steps=4, ema=0.75, eval_every=4, checkpoint_every=1, keep=5
    )
    shares = np.array([0.75**3, 0.75**2, 0.75, 1.0])
    steps = [load_file(tmp_path / f"scratch/step-{step:08d}/model.safetensors") for step in (1, 2, 3, 4)]
    for name, kept in model.named_parameters():
        stacked = np.stack([step[name].numpy().astype(np.float64) for step in steps])
        expected = np.tensordot(shares / shares.sum(), stacked, axes=1)
        np.testing.assert_allclose(kept.detach().numpy(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("ema", "warned"), [(0.0, 0), (0.5, 0), (0.75, 1), (0.999, 1)])
def test_an_average_over_more_than_half_of_the_run_is_a_warning(recipe, monkeypatch, caplog, tmp_path, ema, warned):
    monkeypatch.setattr(loop, "_steps", lambda *_: None)
    recipe.train(tmp_path, max_steps=4, ema=ema)
    assert sum("averages over about" in record.getMessage() for record in caplog.records) == warned
    assert ("train.ema 0.999 averages over about 1000 steps, and this run has 4" in caplog.text) == (ema == 0.999)


def test_the_average_of_constant_weights_is_these_weights(recipe, tmp_path):
    """A rate of 1e-30 changes only what is 0, to 1e-30."""
    recipe.train(tmp_path, max_steps=3, ema=0.999, lr=1e-30, weight_decay=0.0)
    own, average = (load_file(tmp_path / f"scratch/step-00000003/{name}.safetensors") for name in ("model", "ema"))
    for name, weights in own.items():
        torch.testing.assert_close(average[name], weights, rtol=0, atol=1e-29)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999, 0.999999])
def test_the_shares_of_an_average_add_up_to_adams(decay):
    """Against Adam's own first moment: torch computes it from a gradient that is the number to average."""
    numbers = [3.0, -1.0, 0.5, 2.0, 7.0]
    moment, average = 0.0, 123.0
    for count, number in enumerate(numbers, 1):
        moment = decay * moment + (1 - decay) * number
        average += newest_share(decay, count) * (number - average)
        assert average == pytest.approx(moment / (1 - decay**count), rel=1e-9)


def batch_of(recipe):
    batch = recipe.packed((7, 1, 12), seed=1).batch(np.arange(3))
    return {key: torch.from_numpy(value) for key, value in batch.items()}


@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.0, 0.0), (0.1, 0.0), (0.0, 1e-2), (0.2, 1e-3)])
def test_training_loss_is_its_definition(recipe, smoothing, z_loss):
    model, batch = recipe.tiny_model().double(), batch_of(recipe)
    found = training_loss(model, batch, recipe.settings(label_smoothing=smoothing, z_loss=z_loss))
    expected = 0.0
    for row in range(3):
        for place in range(8):
            label = int(batch["labels"][row, place])
            if label == IGNORE:
                continue
            begin = place - int(batch["position_ids"][row, place])
            alone = model(input_ids=batch["input_ids"][row : row + 1, begin : place + 1]).logits[0, -1].float()
            log_z = torch.log(torch.exp(alone).sum())
            surprise = log_z - alone
            expected += float((1 - smoothing) * surprise[label] + smoothing * surprise.mean() + z_loss * log_z**2)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_early_stopping_and_the_best_weights_survive_kills(recipe, train_and_kill, monkeypatch, tmp_path):
    """A rate this large makes validation worse at once; killed again and again, the run ends at the same step."""
    settings = {"lr": 0.5, "max_steps": 40, "eval_every": 1, "checkpoint_every": 1, "clip_norm": 100.0, "keep_best": 3}
    settings["early_stopping"] = {"patience": 3}
    whole = run(recipe, monkeypatch, tmp_path / "whole", **settings)
    state = whole.checkpoint.state
    assert state["stopped_early"]
    assert state["step"] < 40
    (tmp_path / "cut").mkdir()
    for step in (state["best"][0]["step"], state["step"] - 2, state["step"] - 1):
        assert train_and_kill(tmp_path / "cut", {"step": step}, **settings) == -signal.SIGKILL
    cut = run(recipe, monkeypatch, tmp_path / "cut", **settings)
    assert list(cut.steps) == [state["step"] - 1]
    assert len(cut.checkpoint.state["best"]) == 3
    assert_equal(cut, whole)


def test_a_run_that_stopped_early_resumes_to_nothing(recipe, monkeypatch, tmp_path):
    settings = {"lr": 0.5, "max_steps": 40, "eval_every": 1, "clip_norm": 100.0, "early_stopping": {"patience": 1}}
    model, best = recipe.train(tmp_path, **settings)
    monkeypatch.setattr(loop, "optimizer_step", lambda run: pytest.fail("trained"))
    again, found = recipe.train(tmp_path, **settings)
    assert found == best
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
