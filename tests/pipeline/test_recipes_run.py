"""Each recipe of `codex-ml init` runs end to end on a tiny corpus, with the stages and commands that it names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from workspace import REPOSITORY, Workspace, make_workspace

pytestmark = pytest.mark.slow
STAGES = ("fetch", "ingest", "split", "tokenizer", "pack", "train", "evaluate", "safety_audit", "report")
# A recipe is for a real model; the sizes of this one are a test's.
SMALL: dict[str, dict[str, Any]] = {
    "split": {"val": 0.1, "test": 0.15, "ledger": False},
    "pack": {"seq_len": 64},
    "train": {"max_steps": 6, "micro_batch_size": 4, "accumulation": 1, "eval_every": 3, "eval_rows": 8, "threads": 1,
              "checkpoint_every": 3, "compile": "off"},
    "evaluate": {"bootstrap": 100, "completions": {"documents": 4, "max_tokens": 8}},
    "safety_audit": {"windows": 20, "prefix_tokens": 12, "suffix_tokens": 8, "samples": 4, "sample_tokens": 16},
    "runtime": {"device": "cpu"},
}  # fmt: skip
SHAPE = {"preset": "", "hidden_size": 16, "intermediate_size": 32, "layers": 1, "heads": 2, "max_positions": 64}


def code(number: int) -> str:
    """A file of Python that shares no line of five words with another one."""
    lines = [
        f"def f{number}_{line}(a{number}, b{line}):\n    return a{number} * {number} + b{line}\n" for line in range(6)
    ]
    return "\n".join(lines)


def records() -> list[dict[str, str]]:
    return [
        {"instruction": f"Write f{number}: it adds {number} to x{number}.", "output": code(number)}
        for number in range(60)
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace after the recipe `pretrain`."""
    workspace = make_workspace(tmp_path_factory.mktemp("recipes"))
    shutil.copytree(REPOSITORY / "examples", workspace.root / "examples")
    folder = workspace.root / "data/raw/mine"
    folder.mkdir(parents=True)
    for number in range(60):
        (folder / f"f{number}.py").write_text(code(number))
    run(workspace, "pretrain", tokenizer={"vocab_size": 400}, model=SHAPE)
    return workspace


def run(workspace: Workspace, recipe: str, **changes: dict[str, Any]) -> None:
    """Write a recipe, make it small, check it, and run the stages."""
    settle(workspace, recipe, **changes)
    for stage in STAGES:
        workspace.run("python", f"stages/{stage}.py")


def settle(workspace: Workspace, recipe: str, **changes: dict[str, Any]) -> None:
    workspace.cli("init", recipe, "--force")
    file = workspace.root / "params.yaml"
    params = yaml.safe_load(file.read_text(encoding="utf-8"))
    for section, values in (*SMALL.items(), *changes.items()):
        if params[section]:  # a recipe that trains nothing leaves sections empty
            params[section] = {**params[section], **values}
    file.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def with_base(trained: Workspace, folder: Path) -> Workspace:
    """A copy in which the trained model is a base model, and records are in data/raw."""
    workspace = trained.copy(folder / "here")
    base = workspace.root / "models/base/mine"
    base.parent.mkdir(exist_ok=True)
    shutil.copytree(workspace.root / "models/model", base, ignore=shutil.ignore_patterns("training.json"))
    shutil.rmtree(workspace.root / "models/model")
    return workspace


def use_records(workspace: Workspace) -> None:
    folder = workspace.root / "data/raw/mine"
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "r.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records()), encoding="utf-8")


def finished(workspace: Workspace) -> dict[str, Any]:
    """training.json of the model, after all reports are there."""
    assert (workspace.root / "reports/report").is_dir()
    found: dict[str, Any] = json.loads((workspace.root / "models/model/training.json").read_text())
    return found


def test_pretrain(trained: Workspace) -> None:
    training = finished(trained)
    assert (training["model"]["base"], training["model"]["hidden_size"], training["model"]["lora"]) == (None, 16, None)


def test_continue(trained: Workspace, tmp_path: Path) -> None:
    workspace = with_base(trained, tmp_path)
    run(workspace, "continue")
    training = finished(workspace)
    assert (training["model"]["base"]["path"], training["model"]["lora"]) == ("models/base/mine", None)


@pytest.mark.parametrize(("recipe", "rank"), [("sft", None), ("lora", 8)])
def test_fine_tuning(trained: Workspace, tmp_path: Path, recipe: str, rank: int | None) -> None:
    workspace = with_base(trained, tmp_path)
    use_records(workspace)
    run(workspace, recipe)
    training = finished(workspace)
    assert training["model"]["base"]["path"] == "models/base/mine"
    assert (training["model"]["lora"] or {"rank": None})["rank"] == rank
    assert training["loss_on"] == "completions"


def test_evaluate_and_audit(trained: Workspace, tmp_path: Path) -> None:
    workspace = with_base(trained, tmp_path)
    texts = [json.dumps({"text": code(number), "licence": "MIT"}) + "\n" for number in range(40)]
    (workspace.root / "data/raw/train.jsonl").write_text("".join(texts[:30]))
    (workspace.root / "data/raw/held_out.jsonl").write_text("".join(texts[30:]))
    settle(workspace, "evaluate")
    workspace.cli("evaluate", "--model", "models/base/mine", "--data", "data/raw/held_out.jsonl", "--out", "measured")
    details = json.loads((workspace.root / "measured/details.json").read_text())
    assert details["tasks"]["documents"]["metrics"]["perplexity"]["value"] > 1
    settle(workspace, "audit")
    named = ("--train", "data/raw/train.jsonl", "--held-out", "data/raw/held_out.jsonl", "--out", "audited")
    done = workspace.cli("audit", "--model", "models/base/mine", *named, check=False)
    assert done.returncode in (0, 1), done.stderr  # the verdict of a toy model on toy documents decides nothing here
    assert "error" not in done.stderr
    assert json.loads((workspace.root / "audited/audit.json").read_text())["verdict"] in ("pass", "fail", "invalid")
