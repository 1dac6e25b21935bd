"""What `codex-ml plan` says of the real pipeline, before it runs and after each of some changes, is what then runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workspace import Finished, Workspace, make_workspace

pytestmark = pytest.mark.slow


def planned(workspace: Workspace, *arguments: str) -> dict[str, Any]:
    found = json.loads(workspace.cli("plan", "--json", *arguments, check=False).stdout)
    return {step["stage"]: step for step in found["stages"]} | {"": found}


def did(output: str) -> tuple[set[str], set[str]]:
    """The stages that `dvc repro` ran, and those that it restored."""
    ran = set(re.findall(r"^Running stage '(\w+)'", output, re.MULTILINE))
    return ran, set(re.findall(r"^Stage '(\w+)' is cached - skipping run", output, re.MULTILINE))


def comment(name: str) -> Callable[[Workspace], None]:
    def change(workspace: Workspace) -> None:
        with (workspace.root / name).open("a", encoding="utf-8") as file:
            file.write("# a comment\n")

    return change


def value(old: str, new: str) -> Callable[[Workspace], None]:
    return lambda workspace: workspace.edit("params.yaml", old, new)


CHANGES = {
    "a reader": comment("src/codex_ml/ingest/readers/archives.py"),
    "the policy": comment("data/policy.yaml"),
    "the script of the report": comment("stages/report.py"),
    "a number of the evaluation": value("bootstrap: 100", "bootstrap: 200"),
    "a key that changes no byte": value("runtime: {device: cpu}", "runtime: {device: cpu, progress: off}"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_the_plan_names_runs_and_a_second_time_there_is_nothing(pipeline: Workspace, name: str) -> None:
    CHANGES[name](pipeline)
    found = planned(pipeline)
    whole = found.pop("")
    named = {
        action: {s for s, step in found.items() if step["action"] == action} for action in ("run", "restore", "maybe")
    }
    sure = {stage for stage in named["run"] if not found[stage]["waits_for"]}
    ran, restored = did(pipeline.dvc("repro").stdout)
    assert sure <= ran <= named["run"] | named["maybe"]
    assert named["run"] | named["restore"] <= ran | restored
    assert whole["exit_code"] == (3 if ran | restored else 0)
    assert planned(pipeline)[""]["exit_code"] == 0


def test_going_back_restores_every_stage_and_names_the_commit(pipeline: Workspace) -> None:
    before = pipeline.run("git", "rev-parse", "HEAD").stdout.strip()
    pipeline.edit("params.yaml", "lr: 3e-3", "lr: 2e-3")
    pipeline.dvc("repro", "train")
    pipeline.edit("params.yaml", "lr: 2e-3", "lr: 3e-3")
    step = planned(pipeline, "train")["train"]
    assert (step["action"], step["made_by"]) == ("restore", f"commit {before[:10]} (run)")
    assert did(pipeline.dvc("repro").stdout) == (set(), {"train"})


def test_a_probe_measures_training_and_leaves_nothing(pipeline: Workspace) -> None:
    pipeline.edit("params.yaml", "lr: 3e-3", "lr: 2e-3")
    pipeline.extra["TMPDIR"] = str(pipeline.root.parent / "temporary")
    Path(pipeline.extra["TMPDIR"]).mkdir()
    before = pipeline.run("git", "status", "--porcelain", "--ignored").stdout
    probe = planned(pipeline, "--probe", "train")[""]["probe"]
    assert probe["steps"] == 12
    assert probe["seconds_per_step"] > 0
    assert probe["estimated_seconds"] >= probe["start_seconds"] + 57 * probe["seconds_per_step"]
    assert probe["peak_memory_bytes"] > 100_000_000  # torch alone takes more
    assert list(Path(pipeline.extra["TMPDIR"]).iterdir()) == []
    assert pipeline.run("git", "status", "--porcelain", "--ignored").stdout == before


def test_before_the_first_run_all_nine_stages_run(tmp_path: Path) -> None:
    found = planned(make_workspace(tmp_path))
    assert found.pop("")["exit_code"] == 3
    assert {step["action"] for step in found.values()} == {"run"}
    assert len(found) == 9


def test_a_stage_that_runs_says_what_the_last_run_took(finished: Finished) -> None:
    for step in planned(finished.workspace).values():
        if "cost" in step:
            assert step["cost"]["seconds"] >= 0
            assert step["cost"]["disk_bytes"] > 0
