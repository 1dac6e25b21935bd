"""benchmarks/recipe.py: its table is valid, a run is recorded once, and its changes reach the optimizer."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from codex_ml.core.yaml import read_yaml

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MODULES = (
    "recipe",
    "recipe_race",
    "recipe_page",
    "recipe_run",
    "recipe_settings",
    "measuring",
    "train_shapes",
    "turns",
)
TINY = ["--size", "toy", "--steps", "4", "--no-compile", "--precision", "fp32"]


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, project: Path) -> Iterator[ModuleType]:
    """benchmarks/recipe.py, which is not a package, with the params.yaml of an invented user."""
    path = list(sys.path)
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("recipe")
    monkeypatch.setattr(sys.modules["recipe_settings"], "PARAMS", project / "params.yaml")
    yield module
    sys.path[:] = path
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def data(recipe: ModuleType, tmp_path: Path) -> Path:
    """A folder with packed rows of random tokens."""
    shapes = importlib.import_module("train_shapes")
    (tmp_path / "packed").mkdir()
    shapes.write_packed(tmp_path / "packed", shapes.SHAPES["tiny"], tokens=2000)
    return tmp_path


@pytest.mark.shipped
def test_a_size_is_the_preset_of_its_name(recipe: ModuleType) -> None:
    presets = read_yaml(BENCHMARKS.parent / "models/presets.yaml")
    sizes = {name: size.model for name, size in recipe.SIZES.items() if name in presets}
    assert list(sizes) == ["tiny", "small", "medium"]
    for name, shape in sizes.items():
        assert {key: presets[name][key] for key in shape} == shape, name


def test_every_setting_is_a_valid_recipe_for_every_size(recipe: ModuleType) -> None:
    settings = recipe.settings()
    for name, setting in settings.items():
        for size in recipe.SIZES:
            job = recipe.RecipeJob(name, size, 1, 20, setting.content, threads=1, data="data")
            rows = job.train.micro_batch_size * job.train.accumulation
            assert job.train.max_steps * rows == 20 * 8, name
            assert job.model.hidden_size == recipe.SIZES[size].model["hidden_size"]


def test_sizes_are_the_presets_of_their_names(recipe: ModuleType, project: Path) -> None:
    from codex_ml.core.yaml import parse_yaml

    presets = parse_yaml((project / "models/presets.yaml").read_text("utf-8"), "presets.yaml")
    for name in ("tiny", "small", "medium"):
        assert {key: presets[name][key] for key in recipe.SIZES[name].model} == recipe.SIZES[name].model


def test_default_is_that_of_params_yaml_and_every_change_differs_from_it(recipe: ModuleType, project: Path) -> None:
    from codex_ml.core.yaml import parse_yaml
    from codex_ml.train.config import Model, Train
    from codex_ml.train.recipe import optimizer_plan

    train = parse_yaml((project / "params.yaml").read_text("utf-8"), "params.yaml")["train"]
    settings, shape = recipe.settings(), Model(hidden_size=128)
    default = recipe.RecipeJob("default", "tiny", 1, 20, settings["default"].content, threads=1, data="data")
    assert optimizer_plan(shape, default.train) == optimizer_plan(shape, Train.model_validate(train))
    assert [n for n, s in settings.items() if n != "default" and s.content == settings["default"].content] == []


def test_one_rate_is_the_rate_of_hidden_size_128_for_all_parameters(recipe: ModuleType) -> None:
    from codex_ml.train.recipe import optimizer_plan

    job = recipe.RecipeJob("one-rate", "tiny", 1, 600, recipe.settings()["one-rate"].content, threads=1, data="data")
    plan = optimizer_plan(job.model, job.train)
    assert plan.name == "adamw"
    assert plan.lr == plan.embedding_lr == pytest.approx(3e-3, rel=1e-5)


def test_finished_run_is_one_line_and_is_not_repeated(recipe: ModuleType, data: Path) -> None:
    record = data / "runs.ndjson"
    arguments = ["run", "--only", "default", *TINY, "--workers", "2", "--data", str(data), "--record", str(record)]
    done = CliRunner().invoke(recipe.app, arguments)
    assert done.exit_code == 0, done.output
    (line,) = record.read_text().splitlines()
    run = json.loads(line)
    assert (run["setting"], run["size"], run["seed"], run["steps"], run["tokens"]) == (
        "default",
        "toy",
        1,
        4,
        4 * 8 * 16,
    )
    assert list(run["val"]) == ["1", "2", "3", "4"] and run["seconds"] > 0 and run["precision"] == "fp32"
    assert str(data) not in line and run["test_bits_per_byte"] is None
    done = CliRunner().invoke(recipe.app, arguments)
    assert done.exit_code == 0 and "0 to train" in done.output
    assert record.read_text().splitlines() == [line]


def test_run_that_fails_is_reported_and_not_recorded(recipe: ModuleType, data: Path) -> None:
    (data / "packed/train.bin").write_bytes(b"")
    record = data / "runs.ndjson"
    arguments = ["run", "--only", "default", *TINY, "--workers", "2", "--data", str(data), "--record", str(record)]
    done = CliRunner().invoke(recipe.app, arguments)
    assert done.exit_code == 1 and "default, seed 1: exit status 1" in done.output and "train.bin" in done.output
    assert not record.exists()


@pytest.mark.parametrize("wrong", [["--only", "nothing"], ["--size", "huge"], ["--data", "nowhere"]])
def test_unknown_setting_size_or_folder_is_refused(recipe: ModuleType, wrong: list[str]) -> None:
    done = CliRunner().invoke(recipe.app, ["run", *wrong])
    assert done.exit_code == 2 and wrong[1] in done.output


def test_run_of_other_content_size_seed_budget_or_precision_is_another_run(recipe: ModuleType) -> None:
    settings = recipe.settings()
    job = recipe.RecipeJob("default", "tiny", 1, 600, settings["default"].content, threads=1, data="data")
    run = {"size": "tiny", "seed": 1, "budget": 600, "precision": "bf16", "compile": True, **job.content}
    run["test_bits_per_byte"] = None
    assert recipe.is_done(replace(job, precision="bf16"), [run])
    assert recipe.is_done(job, [run]) and recipe.is_done(replace(job, setting="another name"), [run])
    others = {"size": "small", "seed": 2, "steps": 300, "content": settings["one-rate"].content, "test": True}
    others |= {"precision": "fp32", "compile": False}
    for key, value in others.items():
        assert not recipe.is_done(replace(job, **{key: value}), [run]), key


def test_changes_of_groups_reach_the_kind_that_they_name(recipe: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from codex_ml.train import run
    from codex_ml.train.config import Model, Train
    from codex_ml.train.model.build import build_model
    from codex_ml.train.recipe import OptimizerPlan

    monkeypatch.setattr(run, "build_optimizer", run.build_optimizer)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "layers": 1, "heads": 2}
    model = build_model(Model(**sizes), vocab_size=32, end=0, pad=1, seed=1)
    plan = OptimizerPlan("muon", 0.5, 2.0)

    def groups() -> list[tuple[int, float, float]]:
        optimizer = run.build_optimizer(model, Train(), plan, precision="fp32")
        return [(len(g["params"]), g["peak"], g["weight_decay"]) for g in optimizer.param_groups]

    before = groups()
    sys.modules["recipe_run"].change_groups({"embedding": {"weight_decay": 0.7}, "vector": {"rate": 0.25}})
    assert [number for number, _, _ in before] == [7, 1, 3]  # matrices, embedding, norms
    assert groups() == [before[0], (1, 2.0, 0.7), (3, 0.5, before[2][2])]


@pytest.mark.slow
def test_race_records_the_curve_of_each_racer(recipe: ModuleType, data: Path) -> None:
    record = data / "race.ndjson"
    racers = ["--only", "ours", "--only", "nanogpt", "--turn", "2", "--threads", "1"]
    done = CliRunner().invoke(recipe.app, ["race", *racers, *TINY, "--data", str(data), "--record", str(record)])
    assert done.exit_code == 0, done.output
    runs = [json.loads(line) for line in record.read_text().splitlines()]
    assert [run["racer"] for run in runs] == ["ours", "nanogpt"]
    for run in runs:
        assert run["steps"] == [1, 3, 4] and len(run["loss"]) == len(run["clock"]) == 3
        assert run["clock"] == sorted(run["clock"]) and run["loss"][-1] < run["loss"][0]


def test_clock_counts_the_first_step_as_an_average_one(recipe: ModuleType) -> None:
    found = {"own": [1, 3, 4], "loss": [3.0, 2.0, 1.0], "rounds": [4.0, 5.0], "start": 40.0}
    curve = recipe.as_curve(found, 0.5)
    assert curve == {"steps": [0.5, 1.5, 2.0], "loss": [3.0, 2.0, 1.0], "clock": [3.0, 7.0, 12.0], "start": 40.0}


@pytest.mark.parametrize(("turn", "taken"), [(20, [9, 10, 10]), (1, [1] * 29)])
def test_a_racer_with_more_rows_per_step_takes_all_its_steps(recipe: ModuleType, turn: int, taken: list[int]) -> None:
    """30 steps of 16 rows are a budget of 60; the first is the warm-up."""
    done, turns = 1, []
    while number := recipe.steps_of_turn(turn, 30, 60, done=done):
        turns.append(number)
        done += number
    assert (done, sorted(turns)) == (30, taken)


@pytest.fixture
def racing(recipe: ModuleType, data: Path) -> Callable[[str], Any]:
    """What a loop of the race gets, by the racer's name."""
    from codex_ml.modeling.rows import Rows

    module = sys.modules["recipe_race"]

    def made(name: str) -> Any:
        racer, content = module.RACERS[name], recipe.settings()["default"].content
        job = recipe.RecipeJob(name, "toy", 1, 10, content, 1, str(data), precision="fp32", compile=False)
        model = module.llama(job, attention=racer.attention, tied=racer.tied)
        return module.Race(job, model, Rows.open(data / "packed", "train"))

    return made


def test_validation_of_the_race_is_that_of_the_present_weights(racing: Callable[[str], Any], data: Path) -> None:
    import torch

    from codex_ml.modeling.rows import Rows

    race, other = racing("ours"), racing("nanogpt")
    measure = sys.modules["recipe_race"].validation(race.model, other.model, Rows.open(data / "packed", "val"))
    before = measure()["loss"]
    with torch.no_grad():
        for parameter in race.model.parameters():
            parameter.zero_()
    assert before != pytest.approx(math.log(64), abs=1e-4)
    assert measure()["loss"] == pytest.approx(math.log(64), abs=1e-6)  # equal logits of 64 tokens


@pytest.mark.parametrize(
    ("name", "rates", "muon"),
    [
        ("nanogpt", [[1e-3 * step / 101] * 2 for step in (1, 2)], []),
        ("nanogpt-gpt2", [[6e-4 * step / 2001] * 2 for step in (1, 2)], []),
        ("trainer", [[5e-5 * left / 10] * 2 for left in (10, 9)], []),
        ("nanochat", [[0.2 * (32 / 768) ** -0.5, 0.004 * (32 / 768) ** -0.5]] * 2, [(0.02, 0.85), (0.02, 0.85 + 1 / 3000)]),
    ],
)  # fmt: skip
def test_racer_has_the_published_rates(
    racing: Callable[[str], Any], name: str, rates: list[list[float]], muon: list[tuple[float, float]],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Rates of the groups of AdamW, then rate and momentum of Muon, in the first two steps."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    monkeypatch.chdir(tmp_path)
    seen, orthogonal = [], []

    def note(optimizer: Any, *_: object) -> None:
        if isinstance(optimizer, torch.optim.Muon):
            orthogonal.extend((group["lr"], group["momentum"]) for group in optimizer.param_groups)
        if isinstance(optimizer, torch.optim.AdamW):
            seen.append([group["lr"] for group in optimizer.param_groups])
        if len(seen) == 2:
            raise SystemExit

    hook, threads = register_optimizer_step_pre_hook(note), torch.get_num_threads()
    try:
        with pytest.raises(SystemExit):
            sys.modules["recipe_race"].RACERS[name].run(racing(name))
    finally:
        hook.remove()
        torch.set_num_threads(threads)
    assert seen == [pytest.approx(pair) for pair in rates]
    assert orthogonal == [pytest.approx(pair) for pair in muon]


def finished(
    recipe: ModuleType, name: str, seed: int, losses: dict[str, float], bits: float | None = None
) -> dict[str, Any]:
    """An invented record of a run of 100 steps."""
    origin = {"threads": 1, "precision": "fp32", "compile": False, "torch": "9", "machine": "CPU", "date": "2026-01-02"}
    budget = {"size": "tiny", "seed": seed, "budget": 100, "steps": 100, "parameters": 1_300_000}
    content = recipe.settings()[name].content
    return {"setting": name, **budget, **content, "val": losses, "test_bits_per_byte": bits, **origin}


def written(recipe: ModuleType, folder: Path, runs: list[dict[str, Any]], race: list[dict[str, Any]]) -> str:
    for name, lines in (("runs", runs), ("race", race)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = ["--record", str(folder / "runs"), "--race", str(folder / "race")]
    done = CliRunner().invoke(recipe.app, ["write", "--page", str(folder / "page.md"), *records])
    assert done.exit_code == 0, done.output
    return (folder / "page.md").read_text()


def test_page_has_means_intervals_and_the_steps_to_the_loss_of_one_rate(recipe: ModuleType, tmp_path: Path) -> None:
    losses = {1: {"50": 5.0, "100": 2.0}, 2: {"50": 4.0, "100": 3.0}, 3: {"50": 3.5, "100": 1.0}}
    runs = [finished(recipe, "default", seed, found, 1.5) for seed, found in losses.items()]
    runs.append(finished(recipe, "one-rate", 1, {"50": 6.0, "100": 3.5}))
    page = written(recipe, tmp_path, runs, [])
    # t of two degrees of freedom is 4.3027; the deviation of 2, 3, 1 is 1. Steps: 75, 75 and 50, deviation 14.434
    assert "| the default of `params.yaml` | 3 | 2.000 ± 2.484 | 1.500 ± 0.000 | 67 ± 36 (0.67) |" in page
    assert "| AdamW, one rate | 1 | 3.500 | – | – |" in page
    assert "Against other recipes" not in page and "one change" not in page and "Sizes" not in page


def test_page_shows_changes_from_the_best_to_the_worst_against_equal_seeds(recipe: ModuleType, tmp_path: Path) -> None:
    runs = [finished(recipe, "default", seed, {"100": 3.0 + seed}) for seed in (1, 2)]
    runs += [finished(recipe, name, 2, {"100": loss}) for name, loss in (("lr-half", 5.5), ("lr-double", 4.75))]
    page = written(recipe, tmp_path, runs, [])
    rows = [line for line in page.splitlines() if line.startswith("| `train.lr`")]
    assert rows == ["| `train.lr` doubled | 1 | 4.750 | -0.250 |", "| `train.lr` halved | 1 | 5.500 | 0.500 |"]
    assert "standard deviation of 0.707 nats" in page


def test_page_shows_when_the_default_reaches_the_loss_of_another_recipe(recipe: ModuleType, tmp_path: Path) -> None:
    runs = [finished(recipe, "default", 1, {"100": 3.0})]
    about = {key: runs[0][key] for key in ("threads", "precision", "compile", "torch", "machine", "date", "size")}
    curves = {"ours": [5.0, 3.0, 2.0], "trainer": [6.0, 5.0, 4.0], "nanochat": [5.0, 2.0, 1.0]}
    clocks = {"ours": [1.0, 11.0, 21.0], "trainer": [1.0, 31.0, 60.0], "nanochat": [1.0, 11.0, 21.0]}
    race = [
        {"racer": name, "steps": [1, 51, 101], "loss": loss, "clock": clocks[name], "start": 7.0, **about}
        for name, loss in curves.items()
    ]
    rows = [line for line in written(recipe, tmp_path, runs, race).splitlines() if line.count(" | ") == 6]
    # 4.0 is half-way between the first two points of ours: 26 steps, 6 s, a tenth of 60 s
    assert [row.split(" | ", 1)[1] for row in rows[1:]] == [
        "2.000 | 21.0 | 7 | – | – | – |",
        "4.000 | 60.0 | 7 | 26 | 6.0 | 0.10 |",
        "1.000 | 21.0 | 7 | not reached | not reached | not reached |",
    ]


def test_page_without_a_run_of_the_default_is_refused(recipe: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = CliRunner().invoke(recipe.app, ["write", "--page", str(page), "--record", str(tmp_path / "none")])
    assert done.exit_code == 2 and "no run of the setting default" in done.output
    assert not page.exists()


@pytest.mark.shipped
def test_page_of_the_recipe_is_what_its_records_give(recipe: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["recipe_settings"], "PARAMS", recipe.ROOT / "params.yaml")
    assert (recipe.ROOT / "docs/recipe.md").read_text(encoding="utf-8") == recipe.written(recipe.RECORD, recipe.RACE)
