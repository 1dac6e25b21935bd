"""What every stage script shares: only declared inputs, own library, no network, one run at a time."""

import logging
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from pydantic import create_model

from codex_ml.cli.param_rules import Params
from codex_ml.core import stage as module
from codex_ml.core.config import Section
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.events import read_log
from codex_ml.core.lock import only_one
from codex_ml.core.pipeline import load_pipeline
from codex_ml.core.stage import chosen, run_stage


def close_log():
    for handler in module.log.handlers:
        handler.close()


def schema(name, repository):
    """What a stage script declares as its params."""
    stages = load_pipeline(repository / "dvc.yaml")
    declared = stages[name].params if name in stages else ()
    fields = {section: Params.model_fields[section] for section in declared}
    return create_model("Params", __base__=Section, **{n: (field.annotation, field) for n, field in fields.items()})


@pytest.fixture
def run(workspace, repository, monkeypatch, capsys):
    """Run a stage in this process, without the hooks that a process cannot take back."""
    hooks = []
    monkeypatch.setattr(sys, "addaudithook", hooks.append)
    monkeypatch.setattr(signal, "signal", lambda number, handler: hooks.append((number, handler)))
    monkeypatch.setattr(module, "refuse_unrecorded", lambda spec, packages=True: hooks.append((spec.name, packages)))
    monkeypatch.setattr(module, "watch", lambda spec, guard: hooks.append(guard))
    for name in (
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "DVC_STUDIO_OFFLINE",
        "MPLBACKEND",
        "PYTHONSAFEPATH",
        "TOKENIZERS_PARALLELISM",
    ):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(module.log, "handlers", [])
    monkeypatch.setattr(module.log, "propagate", True)

    def run(name, main, *arguments, **options):
        close_log()
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as exit_:
            run_stage(name, main, schema(name, repository), **options)
        return exit_.value.code, hooks, capsys.readouterr()

    yield run
    close_log()


def test_a_stage_gets_its_params_and_leaves_a_record_and_a_log(run, workspace):
    seen = {}

    def main(stage):
        seen.update(params=stage.params, lr=stage.runtime.device, out=stage.out("data/raw/sample"))
        module.log.info("a \x1b line")

    code, hooks, out = run("fetch", main)
    assert code == 0
    assert vars(seen["params"]).keys() == {"fetch"}
    assert "a \\x1b line" in out.err
    assert out.err.splitlines()[-1].startswith("fetch: done in ")
    lines = list(read_log(workspace / "logs/fetch.ndjson"))
    assert [line.event for line in lines] == ["stage_started", "message", "stage_finished"]
    assert lines[1].message == "a \\x1b line"
    assert len({line.run for line in lines}) == 1
    assert (workspace / "reports/fetch/lineage.json").is_file()
    guard = module.refuse_network
    assert hooks == [guard, (signal.SIGTERM, module._terminate), ("fetch", False), guard, ("fetch", True)]
    assert (os.environ["HF_HUB_OFFLINE"], os.environ["TRANSFORMERS_OFFLINE"]) == ("1", "1")


def test_only_a_network_stage_goes_without_the_guard(run):
    order = []
    code, hooks, _ = run(
        "fetch", lambda stage: order.append("main"), network=True, prepare=lambda: order.append("prepare")
    )
    assert (code, order) == (0, ["prepare", "main"])
    assert module.refuse_network not in hooks


def test_a_stage_that_dvc_yaml_does_not_know_ends_with_2(run):
    code, _, out = run("nothing", lambda stage: None)
    assert (code, out.err) == (2, "error: dvc.yaml has no stage nothing\n")


@pytest.mark.parametrize("by_dvc", [False, True])
def test_wrong_params_are_reported_with_what_dvc_has_removed(run, workspace, monkeypatch, by_dvc):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    if by_dvc:
        monkeypatch.setenv("DVC_STAGE", "fetch")
    (workspace / "params.yaml").write_text("seed: -1\n")
    code, _, out = run("fetch", lambda stage: pytest.fail("the stage ran"))
    message = "error: params.yaml:1: seed: input should be greater than or equal to 0; found -1"
    assert (code, out.err.count("\n")) == (2, 1)
    assert out.err.startswith(f"{message} (DVC has removed " if by_dvc else f"{message}\n")
    assert ("`dvc repro` brings" in out.err) is by_dvc


def test_a_failed_stage_has_its_exit_code_and_one_line(run):
    def main(stage):
        raise CheckFailed("the gate failed")

    code, _, out = run("fetch", main)
    assert (code, out.err) == (1, "error: the gate failed\n")
    assert run("fetch", main, "--debug")[2].err.startswith("Traceback")


def test_help_needs_no_workspace(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, hooks, out = run("fetch", lambda stage: None, "--help")
    assert (code, hooks) == (0, [])
    assert "What every stage script shares" in " ".join(out.out.split())


def test_only_declared_paths_can_be_read_or_written(workspace):
    spec = load_pipeline()["split"]
    stage = module.Stage(spec, None, None, {})
    assert stage.dep("data/corpus/documents.parquet") == Path("data/corpus/documents.parquet")
    assert stage.metrics == Path("reports/split/metrics.json")
    with pytest.raises(
        UserError, match=r"^dvc\.yaml: data/corpus is not a dependency of stage split; add it to its deps"
    ):
        stage.dep("data/corpus")
    with pytest.raises(UserError, match="data/corpus is not a dependency of stage"):
        stage.require("data/corpus")
    stage.require("data/corpus/documents.parquet")
    with pytest.raises(AssertionError, match=r"^data/other is not an out of split$"):
        stage.out("data/other")
    folder = module.Stage(load_pipeline()["pack"], None, None, {})
    assert folder.dep("data/splits/train.parquet") == Path("data/splits/train.parquet")
    with pytest.raises(UserError):
        folder.dep("data/splits-old/train.parquet")


def test_a_termination_unwinds():
    with pytest.raises(SystemExit) as exit_:
        module._terminate(signal.SIGTERM, None)
    assert exit_.value.code == 143


def test_the_lock_of_a_stage_lies_in_a_private_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with only_one(module._lock_file("train"), "train"):
        assert Path(".cache").stat().st_mode & 0o777 == 0o700
        assert Path(".cache/locks/train").read_text().startswith(f"process {os.getpid()} on ")


def test_a_library_from_elsewhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run stages from the repository's top folder"):
        module._assert_own_library()
    Path("dvc.yaml").write_text("")
    with pytest.raises(CheckFailed, match="not the one of this checkout"):
        module._assert_own_library()


def test_a_library_behind_a_link_is_the_one_of_the_checkout(workspace, repository, tmp_path, run_python):
    (workspace / "src").unlink()
    shutil.copytree(repository / "src", tmp_path / "elsewhere/src", ignore=shutil.ignore_patterns("__pycache__"))
    (workspace / "src").symlink_to(tmp_path / "elsewhere/src")
    (workspace / "params.yaml").write_text("fetch: {sample: false}\n")
    done = run_python("stages/fetch.py", cwd=workspace, env={"PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr


def test_a_script_run_by_hand_in_a_fresh_checkout_works(workspace, repository, run_python):
    (workspace / "src").unlink()
    shutil.copytree(repository / "src", workspace / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (workspace / "params.yaml").write_text("fetch: {sample: false}\n")
    done = run_python("stages/fetch.py", cwd=workspace, env={"PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "fetch: fetch.sample is false, the sample corpus is empty"
    assert list((workspace / "data/raw/sample").iterdir()) == []
    assert logging.getLogger("codex_ml") is module.log


def test_compared_numbers_are_a_part_of_all_of_them():
    numbers = {"train": {"rows": 3, "fill": 0.9}, "documents": 5, "languages": {"python": 2}}
    assert chosen(numbers, ["train.rows", "documents", "val.rows", "perplexity"]) == {
        "train": {"rows": 3},
        "documents": 5,
    }
    assert chosen(numbers, []) == {}
