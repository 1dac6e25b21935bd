"""`codex-ml track` sends what evaluation and audit measured, with digests, and a tracker that fails harms nothing."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.json_outputs import output_schema
from codex_ml.cli.main import whole_app
from codex_ml.cli.tracked_results import SentList, results_of
from codex_ml.core.hashing import sha256_of
from codex_ml.core.plugins import registered
from codex_ml.core.record import record_path
from codex_ml.core.side_note import SideNote
from codex_ml.inference.audit_files import Audit

from ..json_schema_checker import problems

RUN = "20260131-120000-0a1b2c"
RECIPE = "0123456789abcdef"
MODEL = "5" * 64
DEPS = {
    "models/model": MODEL,
    "data/policy.yaml": "6" * 64,
    "src/codex_ml/core": "7" * 64,
    "stages/evaluate.py": "8" * 64,
}
MODEL_TEXT = f"models/model@sha256:{MODEL}"
ARTIFACTS = f"data/policy.yaml@sha256:{'6' * 64} {MODEL_TEXT}"
TRAINING = {
    **{"seed": 7, "rows_a_step": 8, "seq_len": 64, "global_step": 600, "stopped_early": False, "skipped_steps": 0},
    **{"micro_batch_size": 8, "processes": [1], "continued": [], "tokenizer": "byte-level BPE"},
    "model": {
        **{"architecture": "llama", "encoder_decoder": False, "layers": 1, "hidden_size": 16, "heads": 2},
        **{"positions": 64, "base": None, "lora": None, "quantization": "none"},
    },
    "optimizer": {"name": "adamw", "lr": 0.1, "embedding_lr": None},
    "hardware": {"device": "cpu", "precision": "fp32", "compile": False, "threads": 1},
}


class Shelf:
    """A tracker of a package that takes results."""

    got: list[tuple[Path, str, dict]]

    def __init__(self, fails: BaseException | None = None) -> None:
        self.got, self.fails = [], fails

    def add_results(self, folder: Path, run_name: str, results: dict) -> None:
        print("said by the library")
        if self.fails:
            raise self.fails
        self.got.append((folder, run_name, results))


def write(path: str, value: object) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(value))


def note(stage: str, folder: str, **resolved: str) -> None:
    known = dict.fromkeys(("python", "system", "cpu", "driver"), "")
    SideNote(
        format="codex-ml/environment/1", run=RUN, stage=stage, record=sha256_of(record_path(stage)), commit="c" * 40,
        dirty=True, cores=2, gpus=[], packages={}, resolved=resolved, **known,
    ).write(Path(folder) / f"{stage}.json")  # fmt: skip


@pytest.fixture
def measured(workspace, monkeypatch):
    """A workspace after the safety audit; the module `sys` installs no hook that would outlive the test."""
    monkeypatch.setattr(sys, "addaudithook", lambda hook: None)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    for stage in ("train", "evaluate", "safety_audit"):
        deps = {path: {"md5": "0" * 32, "sha256": digest, "size": 1} for path, digest in DEPS.items()}
        environment = {"python": "3.11.7", "machine": "x86_64", "threads": 1, "packages": {}}
        write(f"reports/{stage}/lineage.json", {
            "schema": "codex-ml/lineage/1", "stage": stage, "command": "", "params": {"seed": 7}, "deps": deps,
            "environment": environment,
        })  # fmt: skip
        note(stage, "logs/environment", **({"recipe": RECIPE} if stage == "train" else {}))
    write("models/model/training.json", TRAINING)
    write("reports/evaluate/metrics.json", {
        "bits_per_byte": 1.5, "documents": 13, "lossy": {"reason": "text"}, "flag": True,
        "code/../é x": {"pass_at_1": 0.25, "..": 1, "none": None},
    })  # fmt: skip
    write("reports/safety_audit/metrics.json", {"gates": {"fail": 1}})
    audit = Audit(
        verdict="fail", sentence="", model=MODEL, size="small", confidence=0.95, seed=7, gates=[], accepted=0, parts={}
    )
    audit.write(Path("reports/safety_audit/audit.json"))
    return workspace


def with_trackers(*names: str) -> None:
    file = Path("params.yaml")
    text = "".join(line for line in file.read_text().splitlines(keepends=True) if not line.startswith("  trackers:"))
    changed = re.sub(r"(?m)^runtime:.*\n", f"runtime:\n  trackers: [{', '.join(names)}]\n", text)
    assert changed != text
    file.write_text(changed)


def run(*arguments: str):
    return CliRunner().invoke(whole_app(), ["track", *arguments])


def test_a_tracker_gets_numbers_digests_runs_commit_and_verdict_under_the_name_of_the_training(measured):
    shelf = Shelf()
    with registered("trackers", "shelf", shelf):
        with_trackers("shelf")
        done = run("--json")
    assert done.exit_code == 0, done.stderr
    assert problems(json.loads(done.stdout), output_schema("track")) == []
    assert SentList.model_validate_json(done.stdout).model_dump() == {
        "run": RECIPE,
        "sent": [
            {"stage": "evaluate", "tracker": "shelf", "numbers": 4, "failed": ""},
            {"stage": "safety_audit", "tracker": "shelf", "numbers": 1, "failed": ""},
        ],
    }
    commit = "c" * 40 + "+changes"
    tags = {"run": RUN, "experiment": "workspace", "seed": "7", "commit": commit, "step": 600}
    folder = Path("logs/train/shelf")
    assert shelf.got == [
        (folder, RECIPE, {
            **tags, "kind": "evaluation",
            "evaluation/bits_per_byte": 1.5, "evaluation/documents": 13.0,
            "evaluation/code/_/_ x/pass_at_1": 0.25, "evaluation/code/_/_ x/_": 1.0,
            "evaluation/model": MODEL_TEXT, "evaluation/artifacts": ARTIFACTS,
            "evaluation/run": RUN, "evaluation/commit": commit,
        }),
        (folder, RECIPE, {
            **tags, "kind": "audit", "audit/gates/fail": 1.0, "audit/verdict": "fail",
            "audit/model": MODEL_TEXT, "audit/artifacts": ARTIFACTS, "audit/run": RUN, "audit/commit": commit,
        }),
    ]  # fmt: skip


def test_one_stage_is_shown_for_people_and_a_tracker_without_results_is_no_failure(measured):
    with registered("trackers", "shelf", Shelf()), registered("trackers", "plain", object()):
        with_trackers("shelf", "plain")
        done = run("--stage", "evaluate")
    assert (done.exit_code, done.stdout.splitlines()) == (0, [
        f"evaluate  shelf: 4 numbers in the run {RECIPE}",
        "evaluate  plain: it takes no results",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (RuntimeError("no\nspace \x1b[2J"), "RuntimeError: no space \\x1b[2J"),
        (SystemExit("bye"), "SystemExit: bye"),
    ],
    ids=["error", "exit"],
)
def test_a_tracker_that_fails_does_not_keep_the_others_from_their_metrics(measured, failure, why):
    first, last = Shelf(failure), Shelf()
    with registered("trackers", "first", first), registered("trackers", "last", last):
        with_trackers("first", "last")
        done = run("--stage", "evaluate")
    assert len(last.got) == 1
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == f"error: not all metrics were sent; evaluate to first: {why}"


def test_the_note_of_another_training_names_no_run(measured):
    write(
        "logs/environment/train.json",
        {**json.loads(Path("logs/environment/train.json").read_text()), "record": "9" * 64},
    )
    shelf = Shelf()
    with registered("trackers", "shelf", shelf):
        with_trackers("shelf")
        assert run("--stage", "evaluate").exit_code == 0
    ((_, name, results),) = shelf.got
    assert name == "model-" + "5" * 16
    assert results["commit"] == "none"


def test_an_experiment_that_only_measures_adds_to_the_run_of_its_training(measured, monkeypatch):
    Path("logs/environment/train.json").unlink()
    note("train", "logs/experiments/sour-tea/environment", recipe=RECIPE)
    assert results_of("evaluate").tags["run"] == RUN
    note("train", "logs/experiments/sour-tea/environment", recipe="../../elsewhere")
    shelf = Shelf()
    with registered("trackers", "shelf", shelf):
        with_trackers("shelf")
        run("--stage", "evaluate")
    assert shelf.got[0][1] == "model-" + "5" * 16


@pytest.mark.parametrize(
    ("trackers", "arguments", "message"),
    [
        ((), (), "params.yaml: runtime.trackers names no tracker; docs/tracking.md lists them"),
        (("shelf",), ("--stage", "train"), "--stage: expected evaluate or safety_audit; found 'train'"),
        (("mlflow",), (), "runtime.trackers: mlflow is not installed; "),
    ],
)
def test_misuse_is_one_line(measured, monkeypatch, trackers, arguments, message):
    monkeypatch.setattr("codex_ml.train.trackers.find_spec", lambda name: None)
    with registered("trackers", "shelf", Shelf()):
        with_trackers(*trackers)
        done = run(*arguments)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("reports/evaluate/metrics.json", "{", "reports/evaluate/metrics.json"),
        ("reports/evaluate/lineage.json", "{}", "reports/evaluate/lineage.json: "),
        ("models/model/training.json", "[]", "models/model/training.json: expected a JSON object"),
        ("reports/safety_audit/audit.json", "", "reports/safety_audit/audit.json"),
    ],
)
def test_a_damaged_file_is_one_line_and_nothing_is_sent(measured, file, text, message):
    Path(file).write_text(text)
    shelf = Shelf()
    with registered("trackers", "shelf", shelf):
        with_trackers("shelf")
        done = run()
    assert (done.exit_code, done.stderr.count("\n"), shelf.got) == (2, 1, [])
    assert done.stderr.startswith(f"error: {message}")


def test_a_stage_that_has_not_run_is_named(measured):
    Path("reports/safety_audit/lineage.json").unlink()
    with registered("trackers", "shelf", Shelf()):
        with_trackers("shelf")
        assert "dvc repro safety_audit" in run().stderr
        assert run("--stage", "evaluate").exit_code == 0
