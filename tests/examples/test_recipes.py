"""`codex-ml init` writes each file of examples/, which is valid, and leaves a file that exists."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.init import RECIPES
from codex_ml.cli.main import whole_app
from codex_ml.cli.param_rules import Params, load_params

EXAMPLES = Path(__file__).parents[2] / "examples"


def init(*arguments: str):
    return CliRunner().invoke(whole_app(), ["init", *arguments])


def test_each_recipe_is_a_file_of_examples():
    assert sorted(file.stem for file in EXAMPLES.glob("*.yaml")) == sorted(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_written_as_it_is_has_all_sections_and_is_valid(workspace, recipe):
    Path("params.yaml").unlink()
    done = init(recipe)
    assert (done.exit_code, done.stderr) == (0, "")
    assert Path("params.yaml").read_bytes() == (EXAMPLES / f"{recipe}.yaml").read_bytes()
    params = load_params()
    assert params.model_fields_set == set(Params.model_fields)
    assert done.stdout.startswith(f"init: params.yaml: {RECIPES[recipe]}; its first lines say what to do next:\n  ")


def test_a_file_that_exists_stays_without_force(workspace):
    before = Path("params.yaml").read_bytes()
    done = init("lora")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: params.yaml exists; --force replaces it, and --out FILE writes another file\n",
    )
    assert Path("params.yaml").read_bytes() == before
    assert init("lora", "--out", "other.yaml").exit_code == 0
    assert load_params(Path("other.yaml")).model.lora.rank == 8
    assert init("lora", "--force").exit_code == 0
    assert load_params().model.lora.rank == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loras"], "there is no recipe 'loras'; there are: pretrain, continue, sft, lora, evaluate, audit"),
        (["lora", "--out", "no/such/file"], "--out no/such/file: expected the name of a file in a folder that exists"),
        (
            ["lora", "--force", "--out", ".dvc/config"],
            "--out .dvc/config is in .dvc, the folder of DVC; name a folder outside of it",
        ),
        (
            ["lora", "--force", "--out", "data/../.git/config"],
            "--out data/../.git/config is in .git, the folder of Git; name a folder outside of it",
        ),
        (["lora", "--out", "data"], "--out data: expected the name of a file in a folder that exists"),
    ],
)
def test_misuse_is_one_line(workspace, arguments, message):
    done = init(*arguments)
    assert (done.exit_code, done.stderr) == (2, f"error: {message}\n")
