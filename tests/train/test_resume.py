"""An interruption other than SIGKILL changes nothing; tests/train/test_resume_matrix.py has every case of SIGKILL."""

from __future__ import annotations

import signal

import pytest
import torch

from codex_ml.train.config import Lora, Model
from codex_ml.train.model.adapters import add_adapters
from codex_ml.train.model.build import build_model
from codex_ml.train.model.vocabulary import add_rows

from .outcomes import assert_equal, run, stop_in_step

pytestmark = pytest.mark.usefixtures("one_thread")


# 12 rows are 6 steps of 2, or 2 steps of 6: inside epoch 1, at its end, inside epoch 2
@pytest.mark.parametrize(
    ("accumulation", "steps", "at"),
    [
        *((1, 10, 6), (3, 5, 1), (3, 5, 3)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 10, 3), (1, 10, 8), (3, 5, 2))),
    ],
)
def test_run_stopped_by_sigterm_ends_with_the_same_bytes(recipe, monkeypatch, tmp_path, accumulation, steps, at):
    changes = {"accumulation": accumulation, "max_steps": steps}
    whole = run(recipe, monkeypatch, tmp_path / "whole", **changes)
    stopped = stop_in_step(recipe, monkeypatch, tmp_path / "resumed", at, **changes)
    resumed = run(recipe, monkeypatch, tmp_path / "resumed", **changes)

    assert stopped.match(f"SIGTERM.* step {at} of {steps}")
    assert list(resumed.steps) == list(range(at, steps))
    assert_equal(resumed, whole)


def test_a_step_across_two_epochs_resumes_too(recipe, monkeypatch, tmp_path):
    changes = {"micro_batch_size": 5, "max_steps": 6}  # 12 rows: step 3 takes two of epoch 1 and three of epoch 2
    whole = run(recipe, monkeypatch, tmp_path / "whole", **changes)
    stop_in_step(recipe, monkeypatch, tmp_path / "resumed", 3, **changes)
    assert_equal(run(recipe, monkeypatch, tmp_path / "resumed", **changes), whole)


def test_steps_behind_the_last_checkpoint_are_done_again(recipe, train_and_kill, monkeypatch, tmp_path):
    whole = run(recipe, monkeypatch, tmp_path / "whole")
    (tmp_path / "resumed").mkdir()
    assert train_and_kill(tmp_path / "resumed", {"step": 5}) == -signal.SIGKILL  # checkpoint_every is 2
    resumed = run(recipe, monkeypatch, tmp_path / "resumed")

    assert list(resumed.steps) == list(range(4, 10))
    assert_equal(resumed, whole)


@pytest.mark.parametrize(("step", "history"), [(4, "line"), (5, "line"), (1, "mark"), (2, "mark"), (4, "mark")])
def test_a_kill_between_the_history_and_its_checkpoint_changes_nothing(
    recipe, train_and_kill, monkeypatch, tmp_path, step, history
):
    """Also where half a line was written, and where no checkpoint exists yet (checkpoint_every is 2)."""
    whole = run(recipe, monkeypatch, tmp_path / "whole")
    (tmp_path / "resumed").mkdir()
    every = {"checkpoint_every": 1} if (step, history) == (1, "mark") else {}
    assert train_and_kill(tmp_path / "resumed", {"step": step, "history": history}, **every) == -signal.SIGKILL
    written = (tmp_path / "resumed/scratch/history.ndjson").read_bytes()
    assert written and written.endswith(b"\n") == (history == "mark")
    resumed = run(recipe, monkeypatch, tmp_path / "resumed")

    assert list(resumed.steps) == list(range((step - 1) // 2 * 2, 10))
    assert_equal(resumed, whole)


def test_a_history_damaged_after_a_checkpoint_costs_only_the_later_ones(recipe, monkeypatch, tmp_path, caplog):
    whole = run(recipe, monkeypatch, tmp_path / "run")
    history = tmp_path / "run/scratch/history.ndjson"
    data = bytearray(history.read_bytes())
    data[-3] ^= 1
    history.write_bytes(data)
    again = run(recipe, monkeypatch, tmp_path / "run")

    assert_equal(again, whole)
    assert list(again.steps) == [8, 9]
    assert "step-00000010 is damaged (history.ndjson does not match its SHA-256)" in caplog.text


def test_rows_of_added_pieces_under_lora_resume_too(recipe, monkeypatch, tmp_path):
    """The last three ids of the rows are added pieces; a checkpoint holds their rows beside the adapters."""

    def model():
        shape = Model(hidden_size=16, intermediate_size=24, layers=1, heads=2, max_positions=64)
        base = build_model(shape, vocab_size=recipe.VOCAB - 3, end=recipe.END, pad=recipe.PAD, seed=1)
        add_rows(base, recipe.VOCAB, [[2, 3], [4, 5], [6]], seed=1)
        added = range(recipe.VOCAB - 3, recipe.VOCAB)
        return add_adapters(base, Lora(rank=2, dropout=0.2, targets=("q_proj",)), seed=2, added=added)

    whole = run(recipe, monkeypatch, tmp_path / "whole", model=model())
    stop_in_step(recipe, monkeypatch, tmp_path / "resumed", 5, model=model())
    resumed = run(recipe, monkeypatch, tmp_path / "resumed", model=model())
    assert list(resumed.steps) == list(range(5, 10))
    assert_equal(resumed, whole)
    [rows] = [tensor for name, tensor in whole.checkpoint.weights.items() if "trainable_tokens_delta" in name]
    assert rows.shape == (3, 16)
    assert not torch.equal(rows, model().get_input_embeddings().weight[-3:])


def test_damaged_newest_checkpoint_costs_its_steps_and_nothing_else(recipe, monkeypatch, tmp_path, caplog):
    whole = run(recipe, monkeypatch, tmp_path / "run")
    newest = tmp_path / "run/scratch/step-00000010/model.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    again = run(recipe, monkeypatch, tmp_path / "run")

    assert_equal(again, whole)
    assert list(again.steps) == [8, 9]
    assert "step-00000010 is damaged (model.safetensors does not match its SHA-256)" in caplog.text


def test_two_runs_of_one_recipe_are_equal_and_another_seed_is_not(recipe, monkeypatch, tmp_path):
    one = run(recipe, monkeypatch, tmp_path / "one")
    assert_equal(run(recipe, monkeypatch, tmp_path / "two"), one)
    other = run(recipe, monkeypatch, tmp_path / "other", lr=0.021)
    assert other.files["step-00000010/model.safetensors"] != one.files["step-00000010/model.safetensors"]


def test_runtime_resume_false_starts_at_the_first_step_and_says_what_it_ignores(recipe, monkeypatch, tmp_path, caplog):
    whole = run(recipe, monkeypatch, tmp_path / "whole")
    stop_in_step(recipe, monkeypatch, tmp_path / "anew", 7)
    with caplog.at_level("WARNING", logger="codex_ml"):
        stop_in_step(recipe, monkeypatch, tmp_path / "anew", 3, resume=False)
    assert "runtime.resume is false: the checkpoint of step 7 is ignored and removed" in caplog.text
    resumed = run(recipe, monkeypatch, tmp_path / "anew")  # the checkpoint of step 3 is the newest, not that of step 7
    assert list(resumed.steps) == list(range(3, 10))
    assert_equal(resumed, whole)
