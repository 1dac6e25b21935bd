"""`--set KEY=DISTRIBUTION`: what it means, and what is refused."""

from __future__ import annotations

import pytest

from codex_ml.cli.sweeping.search_space import SweepAxis, read_axes, read_axis
from codex_ml.cli.sweeping.trial_values import value_of
from codex_ml.core.errors import UserError


@pytest.mark.parametrize(
    ("setting", "share", "text"),
    [
        ("train.lr=loguniform(1e-4,1e-2)", 0.0, "0.0001"),
        ("train.lr=loguniform(1e-4,1e-2)", 0.25, "0.000316228"),  # 10^-3.5
        ("train.lr=loguniform(1e-4,1e-2)", 0.75, "0.00316228"),  # 10^-2.5
        ("train.weight_decay=uniform(0,0.2)", 0.25, "0.05"),
        ("train.weight_decay=uniform(-1,1)", 0.5, "0.0"),
        ("train.accumulation=int(1,4)", 0.0, "1"),
        ("train.accumulation=int(1,4)", 0.2499, "1"),
        ("train.accumulation=int(1,4)", 0.25, "2"),
        ("train.accumulation=int(1,4)", 0.9999, "4"),
        ("model.layers=choice(2,4,8)", 0.34, "4"),
        ("model.layers=choice(2,4,8)", 0.9999, "8"),
        ("train.schedule=choice(linear, cosine)", 0.4, "linear"),
        ("model.lora.targets=choice([q_proj, v_proj], [all-linear])", 0.1, "[q_proj, v_proj]"),
        ("train.max_steps=300", 0.7, "300"),
    ],
)
def test_a_share_of_an_axis_is_a_value(setting: str, share: float, text: str) -> None:
    assert read_axis(setting).at(share) == text


def test_a_rounded_number_stays_inside_its_bounds() -> None:
    low, high = 0.123456789, 0.12345679
    axis = SweepAxis("a.b", "uniform", low, high)
    assert [float(axis.at(share)) for share in (0.0, 0.9999)] == [high, high], "with six digits both are 0.123457"
    assert SweepAxis("a.b", "uniform", 0.1234571, 0.2).at(0.0) == "0.1234571", "not 0.123457, which is below"


def test_a_grid_lists_every_value() -> None:
    assert read_axis("a.b=int(-1,2)").values() == ["-1", "0", "1", "2"]
    assert read_axis("a.b=choice(x,y)").values() == ["x", "y"]
    with pytest.raises(UserError, match=r"--method grid needs a list of values for train\.lr"):
        read_axis("train.lr=uniform(0,1)").values()


def test_texts_are_values_of_yaml() -> None:
    assert [value_of(text) for text in ("1e-2", "4", "true", "null", "cosine", "[a, b]", "''")] == [
        0.01, 4, True, None, "cosine", ["a", "b"], "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.lr", "expected KEY=DISTRIBUTION"),
        ("=3", "expected KEY=DISTRIBUTION"),
        ("train.lr=", "expected KEY=DISTRIBUTION"),
        ("train lr=3", "expected KEY=DISTRIBUTION"),
        ("--x=choice(1,2)", "expected KEY=DISTRIBUTION"),
        ("train.lr=1e-3,3e-3", r"for several values write 'train.lr=choice\(1e-3,3e-3\)'"),
        ("train.lr=normal(0,1)", "normal is not a distribution"),
        ("train.lr=uniform(1)", "uniform takes two numbers"),
        ("train.lr=uniform(a,b)", "uniform takes two numbers"),
        ("train.lr=uniform(2,1)", "LOW must be below HIGH"),
        ("train.lr=uniform(1,1)", "LOW must be below HIGH"),
        ("train.lr=uniform(0,inf)", "both finite"),
        ("train.lr=uniform(0,nan)", "LOW must be below HIGH"),
        ("train.lr=loguniform(0,1)", "must be above 0"),
        ("model.layers=int(1,2.5)", "int takes two whole numbers"),
        ("model.layers=int(1,99999999999999999999)", "within 2"),
        ("model.layers=choice(2,2)", "a value is given twice"),
        ("model.layers=choice(2,)", "a value is empty"),
        ("model.layers=choice(])", "--set model.layers"),
        ("runtime.workers=choice(1,2)", "changes no result"),
    ],
)
def test_other_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_axis(setting)


def test_a_key_given_twice_and_a_sweep_over_nothing_are_refused() -> None:
    with pytest.raises(UserError, match=r"train.lr=... is given twice"):
        read_axes(["train.lr=choice(1,2)", "train.lr=uniform(0,1)"])
    with pytest.raises(UserError, match="all trials would be equal"):
        read_axes(["train.lr=1e-3", "model.layers=choice(4)"])
