"""Two processes (gloo), each with half of the model, do what one process does, and write whole tensors."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from codex_ml.core.config import Runtime
from codex_ml.core.errors import UserError
from codex_ml.train.checkpoint import export_newest, load_newest
from codex_ml.train.config import Lora
from codex_ml.train.model.adapters import add_adapters
from codex_ml.train.recipe import OptimizerPlan, Recipe
from codex_ml.train.run import prepare_run

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.costly]
SPEC = importlib.util.spec_from_file_location("training_processes", Path(__file__).with_name("test_processes.py"))
processes = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(processes)
run, assert_close, MUON = processes.run, processes.assert_close, processes.MUON  # `run` is a fixture
HARD = {"clip_norm": 0.1, "ema": 0.9, "eval_rows": 3, "micro_batch_size": 1, "accumulation": 4}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Everything of the newest checkpoint: weights, averages, moments."""
    found = load_newest(folder / "scratch")
    assert found.state["step"] == 4
    parts = {"weights": found.weights, "ema": found.ema or {}, "optimizer": found.optimizer}
    return {f"{part}/{name}": t.double() for part, values in parts.items() for name, t in values.items()}


def losses(folder: Path) -> list[float]:
    history = list(load_newest(folder / "scratch").points())
    return [point[name] for point in history for name in ("train/loss", "train/grad_norm", "val/loss") if name in point]


ADAPTERS = {"lora": True, "lora_dropout": 0.0}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="all weights"),
        pytest.param(ADAPTERS, id="adapters"),
        pytest.param(MUON, id="Muon", marks=pytest.mark.slow),  # the next test has its steps, with uneven shares
    ],
)
def test_shares_do_the_steps_of_one_process_and_are_written_whole(run, tmp_path, changes):
    """Clipped, averaged, accumulated; 3 validation rows, so that one process has a pass without any."""
    run(tmp_path / "one", 1, **HARD, **changes)
    run(tmp_path / "shares", 2, sharding="full", **HARD, **changes)
    one, shares = tensors(tmp_path / "one"), tensors(tmp_path / "shares")
    assert one.keys() == shares.keys()
    limits = {"rtol": 1e-6, "atol": 1e-9} if changes != ADAPTERS else {"rtol": 1e-3, "atol": 1e-4}  # of float32
    for name, value in one.items():
        torch.testing.assert_close(shares[name], value, **limits, msg=name)
    assert losses(tmp_path / "shares") == pytest.approx(losses(tmp_path / "one"), rel=limits["rtol"])
    best = [sorted(file.name for file in (tmp_path / f"{name}/scratch/best").iterdir()) for name in ("one", "shares")]
    assert best[0] == best[1]


def test_muon_makes_whole_matrices_orthogonal_where_shares_are_uneven(run, tmp_path):
    """Three processes hold 6, 6 and 4 of 16 rows, and 1, 1 and none of 2. Three without shares round as they do."""
    changes = {**MUON, "micro_batch_size": 1, "accumulation": 3, "model": {"intermediate_size": 2}}
    run(tmp_path / "whole", 3, **changes)
    run(tmp_path / "shares", 3, sharding="full", **changes)
    assert_close(tensors(tmp_path / "shares"), tensors(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, MUON], ids=["AdamW", "Muon"])
def test_a_run_goes_on_with_and_without_shares(run, tmp_path, changes):
    run(tmp_path / "whole", 1, **changes)
    run(tmp_path / "from shares", 2, sharding="full", stop=3, **changes)
    run(tmp_path / "from shares", 1, **changes)
    run(tmp_path / "to shares", 1, stop=3, **changes)
    run(tmp_path / "to shares", 2, sharding="full", **changes)
    for name in ("from shares", "to shares"):
        assert_close(tensors(tmp_path / name), tensors(tmp_path / "whole"))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="AdamW", marks=pytest.mark.slow),
        pytest.param(MUON, id="Muon"),  # it has moments of AdamW too
    ],
)
def test_shares_that_were_killed_end_with_the_same_bytes(run, tmp_path, changes):
    run(tmp_path / "whole", 2, sharding="full", model={"dropout": 0.3}, **changes)
    run(tmp_path / "cut", 2, sharding="full", model={"dropout": 0.3}, stop=3, **changes)
    run(tmp_path / "cut", 2, sharding="full", model={"dropout": 0.3}, **changes)
    for file in ("model", "optimizer"):
        whole, cut = (tmp_path / f"{name}/scratch/step-00000004/{file}.safetensors" for name in ("whole", "cut"))
        assert cut.read_bytes() == whole.read_bytes()


def test_shares_measure_the_kept_weights_of_another_run_again(run, tmp_path):
    """Like one process: each process must take part, even without a validation row of its own."""
    first = Path("models/base/first")
    run(tmp_path / "first", 1, max_steps=4)
    for name in ("one", "shares"):
        (tmp_path / name / first).mkdir(parents=True)
        export_newest(tmp_path / "first/scratch", tmp_path / name / first / "last")
    changes = {"resume_from": str(first), "max_steps": 6, "eval_rows": 1, "keep_best": 9, "lr": 1e-9}
    run(tmp_path / "one", 1, **changes)
    run(tmp_path / "shares", 2, sharding="full", **changes)
    one, shares = (load_newest(tmp_path / f"{name}/scratch").state for name in ("one", "shares"))
    assert [entry["step"] for entry in one["best"]] == [entry["step"] for entry in shares["best"]]
    assert len(one["best"]) > 1
    for mine, theirs in zip(one["best"], shares["best"], strict=True):
        assert theirs["val/loss"] == pytest.approx(mine["val/loss"], rel=1e-6)
    assert [continued["best_measured_again"] for continued in shares["continued"]] == [True]


def sharded(recipe, model, folder):
    rows = recipe.packed(recipe.LENGTHS, seed=1)
    plan, runtime = OptimizerPlan("adamw", 0.02), Runtime(sharding="full")
    return prepare_run(
        model, Recipe(recipe.settings(), plan, runtime, recipe.HARDWARE, 1, rows, rows, tokenizer=""), scratch=folder
    )


def test_one_process_has_nobody_to_share_with(recipe, tmp_path):
    with pytest.raises(UserError, match=r"^runtime.sharding full needs several processes: set runtime.processes, or"):
        sharded(recipe, recipe.tiny_model(), tmp_path)


def test_rows_of_added_pieces_under_lora_are_not_shared(recipe, tmp_path):
    lora = Lora(rank=2, targets=("q_proj",))
    model = add_adapters(recipe.tiny_model(), lora, seed=1, added=[recipe.VOCAB - 1])
    with pytest.raises(
        UserError, match=r"^runtime.sharding full cannot be combined with tokenizer.add_pieces under model"
    ):
        sharded(recipe, model, tmp_path)
