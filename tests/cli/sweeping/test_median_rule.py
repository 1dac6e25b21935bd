"""The median rule, worked out by hand."""

from __future__ import annotations

from codex_ml.cli.sweeping.median_rule import FEWEST, stop_index

OTHERS = [[(10, 3.0), (20, 2.0)], [(10, 3.2), (20, 2.2)], [(10, 3.4), (20, 2.4)], [(10, 3.6), (20, 2.6)]]


def test_a_trial_above_the_median_is_stopped_at_the_first_such_point() -> None:
    assert stop_index([(10, 3.31)], OTHERS) == 0  # the median of 3.0, 3.2, 3.4, 3.6 is 3.3
    assert stop_index([(10, 3.29), (20, 2.31)], OTHERS) == 1
    assert stop_index([(10, 3.3), (20, 2.3)], OTHERS) is None  # equal to the median is not worse


def test_the_best_loss_so_far_counts() -> None:
    assert stop_index([(10, 2.2), (20, 9.0)], OTHERS) is None
    assert stop_index([(10, 2.4), (20, 9.0)], OTHERS) == 1


def test_too_few_trials_or_another_step_stop_nothing() -> None:
    assert FEWEST == 4
    assert stop_index([(10, 99.0)], OTHERS[:3]) is None
    assert stop_index([(15, 99.0)], OTHERS) is None
    assert stop_index([], OTHERS) is None


def test_more_points_never_move_the_stop() -> None:
    curve = [(10, 3.2), (20, 2.5), (30, 0.1)]
    assert [stop_index(curve[:n], OTHERS) for n in range(4)] == [None, None, 1, 1]
