"""The next trial is a function of settings, number and the trials before it."""

from __future__ import annotations

import statistics

import pytest

from codex_ml.cli.sweeping import trial_proposals as proposals
from codex_ml.cli.sweeping.search_space import read_axes
from codex_ml.cli.sweeping.sweep_journal import SweepTrial
from codex_ml.core.errors import UserError

AXES = read_axes(["train.lr=loguniform(1e-4,1e-2)", "model.layers=choice(2,4)", "train.max_steps=300"])


def trial(number: int, params: dict[str, str], value: float | None, state: str = "finished") -> SweepTrial:
    return SweepTrial.model_validate(
        {"number": number, "params": params, "state": state, "value": value, "curve": [(10, value or 1.0)]}
        | {"experiment": f"t-{number}", "commit": None, "seconds": 1.0, "why": ""}
    )


def test_a_grid_changes_the_last_axis_fastest() -> None:
    axes = read_axes(["a.x=int(1,2)", "a.y=choice(u,v,w)"])
    assert proposals.grid_size(axes) == 6
    found = [tuple(proposals.grid(axes, number).values()) for number in range(6)]
    assert found == [("1", "u"), ("1", "v"), ("1", "w"), ("2", "u"), ("2", "v"), ("2", "w")]


def test_a_huge_grid_is_refused_without_building_it() -> None:
    with pytest.raises(UserError, match=r"the grid has \d+ trials; at most 10000"):
        proposals.grid_size(read_axes(["a.x=int(0,1000000000)", "a.y=int(0,1000000000)"]))


def test_random_trials_differ_by_number_and_by_seed_and_repeat() -> None:
    first = [proposals.random(AXES, number, seed=1) for number in range(20)]
    assert first == [proposals.random(AXES, number, seed=1) for number in range(20)]
    assert len({draw["train.lr"] for draw in first}) == 20
    assert not {draw["train.lr"] for draw in first} & {
        proposals.random(AXES, number, seed=2)["train.lr"] for number in range(20)
    }
    assert {draw["train.max_steps"] for draw in first} == {"300"}


def test_sobol_puts_one_of_each_eight_points_into_each_eighth_of_an_axis() -> None:
    """That is what makes it a (0, 3, 1)-net in base 2 (Owen 1998); independent draws do it once in 400 times."""
    axes = read_axes(["a.x=uniform(0,8)"])
    for seed in range(2):
        for start in (0, 8, 16):
            points = [float(proposals.sobol(axes, start + i, seed=seed)["a.x"]) for i in range(8)]
            assert sorted(map(int, points)) == list(range(8))


def test_tpe_is_the_same_for_the_same_trials_before() -> None:
    before = [trial(i, proposals.random(AXES, i, seed=9), float(i)) for i in range(12)]
    before[3] = trial(3, before[3].params, None, "stopped")
    before[4] = trial(4, before[4].params, None, "failed")
    ask = {"seed": 1, "before": before, "direction": "min"}
    assert proposals.tpe(AXES, 12, **ask) == proposals.tpe(AXES, 12, **ask)
    assert proposals.tpe(AXES, 12, **ask) != proposals.tpe(AXES, 13, **ask)
    other = [trial(t.number, t.params, 11.0 - i) for i, t in enumerate(before)]
    assert proposals.tpe(AXES, 12, **ask) != proposals.tpe(AXES, 12, seed=1, before=other, direction="min")


def test_tpe_learns_where_the_metric_is_good() -> None:
    """The metric is the distance to 0.7. A uniform draw is (0.7^2 + 0.3^2) / 2 = 0.29 away on average."""
    axes = read_axes(["a.x=uniform(0,1)"])
    for direction, sign in (("min", 1.0), ("max", -1.0)):
        before: list[SweepTrial] = []
        for number in range(50):
            params = proposals.tpe(axes, number, seed=1, before=before, direction=direction)
            before.append(trial(number, params, sign * abs(float(params["a.x"]) - 0.7)))
        assert statistics.fmean(abs(float(t.params["a.x"]) - 0.7) for t in before[10:]) < 0.29 / 2


def test_tpe_without_optuna_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--method tpe needs optuna.*\[sweep\]"):
        proposals.require_optuna()
