"""One command, the same bytes, and nothing twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from workspace import Finished, Workspace, commit

from codex_ml.core.hashing import hash_path
from codex_ml.core.import_graph import ImportGraph
from codex_ml.core.pipeline import load_lock, load_pipeline
from codex_ml.core.strict_json import parse_json
from codex_ml.inference.audit_files import Audit, AuditFinding
from codex_ml.safety_audit.audit_job import PartResult
from codex_ml.safety_audit.audit_numbers import undeclared

STAGES = ["fetch", "ingest", "split", "tokenizer", "pack", "train", "evaluate", "safety_audit", "report"]


def ran(output: str) -> list[str]:
    return re.findall(r"^Running stage '(\w+)'", output, re.MULTILINE)


def test_one_command_runs_all_nine_stages(finished: Finished) -> None:
    assert ran(finished.printed) == STAGES
    for spec in load_pipeline(finished.workspace.root / "dvc.yaml").values():
        for out in spec.outs:
            assert (finished.workspace.root / out).exists(), out


def test_status_is_clean_and_a_second_run_does_nothing(finished: Finished) -> None:
    assert "Data and pipelines are up to date" in finished.workspace.dvc("status").stdout
    assert ran(finished.workspace.dvc("repro").stdout) == []


def test_our_hashes_are_those_of_dvc(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.workspace.root)  # where .dvcignore is
    for locked in load_lock(Path("dvc.lock")).values():
        for path, md5 in {**locked.deps, **locked.outs}.items():
            assert hash_path(Path(path)).md5 == md5, path


@pytest.mark.parametrize("stages", [STAGES[:5], pytest.param(STAGES, marks=pytest.mark.slow)], ids=["data", "all"])
def test_forced_rerun_at_another_path_leaves_the_lock_byte_identical_also_where_results_are_links(
    pipeline: Workspace, stages: list[str]
) -> None:
    """The first run was with files. With cache.type symlink DVC makes every result a link into the cache."""
    before = pipeline.lock
    pipeline.dvc("config", "--local", "cache.type", "symlink")
    pipeline.dvc("checkout", "--relink")
    assert (pipeline.root / "models/model/model.safetensors").is_symlink()
    assert (pipeline.root / "data/raw/sample").is_dir()
    assert "links hold" in pipeline.cli("verify").stdout
    assert ran(pipeline.dvc("repro", "--force", stages[-1]).stdout) == stages
    assert pipeline.lock == before
    assert (pipeline.root / "models/model/model.safetensors").is_symlink()
    assert pipeline.run("git", "status", "--porcelain").stdout == ""
    assert "up to date" in pipeline.dvc("status").stdout


def test_nothing_in_the_outputs_names_this_machine(finished: Finished) -> None:
    root = finished.workspace.root
    for spec in load_pipeline(root / "dvc.yaml").values():
        for out in spec.outs:
            files = [root / out] if (root / out).is_file() else [f for f in (root / out).rglob("*") if f.is_file()]
            for file in files:
                assert finished.made_in.encode() not in file.read_bytes(), file


def test_every_json_output_is_strict(finished: Finished) -> None:
    files = [*finished.workspace.root.glob("reports/*/*.json"), *finished.workspace.root.glob("models/*/*.json")]
    assert len(files) > 15
    for file in files:
        parse_json(file.read_bytes())


def test_declared_deps_are_the_imports(finished: Finished) -> None:
    root = finished.workspace.root
    imports = ImportGraph(root)
    for name, spec in load_pipeline(root / "dvc.yaml").items():
        assert set(spec.code) == {f"stages/{name}.py", *imports.folders(Path(f"stages/{name}.py"))}


def test_early_cutoff_an_edit_that_changes_no_data_retrains_nothing(pipeline: Workspace) -> None:
    pipeline.edit("src/codex_ml/ingest/readers/archives.py", "What the readers", "All that the readers")
    assert ran(pipeline.dvc("repro").stdout) == ["ingest", "report"]  # the report tells which code ran
    assert "links hold" in pipeline.cli("verify").stdout


def stale(workspace: Workspace) -> set[str]:
    """Stages of which DVC says that something they read has changed."""
    return set(parse_json(workspace.dvc("status", "--json").stdout))


def comment(workspace: Workspace, name: str) -> None:
    with (workspace.root / name).open("a", encoding="utf-8") as file:
        file.write("# a comment\n")


def test_an_edit_in_the_schema_of_split_reruns_split_and_trains_no_model_whose_data_stay(pipeline: Workspace) -> None:
    comment(pipeline, "src/codex_ml/split/config.py")
    assert stale(pipeline) == {"split"}
    assert ran(pipeline.dvc("repro", "split").stdout) == ["split"]
    assert stale(pipeline) == {"report"}


def test_an_edit_in_evaluate_trains_nothing_and_what_editors_leave_makes_no_stage_stale(pipeline: Workspace) -> None:
    for folder in ("core", "train", "ingest/readers"):
        for name in (".io.py.swp", "io.py~", "#io.py#", "io.py.orig", ".DS_Store", "__pycache__/io.cpython-311.pyc"):
            file = pipeline.root / "src/codex_ml" / folder / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"\0noise")
        (pipeline.root / "src/codex_ml" / folder / ".#io.py").symlink_to("user@host.1:2")
    assert stale(pipeline) == set()
    assert "links hold" in pipeline.cli("verify").stdout
    assert pipeline.cli("check").returncode == 0
    comment(pipeline, "src/codex_ml/evaluate/summary.py")
    assert stale(pipeline) == {"evaluate"}


def test_runtime_keys_rerun_nothing(pipeline: Workspace) -> None:
    pipeline.edit("params.yaml", "runtime: {device: cpu}", "runtime: {device: cpu, progress: off, keep_checkpoints: 5}")
    assert ran(pipeline.dvc("repro").stdout) == []


def test_model_folder_is_plain_hugging_face(finished: Finished) -> None:
    """Other tools load it without this library, also `pipeline("text-generation")`."""
    code = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
model = AutoModelForCausalLM.from_pretrained("models/model", trust_remote_code=False)
tokenizer = AutoTokenizer.from_pretrained("models/model")
text = "def main():\\n    return  1 , <|endoftext|> ünï\\n"
generate = pipeline("text-generation", model="models/model")
out = generate("import ", max_new_tokens=8, do_sample=False)[0]["generated_text"]
lossless = tokenizer.decode(tokenizer(text)["input_ids"]) == text
same_end = tokenizer.eos_token_id == model.config.eos_token_id
print(json.dumps([type(model).__name__, lossless, out.startswith("import "), same_end, "codex_ml" in sys.modules]))
"""
    finished.workspace.extra["HF_HUB_OFFLINE"] = "1"
    printed = finished.workspace.run("python", "-c", code).stdout
    assert json.loads(printed.splitlines()[-1]) == ["LlamaForCausalLM", True, True, True, False]


def test_pipeline_gate_passes_when_up_to_date_and_names_what_is_not(pipeline: Workspace) -> None:
    assert pipeline.cli("hook", "pipeline").returncode == 0
    pipeline.edit("params.yaml", "bootstrap: 100", "bootstrap: 200")
    refused = pipeline.cli("hook", "pipeline", check=False)
    assert refused.returncode == 1
    assert "evaluate" in refused.stderr
    assert "train" not in refused.stderr


@pytest.mark.parametrize("command", [["metrics", "show", "--json"], ["plots", "diff", "--json"], ["params", "diff"]])
def test_dvc_reads_what_we_declare(finished: Finished, command: list[str]) -> None:
    done = finished.workspace.dvc(*command)
    if "--json" in command:
        shown = parse_json(done.stdout)
        assert not any("error" in str(key) for key in shown.get("", {})), shown
    assert "failed" not in done.stderr.lower()


def test_own_data_replaces_the_sample(pipeline: Workspace) -> None:
    """A user with JSON Lines sets two keys; no download happens."""
    lines = [
        json.dumps({"text": f"record {i}: " + " ".join(f"word{i * 7 + j}" for j in range(40)), "licence": "MIT"})
        for i in range(60)
    ]
    (pipeline.root / "data/raw/own.jsonl").write_text("\n".join(lines), encoding="utf-8")
    pipeline.edit("params.yaml", "fetch: {sample: true", "fetch: {sample: false")
    pipeline.edit("params.yaml", "{kind: wheels, path: data/raw/sample}", "{kind: jsonl, path: data/raw/own.jsonl}")
    pipeline.edit("params.yaml", "windows: 20, prefix_tokens: 12", "windows: 20, prefix_tokens: 10")
    pipeline.cli("check")
    assert ran(pipeline.dvc("repro", "pack").stdout) == STAGES[:5]
    commit(pipeline, "own data")
    assert list((pipeline.root / "data/raw/sample").iterdir()) == []
    assert re.search(
        r"^ +dep +data/raw  [0-9a-f]{32}", pipeline.cli("lineage", "data/packed", "--all").stdout, re.MULTILINE
    )


def test_the_command_audit_gives_the_result_of_the_stage_byte_by_byte(finished: Finished, tmp_path: Path) -> None:
    root, out = finished.workspace.root, tmp_path / "audit"
    splits = ("--train", "data/splits/train.parquet", "--held-out", "data/splits/test.parquet")
    done = finished.workspace.cli("audit", "--model", "models/model", *splits, "--out", str(out), check=False)
    verdict = Audit.read(root / "reports/safety_audit/audit.json").verdict
    assert done.returncode == (0 if verdict == "pass" else 1), done.stderr
    made = {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()}
    stage = root / "reports/safety_audit"
    written = {file.relative_to(stage).as_posix(): file.read_bytes() for file in stage.rglob("*") if file.is_file()}
    del written["lineage.json"]
    assert sorted(made) == sorted(name for name in written if not name.endswith(".gitignore"))
    assert [name for name in made if made[name] != written[name]] == []


def test_the_names_that_the_parts_use_are_declared(finished: Finished) -> None:
    """Else a gate could not judge a number, or a control would void nothing."""
    folder = finished.workspace.root / "reports/safety_audit"
    findings = list(AuditFinding.read_lines(folder / "findings.ndjson"))
    parts = Audit.read(folder / "audit.json").parts
    assert set().union(*(undeclared(PartResult(name, part, findings)) for name, part in parts.items())) == set()


def test_the_command_evaluate_gives_the_result_of_the_stage_byte_by_byte(finished: Finished, tmp_path: Path) -> None:
    root, out = finished.workspace.root, tmp_path / "result"
    splits = ("--data", "data/splits/test.parquet", "--train", "data/splits/train.parquet")
    tasks = ("--benchmark", "data/benchmarks/sample/tiny.jsonl.gz")
    finished.workspace.cli("evaluate", "--model", "models/model", *splits, *tasks, "--out", str(out))
    made = {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()}
    stage = root / "reports/evaluate"
    wanted = {file.relative_to(stage).as_posix(): file.read_bytes() for file in stage.rglob("*") if file.is_file()}
    del wanted["lineage.json"]
    assert sorted(made) == sorted(name for name in wanted if not name.endswith(".gitignore"))
    assert [name for name in made if made[name] != wanted[name]] == []
