"""`train.resume_from`: with each key changed, a run continues exactly, logs what changes, or is refused by the key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codex_ml.core.errors import UserError
from codex_ml.core.hashing import sha256_of
from codex_ml.modeling.hardware import Hardware
from codex_ml.modeling.rows import IGNORE
from codex_ml.train.checkpoint import export_newest, load_checkpoint, load_newest, read_tensors
from codex_ml.train.config import Lora, Train
from codex_ml.train.loss import summed_loss
from codex_ml.train.model.adapters import add_adapters

from .outcomes import assert_same_tensors

pytestmark = pytest.mark.usefixtures("one_thread")
FIRST = "models/base/first"
BUDGET = {"schedule": "constant", "max_steps": 4, "eval_every": 2, "keep_best": 3, "ema": 0.5}
OTHER_LENGTHS = (7, 1, 12, 3, 1, 20, 2, 9, 4, 1, 15, 7)  # as many tokens and rows as recipe.LENGTHS

# key of `train` -> another value. What is not refused or measured again is listed in training.json.
SETTINGS = {
    "lr": 0.01, "schedule": "cosine", "min_lr_ratio": 0.5, "warmup_steps": 1, "decay_steps": 0.5, "max_steps": 7,
    "micro_batch_size": 1, "accumulation": 2, "weight_decay": 0.2, "beta1": 0.8, "beta2": 0.9, "clip_norm": 0.5,
    "embedding_lr": 0.2, "momentum": 0.5, "z_loss": 1e-3, "label_smoothing": 0.1, "ema": 0.9, "max_skipped_steps": 1,
    "early_stopping": {"patience": 50}, "eval_every": 3, "checkpoint_every": 3, "log_every": 2, "keep_best": 1,
    "activation_checkpointing": True, "attention": "sdpa", "compile": "off", "threads": 2,
}  # fmt: skip
MEASURED = {"eval_rows": 2, "precision": "bf16"}
TOGETHER = {"micro_batch_size": {"accumulation": 2}, "accumulation": {"micro_batch_size": 1}}  # 2 rows a step


@pytest.fixture(scope="module")
def first(recipe, tmp_path_factory) -> Callable[..., Path]:
    """models/checkpoints of a run of four steps, made once: all weights, or adapters."""
    made: dict[str, Path] = {}

    def of(kind: str = "all weights") -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("first")
            recipe.seed_everything()
            recipe.train(made[kind], **BUDGET, **({"model": adapted(recipe)} if kind == "LoRA" else {}))
            export_newest(made[kind] / "scratch", made[kind] / "last")
        return made[kind]

    return of


def adapted(recipe, *, base: int = 0, **changes: object) -> Any:
    torch.manual_seed(5)
    model = recipe.tiny_model()
    with torch.no_grad():
        model.model.norm.weight.add_(base)
    return add_adapters(model, Lora(**{"rank": 2, "alpha": 4.0, "targets": ("q_proj",), **changes}), seed=2)


def go_on(recipe, source: Path, **changes: Any) -> dict[str, Any]:
    """Continue from `source` to step 8; return the state of the last checkpoint."""
    shutil.copytree(source / "last", f"{FIRST}/last")
    recipe.seed_everything()
    recipe.train(Path("second"), **{**BUDGET, "max_steps": 8, "resume_from": FIRST, **changes})
    return load_newest(Path("second/scratch")).state


def test_every_key_of_train_has_a_case():
    assert {*SETTINGS, *MEASURED, "optimizer", "resume_from"} == set(Train.model_fields)


def test_a_new_budget_goes_on_exactly(recipe, first, tmp_path):
    """The constant schedule does not depend on max_steps, so 4 + 4 steps equal 8."""
    recipe.seed_everything()
    recipe.train(tmp_path / "whole", **{**BUDGET, "max_steps": 8})
    state = go_on(recipe, first())
    whole = load_newest(tmp_path / "whole/scratch")
    found = load_newest(Path("second/scratch"))
    assert_same_tensors(found.weights, whole.weights)
    assert_same_tensors(found.optimizer, whole.optimizer)
    assert_same_tensors(found.ema, whole.ema)
    assert [state[key] for key in ("best", "history", "patience")] == [
        whole.state[key] for key in ("best", "history", "patience")
    ]
    assert list(found.points()) == list(whole.points())
    assert state["continued"] == [
        {"step": 4, "changed": {"train.max_steps": {"before": 4, "now": 8}}, "best_measured_again": False}
    ]
    assert whole.state["continued"] == []


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_may_change_and_is_listed(recipe, first, key):
    value = SETTINGS[key]
    source = first()
    old_run = load_newest(source / "scratch")
    before, points = old_run.state, list(old_run.points())
    state = go_on(recipe, source, **{"max_steps": 6, key: value, **TOGETHER.get(key, {})})
    (continued,) = state["continued"]
    old = before["identity"]["settings"][f"train.{key}"]
    now = {**Train().early_stopping.model_dump(), **value} if key == "early_stopping" else value
    assert continued["changed"][f"train.{key}"] == {"before": old, "now": now}
    assert not continued["best_measured_again"]
    assert list(load_newest(Path("second/scratch")).points())[: len(points)] == points
    kept = {entry["step"]: entry["val/loss"] for entry in before["best"]}
    assert all(kept.get(entry["step"], entry["val/loss"]) == entry["val/loss"] for entry in state["best"])
    assert state["step"] == (7 if key == "max_steps" else 6)


def measured_by_hand(recipe, state: dict[str, Any], folder: Path, rows: Any, count: int, dtype: str) -> list[float]:
    """The mean loss of each of the kept weights over the first and last of `rows`, or all of them."""
    batch = rows.batch(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64))
    tensors = {name: torch.from_numpy(value) for name, value in batch.items()}
    losses = []
    for entry in state["best"]:
        model = recipe.tiny_model(dropout=0.3).eval()
        model.load_state_dict(read_tensors(folder / f"best/{entry['step']:08d}.safetensors"), strict=False)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            total = float(summed_loss(model, tensors))
        losses.append(total / int((batch["labels"] != IGNORE).sum()))
    return losses


def other_val(recipe) -> Any:
    return recipe.packed((5, 20, 3), seed=9)


MEASURE_CHANGES = {
    "train.eval_rows": {"eval_rows": 2},
    "train.precision": {"hardware": Hardware("cpu", "bf16", compile=False, threads=1, capability="test")},
    "val rows (data/packed)": {"val_rows": other_val},
}


@pytest.mark.parametrize("name", MEASURE_CHANGES)
def test_kept_weights_are_measured_again_where_losses_mean_something_else(recipe, first, caplog, name):
    """A rate of almost zero keeps the old weights among the best, with the loss that they have now."""
    changes = {key: value(recipe) if callable(value) else value for key, value in MEASURE_CHANGES[name].items()}
    source = first()
    old_run = load_newest(source / "scratch")
    before, points = old_run.state, list(old_run.points())
    state = go_on(recipe, source, lr=1e-9, keep_best=9, **changes)
    (continued,) = state["continued"]
    assert name in continued["changed"]
    assert continued["best_measured_again"]
    assert f"{name} is" in caplog.text
    rows = changes.get("val_rows") or recipe.packed((9, 1, 13), seed=2)
    dtype = "bf16" if "hardware" in changes else "fp32"
    expected = measured_by_hand(
        recipe, state, max(Path("second/scratch").glob("step-*")), rows, changes.get("eval_rows", 99), dtype
    )
    assert {2, 4} < {entry["step"] for entry in state["best"]}
    assert [entry["val/loss"] for entry in state["best"]] == pytest.approx(expected, rel=1e-5)
    assert {entry["step"]: entry["val/loss"] for entry in before["best"]}[4] != pytest.approx(
        {entry["step"]: entry["val/loss"] for entry in state["best"]}[4], rel=1e-6
    )
    points = list(load_newest(Path("second/scratch")).points())
    assert [point["step"] for point in points if "val/loss" in point] == [6, 8]
    assert [point["step"] for point in points if "train/loss" in point] == list(range(1, 9))


def test_early_stopping_starts_anew_on_another_validation_set(recipe, first):
    """The old best loss belongs to a different text; a run could wait in vain for a lower one."""
    source = first()
    old = load_newest(source / "scratch").state["patience"]
    state = go_on(recipe, source, val_rows=other_val(recipe), lr=1e-9, max_steps=5, eval_every=9, keep_best=9)
    assert state["patience"]["best"] == state["best"][0]["val/loss"] != old["best"]
    assert state["patience"]["waited"] <= 1


def test_a_run_that_stopped_early_may_go_on(recipe, first, monkeypatch, tmp_path):
    stopping = {**BUDGET, "lr": 0.5, "clip_norm": 100.0, "max_steps": 40, "eval_every": 1, "ema": 0.0}
    recipe.seed_everything()
    recipe.train(tmp_path / "stopped", **stopping, early_stopping={"patience": 1})
    done = load_newest(tmp_path / "stopped/scratch").state
    assert done["stopped_early"]
    export_newest(tmp_path / "stopped/scratch", tmp_path / "stopped/last")
    changes = {**stopping, "lr": 0.01, "max_steps": 40, "early_stopping": {"patience": None}}
    assert go_on(recipe, tmp_path / "stopped", **changes)["step"] == 40


def rows_like(recipe, **changes: Any) -> Any:
    return recipe.packed(changes.pop("lengths", recipe.LENGTHS), **{"seed": 1, **changes})


REFUSED = {
    "seed is 4 and was 3": lambda recipe: {"seed": 4},
    "train.micro_batch_size x train.accumulation is 4 and was 2": lambda recipe: {"micro_batch_size": 4},
    "train.micro_batch_size x train.accumulation is 6 and was 2": lambda recipe: {"accumulation": 3},
    "pack.seq_len is 16 and was 8": lambda recipe: {"rows": rows_like(recipe, seq_len=16)},
    'tokenizer (tokenizer.json) is ab and was ""': lambda recipe: {"tokenizer": "ab"},
    "train rows (data/packed) is SHA-256 ": lambda recipe: {"rows": rows_like(recipe, seed=2)},
    "train rows (data/packed) is SHA-256  ": lambda recipe: {"rows": rows_like(recipe, lengths=OTHER_LENGTHS)},
    "train rows (data/packed) is SHA-256   ": lambda recipe: {"rows": rows_like(recipe, lengths=recipe.LENGTHS[:-1])},
    "model.num_hidden_layers is 2 and was 1": lambda recipe: {"model": recipe.tiny_model(layers=2)},
    "model.max_position_embeddings is 32 and was 64": lambda recipe: {"model": recipe.tiny_model(positions=32)},
    "model.lora.rank is 2 and was null": lambda recipe: {"model": adapted(recipe)},
}


@pytest.mark.parametrize("message", REFUSED)
def test_another_run_is_refused_by_name_before_a_step(recipe, first, message):
    with pytest.raises(UserError) as refused:
        go_on(recipe, first(), **REFUSED[message](recipe))
    text = str(refused.value)
    assert text.startswith("train.resume_from: models/base/first/last is another run: ")
    assert message.rstrip() in text
    assert "Restore the old values" in text
    assert not list(Path("second").rglob("step-*"))


ADAPTERS = {
    "model.lora.rank is 3 and was 2": {"rank": 3},
    "model.lora.alpha is 8.0 and was 4.0": {"alpha": 8.0},
    "model.lora.dropout is 0.1 and was 0.0": {"dropout": 0.1},
    "model.lora.targets is ": {"targets": ("v_proj",)},
    "model.lora.rslora is true and was false": {"rslora": True},
    "model.lora.dora is true and was false": {"dora": True},
    "weights of the base model is SHA-256 ": {"base": 1},
}


def test_every_key_of_lora_has_a_case():
    elsewhere = {"bias"}  # the layers of this model have none: test_identity.py
    assert {key for case in ADAPTERS.values() for key in case} | elsewhere == {*Lora.model_fields, "base"}


@pytest.mark.parametrize("message", ADAPTERS)
def test_an_adapter_goes_on_with_its_own_shape_scale_and_base_only(recipe, first, message):
    with pytest.raises(UserError) as refused:
        go_on(recipe, first("LoRA"), model=adapted(recipe, **ADAPTERS[message]))
    assert message in str(refused.value)


def test_an_adapter_goes_on_under_a_new_budget(recipe, first):
    assert go_on(recipe, first("LoRA"), model=adapted(recipe))["step"] == 8


def test_wider_ids_are_the_same_rows(recipe, first):
    """pack.dtype decides how ids are stored, not what they are."""
    rows = recipe.packed(recipe.LENGTHS, seed=1)
    wide = type(rows)(**{**vars(rows), "tokens": rows.tokens.astype("<u4")})
    assert go_on(recipe, first(), rows=wide)["step"] == 8


def test_a_second_continuation_names_both_and_a_kill_loses_neither(recipe, first, train_and_kill):
    go_on(recipe, first())
    Path("models/base/second").mkdir()
    export_newest(Path("second/scratch"), Path("models/base/second/last"))
    changes = {**BUDGET, "max_steps": 12, "resume_from": "models/base/second", "lr": 0.01, "eval_rows": 2}
    recipe.seed_everything()
    recipe.train(Path("whole"), **changes)
    Path("cut").mkdir()
    here = Path.cwd()
    shutil.copytree("models", "cut/models")
    assert train_and_kill(here / "cut", {"step": 11}, **changes) == -9
    recipe.train(here / "cut", **changes)
    whole, cut = load_newest(Path("whole/scratch")), load_newest(here / "cut/scratch")
    assert [continued["step"] for continued in whole.state["continued"]] == [4, 8]
    assert cut.state == whole.state
    assert_same_tensors(cut.weights, whole.weights)


def rewritten(source: Path, target: Path, **changes: Any) -> None:
    """A copy of a checkpoint with another state.json, which its manifest lists."""
    shutil.copytree(source, target)
    state = {**json.loads((target / "state.json").read_text()), **changes}
    (target / "state.json").write_text(json.dumps(state))
    manifest = json.loads((target / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps({**manifest, "state.json": sha256_of(target / "state.json")}))


def test_a_checkpoint_of_an_earlier_version_with_its_points_in_its_state_goes_on(recipe, first, train_and_kill):
    source = first() / "last"
    rewritten(source, Path("old/last"), history=list(load_checkpoint(source).points()))
    Path("old/last/history.ndjson").unlink()
    shutil.copytree("old", "killed/models/base/first")
    go_on(recipe, Path("old"))
    recipe.seed_everything()
    recipe.train(Path("whole"), **{**BUDGET, "max_steps": 8})
    whole, found = load_newest(Path("whole/scratch")), load_newest(Path("second/scratch"))
    assert list(found.points()) == list(whole.points())
    assert Path("second/scratch/history.ndjson").read_bytes() == Path("whole/scratch/history.ndjson").read_bytes()
    assert_same_tensors(found.weights, whole.weights)

    here, changes = Path.cwd(), {**BUDGET, "max_steps": 8, "resume_from": FIRST}
    assert train_and_kill(here / "killed", {"step": 5}, **changes) == -9  # before its first own checkpoint
    recipe.train(here / "killed", **changes)
    assert load_newest(here / "killed/scratch").state == found.state


def test_a_checkpoint_that_does_not_say_what_it_was_trained_on_is_refused(recipe, first):
    old = shutil.copytree(first() / "last", Path("old/last"))
    state = json.loads((old / "state.json").read_text())
    del state["identity"]
    (old / "state.json").write_text(json.dumps(state))
    manifest = json.loads((old / "manifest.json").read_text())
    (old / "manifest.json").write_text(json.dumps({**manifest, "state.json": sha256_of(old / "state.json")}))
    with pytest.raises(UserError, match="was written by an earlier version and does not say what it was trained on"):
        go_on(recipe, Path("old"))


def test_a_checkpoint_names_its_versions_and_others_are_a_warning(recipe, first, monkeypatch, caplog):
    assert load_checkpoint(first() / "last").state["environment"] == recipe.ENVIRONMENT
    packages = {**recipe.ENVIRONMENT["packages"], "torch": "2.14.0", "accelerate": "1.0"}
    monkeypatch.setattr(recipe, "ENVIRONMENT", {**recipe.ENVIRONMENT, "packages": packages})
    with caplog.at_level("INFO"):
        state = go_on(recipe, first())
    message = "accelerate absent (here 1.0), torch 2.13.0 (here 2.14.0)"
    assert f"train: the checkpoint was written with {message}: from here on not the same bits" in caplog.text
    assert state["environment"]["packages"] == packages
    saved = [record for record in caplog.records if getattr(record, "event", "") == "checkpoint"]
    assert saved[-1].fields == {"step": 8}
