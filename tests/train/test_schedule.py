"""The learning rate of every schedule, at steps where it can be computed by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from codex_ml.train.config import Train
from codex_ml.train.schedule import learning_rate


def rates(**settings: object) -> list[float]:
    train = Train(lr=1.0, **settings)
    return [learning_rate(step, train.lr, train) for step in range(train.max_steps)]


def test_warm_up_rises_in_a_line_and_its_first_step_already_moves():
    assert rates(warmup_steps=4, max_steps=8)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_warm_up_below_one_is_a_share_of_all_steps():
    assert rates(warmup_steps=0.5, max_steps=8) == rates(warmup_steps=4, max_steps=8)


def test_cosine_passes_the_middle_half_way_down():
    found = rates(warmup_steps=2, max_steps=12, min_lr_ratio=0.2)
    assert found[7] == pytest.approx(0.6)
    assert found[11] == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(0.9 * math.pi)))


def test_linear_loses_the_same_each_step():
    assert rates(warmup_steps=0, max_steps=4, min_lr_ratio=0.0, schedule="linear") == [1.0, 0.75, 0.5, 0.25]


def test_constant_stays():
    assert rates(warmup_steps=1, max_steps=5, schedule="constant") == [1.0] * 5


def test_wsd_is_constant_and_then_falls_in_a_line():
    found = rates(warmup_steps=2, max_steps=10, schedule="wsd", decay_steps=4, min_lr_ratio=0.2)
    assert found == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4])


def test_inverse_square_root_halves_when_the_steps_are_four_times_the_warm_up():
    found = rates(warmup_steps=4, max_steps=100, schedule="inverse_sqrt", min_lr_ratio=0.3)
    assert (found[4], found[16]) == (1.0, 0.5)
    assert found[99] == 0.3


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd", "inverse_sqrt"])
def test_no_schedule_leaves_its_bounds_and_none_rises_again(schedule):
    found = rates(warmup_steps=5, max_steps=60, schedule=schedule)
    assert all(0.1 - 1e-12 <= rate <= 1 for rate in found[4:])
    assert all(later <= earlier for earlier, later in pairwise(found[4:]))
