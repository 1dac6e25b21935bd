"""Edits of dvc.yaml and dvc.lock, and losses of DVC's cache: `codex-ml plan` names what `dvc repro` then does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.exceptions import DvcException

from . import test_plan
from .test_plan import actions, dry, edit, planned, repro, texts

project, ran = test_plan.project, test_plan.ran  # fixtures


def stages(change: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
    """Change the stages of dvc.yaml."""
    return lambda: rewrite("dvc.yaml", change)


def rewrite(name: str, change: Callable[[dict[str, Any]], object]) -> None:
    data = yaml.safe_load(Path(name).read_text())
    change(data["stages"])
    Path(name).write_text(yaml.safe_dump(data, sort_keys=False))


def cached(name: str) -> Path:
    """The object of an output in DVC's cache."""
    found: dict[str, Any] = yaml.safe_load(Path("dvc.lock").read_text())["stages"]
    [md5] = [out["md5"] for stage in found.values() for out in stage["outs"] if out["path"] == name]
    return Path(".dvc/cache/files/md5", md5[:2], md5[2:])


def lose(name: str) -> None:
    cached(name).chmod(0o644)
    cached(name).unlink()


def remove(path: str) -> None:
    shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()


TWIN = {"cmd": "cat page > twin; echo twin >> ran", "deps": ["page"], "outs": ["twin"]}  # writes the bytes of another
STAYS: dict[str, str] = {}
# what changes -> the stages of the dry run and what the plan says of those that do not stay; each after the one before
ROUNDS: dict[str, tuple[Callable[[], object], dict[str, str]]] = {
    "a comment": (lambda: edit("dvc.yaml", "stages:\n", "# says nothing\nstages:\n"), STAYS),
    "a description": (stages(lambda s: s["train"].update(desc="learns")), STAYS),
    "a command": (stages(lambda s: s["report"].update(cmd="true; " + s["report"]["cmd"])), {"report": "run"}),
    "a new stage": (stages(lambda s: s.update(twin=TWIN)), {"twin": "run"}),
    "a new dependency": (stages(lambda s: s["report"]["deps"].append("params.yaml")), {"report": "run", "twin": "maybe"}),
    "a dependency less": (stages(lambda s: s["report"]["deps"].remove("params.yaml")), STAYS),
    "the same dependency again": (stages(lambda s: s["report"]["deps"].append("params.yaml")), STAYS),
    "a new output": (
        stages(lambda s: s["split"].update(cmd="echo x > extra; " + s["split"]["cmd"], outs=["data/splits", "extra"])),
        {"split": "run", "train": "maybe", "report": "maybe", "twin": "maybe"},
    ),
    "a section more": (stages(lambda s: s["train"]["params"].append("seed")), {"train": "run", "report": "maybe", "twin": "maybe"}),
    "a lost object of the cache": (lambda: lose("models/model"), {"train": "run", "report": "maybe", "twin": "maybe"}),
    "a lost object that two stages wrote": (lambda: lose("page"), {"report": "run", "twin": "maybe"}),
    "a lost list of a folder": (lambda: lose("data/splits"), {"split": "run", "train": "maybe", "report": "maybe", "twin": "maybe"}),
    "a stage that dvc.lock lacks": (lambda: rewrite("dvc.lock", lambda s: s.pop("train")), {"train": "restore"}),
    "no dvc.lock": (lambda: remove("dvc.lock"), dict.fromkeys(("split", "train", "report", "twin"), "restore")),
    "no runs in the cache": (lambda: remove(".dvc/cache/runs"), STAYS),
    "an output that is missing": (lambda: remove("page"), {"report": "restore"}),
    "a folder and a file that are missing": (
        lambda: [remove("data/splits"), remove("models/model")], {"split": "restore", "train": "restore"},
    ),
    "a frozen stage": (stages(lambda s: s["train"].update(frozen=True)), STAYS),
    "a parameter of a frozen stage": (lambda: edit("params.yaml", "1e-3", "3e-3"), {"report": "run", "twin": "maybe"}),
    "the command of a frozen stage": (stages(lambda s: s["train"].update(cmd="false")), {"train": "record"}),
    "an output of a frozen stage": (
        lambda: [remove("models/model"), Path("models/model").write_text("own")],
        {"train": "record", "report": "run", "twin": "maybe"},
    ),
    "a stage less": (stages(lambda s: s.pop("twin")), STAYS),
    "a stage that always runs": (stages(lambda s: s["split"].update(always_changed=True)), {"split": "run", "report": "maybe"}),
}  # fmt: skip


def test_each_edit_does_what_the_plan_says(ran: Path) -> None:
    for name, (change, expected) in ROUNDS.items():
        change()
        found = planned()
        assert {stage: action for stage, action in actions(found).items() if action != "stay"} == expected, name
        try:
            assert {step.stage for step in found.stages if step.in_dry_run} == dry(), name
        except DvcException:  # it wants to hash what is missing
            assert "missing" in name
        executed, others = repro()
        sure = {step.stage for step in found.stages if step.action == "run" and not step.waits_for}
        certain = {stage for stage, action in expected.items() if action in ("restore", "record")}
        assert sure <= executed <= {stage for stage, action in expected.items() if action in ("run", "maybe")}, name
        assert certain <= others <= expected.keys() - sure, name
        again = {stage: action for stage, action in actions(planned()).items() if action != "stay"}
        assert again == (expected if "always" in name else {}), name


def test_a_frozen_stage_without_its_output_fails_and_says_how_it_runs(ran: Path) -> None:
    rewrite("dvc.yaml", lambda s: s["train"].update(frozen=True))
    remove("models/model")
    found = planned()
    assert actions(found)["train"] == "fail"
    assert texts(found, "train") == [
        "models/model is missing, and train is frozen; `dvc checkout train` restores it, `dvc unfreeze train` lets it run"
    ]
    with pytest.raises(DvcException):
        repro()


def test_params_as_a_whole_file_is_named_as_a_file(ran: Path) -> None:
    rewrite("dvc.yaml", lambda s: s["report"]["deps"].append("params.yaml"))
    assert texts(planned(), "report") == ["params.yaml is a new dependency"]
    repro()
    edit("params.yaml", "1e-3", "3e-3")
    assert texts(planned(), "report")[0] == "params.yaml changed"


def test_an_output_that_an_earlier_stage_may_bring_back_says_so(ran: Path) -> None:
    rewrite("dvc.yaml", lambda s: s.update(twin=TWIN))
    repro()
    lose("page")
    [step] = [step for step in planned().stages if step.stage == "twin"]
    assert ([reason.text for reason in step.why], step.waits_for) == (
        ["output twin is not in DVC's cache", "report may write another page"],
        ["report"],
    )
