"""The stage scripts alone, without DVC: what they print, what they refuse, and that coverage sees them."""

from __future__ import annotations

import re
from pathlib import Path

from workspace import MAIN, Finished, Workspace

from codex_ml.core.pipeline import load_pipeline
from codex_ml.core.record import Record
from codex_ml.documents.ingest_files import IngestDetails
from codex_ml.documents.split_files import BenchmarkOverlap, Leakage, Manifest, PolicyFinding, SplitMetrics
from codex_ml.inference.audit_files import Audit, AuditFinding, GeneratedSample
from codex_ml.inference.code_files import JudgedSample
from codex_ml.inference.evaluate_files import Evaluation
from codex_ml.modeling.canary_files import CanaryList
from codex_ml.modeling.pack_files import PackDetails, Packed
from codex_ml.modeling.train_files import Training, TrainMetrics
from codex_ml.tokens.tokenizer_files import TokenizerDetails

NAMES = ["fetch", "ingest", "split", "tokenizer", "pack", "train", "evaluate", "safety_audit", "report"]


def test_a_script_before_its_inputs_are_there_says_in_one_line_what_makes_them(pipeline: Workspace) -> None:
    """The report reads what all others write; that each script alone runs is in test_interruption."""
    pipelines = load_pipeline(pipeline.root / "dvc.yaml")
    read = set(pipelines["report"].deps)
    for name in NAMES[:-1]:
        gone = next(iter(sorted(read & set(pipelines[name].outs))), None)
        assert gone, name
        (pipeline.root / gone).rename(pipeline.root / "gone")
        early = pipeline.run("python", "stages/report.py", check=False)
        (pipeline.root / "gone").rename(pipeline.root / gone)
        assert (early.returncode, early.stderr.count("\n")) == (2, 1), early.stderr
        assert f"{gone} is missing" in early.stderr


def _stage(workspace: Workspace, name: str) -> str:
    done = workspace.run("python", f"stages/{name}.py", check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_bad_parameter_ends_every_stage_with_one_line_and_untouched_outputs(pipeline: Workspace) -> None:
    pipeline.edit("params.yaml", "  lr: 3e-3", "  lr: -3e-3")
    before = {path: path.stat().st_mtime_ns for path in pipeline.root.glob("models/**/*")}
    for name in ("train", "report"):
        assert _stage(pipeline, name).startswith("error: params.yaml:14: train.lr: ")
    assert {path: path.stat().st_mtime_ns for path in pipeline.root.glob("models/**/*")} == before


def test_a_model_that_cannot_fit_is_refused_before_any_work(pipeline: Workspace) -> None:
    """By `check`, and by the stage itself, which `dvc repro` runs without `check`."""
    pipeline.edit(
        "params.yaml", "hidden_size: 16, intermediate_size: 32, layers: 1,", "hidden_size: 65536, layers: 1024,"
    )
    before = {path: path.stat().st_mtime_ns for path in pipeline.root.glob("models/**/*")}
    line = r"train needs at least [\d,]+\.\d GiB of memory \(.*\), and this machine has [\d,]+\.\d GiB; "
    assert re.match(f"error: params.yaml: {line}", pipeline.cli("check", check=False).stderr.splitlines()[-1])
    assert re.match(f"error: {line}", _stage(pipeline, "train"))
    assert {path: path.stat().st_mtime_ns for path in pipeline.root.glob("models/**/*")} == before


def test_bad_parameter_under_dvc_tells_how_to_get_the_outputs_back(pipeline: Workspace) -> None:
    pipeline.edit("params.yaml", "bootstrap: 100", "bootstrap: 1")
    failed = pipeline.dvc("repro", check=False)
    assert failed.returncode != 0
    assert "mend this, and `dvc repro` brings them back" in failed.stderr
    assert not (pipeline.root / "reports/evaluate/metrics.json").exists()
    pipeline.edit("params.yaml", "bootstrap: 1", "bootstrap: 100")
    assert "Stage 'evaluate' is cached - skipping run" in pipeline.dvc("repro").stdout
    assert pipeline.run("git", "status", "--porcelain").stdout == ""


def test_empty_source_and_corrupt_wheel_are_told(pipeline: Workspace) -> None:
    sample = pipeline.root / "data/raw/sample"
    wheel = sorted(sample.iterdir())[0]
    good = wheel.read_bytes()
    wheel.write_bytes(good[: len(good) // 2])
    assert wheel.name in _stage(pipeline, "ingest")
    for file in sample.iterdir():
        file.unlink()
    assert "data/raw/sample has no wheel" in _stage(pipeline, "ingest")
    assert "documents.parquet" in {file.name for file in (pipeline.root / "data/corpus").iterdir()}


def test_script_from_another_folder_and_foreign_library_are_refused(pipeline: Workspace, tmp_path: Path) -> None:
    script = str(pipeline.root / "stages/split.py")
    elsewhere = Workspace(tmp_path, pipeline.wheels)
    assert "run stages from the repository's top folder" in elsewhere.run("python", script, check=False).stderr
    pipeline.edit("stages/split.py", 'parents[1] / "src"', 'parents[1] / "nothing"')
    foreign = Workspace(pipeline.root, pipeline.wheels, {"PYTHONPATH": str(Path(__file__).parents[2] / "src")})
    refused = foreign.run("python", "stages/split.py", check=False)
    assert refused.returncode == 1
    assert "not the one of this checkout" in refused.stderr


def test_import_that_is_not_declared_stops_the_stage(pipeline: Workspace) -> None:
    pipeline.edit(
        "stages/split.py",
        "    from codex_ml.core.io import",
        "    import codex_ml.cli.hooks\n    from codex_ml.core.io import",
    )
    failed = pipeline.run("python", "stages/split.py", check=False)
    assert failed.returncode == 1
    assert re.search(r"^error: split imported .*\bsrc/codex_ml/cli/hooks\.py", failed.stderr, re.MULTILINE)
    assert ": add its folder to the stage's deps in dvc.yaml" in failed.stderr


def test_only_fetch_may_open_a_socket(pipeline: Workspace) -> None:
    call = "    import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)\n"
    pipeline.edit("stages/split.py", MAIN, MAIN + call)
    refused = pipeline.run("python", "stages/split.py", check=False)
    assert refused.returncode == 1
    assert "this run tried to reach '192.0.2.1'; only fetch may use the network" in refused.stderr


def test_failed_audit_ends_the_run_only_on_request(pipeline: Workspace) -> None:
    """A secret in the training data fails a gate. The run of `pipeline` itself went on, and its verdict is not a pass."""
    params = (pipeline.root / "params.yaml").read_text(encoding="utf-8")
    assert "on_fail" not in params  # the default, warn
    assert Audit.read(pipeline.root / "reports/safety_audit/audit.json").verdict != "pass"
    assert (pipeline.root / "reports/report/index.html").is_file()
    plant = (
        "    import codex_ml.safety_audit.split_scan as split_scan\n"
        "    from codex_ml.inference.audit_files import AuditFinding\n"
        "    place = dict(source='s', path='p', line=1, column=1)\n"
        "    split_scan._findings = lambda job, document, number: [AuditFinding(\n"
        "        id='0', number='data.secrets', kind='jwt', severity='high', **place)]\n"
    )
    pipeline.edit("stages/safety_audit.py", MAIN, MAIN + plant)
    pipeline.edit("params.yaml", "sample_tokens: 16", "sample_tokens: 16, on_fail: stop")
    done = pipeline.run("python", "stages/safety_audit.py", check=False)
    assert "safety_audit: fail    No secret or personal data in the training data" in done.stderr
    assert done.returncode == 1
    assert "the safety audit is fail" in done.stderr


def test_the_audit_refuses_an_acceptance_that_has_ended_before_any_work(pipeline: Workspace) -> None:
    entry = '- id: "0123456789ab"\n  reason: a test key\n  expires: 2020-01-31\n'
    (pipeline.root / "data/accepted_findings.yaml").write_text(entry)
    for refused in (pipeline.run("python", "stages/safety_audit.py", check=False), pipeline.cli("check", check=False)):
        assert refused.returncode == 1
        assert refused.stderr.splitlines()[-1] == (
            "error: data/accepted_findings.yaml: finding 0123456789ab was accepted until 2020-01-31 (a test key); review "
            "it again, then remove the entry or give it a new day"
        )


FILES = {
    "reports/ingest/details.json": IngestDetails,
    "reports/split/manifest.json": Manifest,
    "reports/split/leakage.json": Leakage,
    "reports/split/metrics.json": SplitMetrics,
    "reports/tokenizer/details.json": TokenizerDetails,
    "data/packed/canaries.json": CanaryList,
    "data/packed/pack.json": Packed,
    "reports/pack/details.json": PackDetails,
    "models/model/training.json": Training,
    "reports/evaluate/details.json": Evaluation,
    "reports/safety_audit/audit.json": Audit,
}
LINES = {
    "data/splits/findings.ndjson": PolicyFinding,
    "data/splits/overlaps.ndjson": BenchmarkOverlap,
    "reports/evaluate/results/code_samples.ndjson": JudgedSample,
    "reports/safety_audit/findings.ndjson": AuditFinding,
    "reports/safety_audit/samples.ndjson": GeneratedSample,
}


def test_each_file_that_crosses_a_border_is_what_its_class_says(finished: Finished, tmp_path: Path) -> None:
    """Of a real run: read by the class and written by it, each file has the same bytes."""
    root, again = finished.workspace.root, tmp_path / "again"
    for name, kind in FILES.items():
        kind.read(root / name).write(again)
        assert again.read_bytes() == (root / name).read_bytes(), name
    for name in (f"reports/{stage}/lineage.json" for stage in NAMES):
        Record.read(root / name).write(again)
        assert again.read_bytes() == (root / name).read_bytes(), name
    for name, kind in LINES.items():
        kind.write_lines(again, kind.read_lines(root / name))
        assert again.read_bytes() == (root / name).read_bytes(), name
    assert TrainMetrics.read(root / "reports/train/metrics.json").step == 60
