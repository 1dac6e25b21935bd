"""Which weights are kept and when a run ends, by arithmetic on loss < best - min_delta."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from codex_ml.train.config import EarlyStopping
from codex_ml.train.selection import BestWeights, Patience

NAN, INF = math.nan, math.inf
# (patience, min_delta, losses) -> validation (from 1) after which the run ends, or None
STOPS = [
    (2, 0, [4.0, 3.5, 3.5, 3.5, 3.0], 4),  # equal is no improvement
    (1, 0.1, [2.0, 1.95, 1.0], 2),  # less than min_delta is none
    (2, 0.1, [2.0, 1.95, 1.91, 1.8], 3),  # each is measured against the best, not against the one before
    (2, 0.1, [2.0, 1.95, 1.89, 1.85, 1.84], 5),
    (0, 0, [2.0, 1.0, 0.5], None),
    (0, 0, [2.0, 1.0, 1.0, 0.5], 3),
    (1, 0, [2.0, 1.0, 1.0, 0.5], 3),  # the first without improvement is the end for 0 and for 1
    (2, 0, [NAN, 3.0, NAN, NAN, 1.0], 4),
    (2, 0, [3.0, NAN, 2.0, NAN, 1.0], None),
    (2, 0, [NAN, NAN, 1.0], 2),
    (3, 0, [INF, INF, 7.0, 8.0, 8.0, 8.0], 6),  # infinite is no improvement on nothing
    (None, 0, [1.0] * 50, None),
]


@pytest.mark.parametrize(("patience", "min_delta", "losses", "end"), STOPS)
@pytest.mark.parametrize("cut", range(6))
def test_a_run_ends_where_it_would_without_a_cut(patience, min_delta, losses, end, cut):
    settings = EarlyStopping(patience=patience, min_delta=min_delta)
    state, ended = Patience(settings), None
    for number, loss in enumerate(losses, 1):
        if number == cut + 1:
            state = Patience(settings, best=state.best, waited=state.waited)  # what a checkpoint holds
        if state.update(loss):
            ended = number
            break
    assert ended == end


LOSSES = st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 2.5, 3.0]), min_size=1, max_size=12)


@given(losses=LOSSES, keep=st.integers(1, 4), cut=st.integers(0, 12))
def test_the_lowest_losses_are_kept_and_of_equal_ones_the_earliest(tmp_path_factory, losses, keep, cut):
    folder = tmp_path_factory.mktemp("best")
    best = BestWeights(folder / "one", keep)
    for step, loss in enumerate(losses, 1):
        if step == cut + 1:
            resumed = BestWeights(folder / "two", keep)
            resumed.restore(best.entries, best.folder)
            best = resumed
        best.offer(step, loss, lambda step=step: {"w": torch.tensor([float(step)])})
        best.drop_others()
    wanted = sorted(range(1, len(losses) + 1), key=lambda step: (losses[step - 1], step))[:keep]
    assert [entry["step"] for entry in best.entries] == wanted
    assert [load_file(file)["w"].item() for file in best.files()] == wanted
    assert sorted(best.folder.iterdir()) == sorted(best.files())


def test_weights_that_are_not_among_the_best_are_not_even_copied(tmp_path):
    best = BestWeights(tmp_path, 1)
    best.offer(1, 1.0, lambda: {"w": torch.zeros(1)})
    best.offer(2, 1.0, lambda: pytest.fail("copied"))


def test_a_process_that_writes_nothing_keeps_the_same_list(tmp_path):
    one, other = BestWeights(tmp_path / "one", 2), BestWeights(tmp_path / "other", 2)
    for step, loss in enumerate((3.0, 1.0, 2.0), 1):
        one.offer(step, loss, lambda: {"w": torch.zeros(1)})
        other.offer(step, loss, None)
    assert one.entries == other.entries
    assert not (tmp_path / "other").exists()
