"""The template package as a wheel in an environment of its own: real commands and stages use each kind."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from codex_ml.core.plugins import KINDS

ROOT = Path(__file__).parents[2]
PARAMS = """\
seed: 3
fetch: {sample: false, benchmarks: false}
ingest: {sources: [{kind: blocks, path: data/raw/mine, licence: MIT}, {kind: jsonl, path: data/raw/records.jsonl}]}
split: {val: 0.1, test: 0.15, licences: [MIT], ledger: false, augment: [shout]}
tokenizer: {kind: bytes, vocab_size: 300}
pack: {seq_len: 64, template: question, canaries: {plant: never}}
model: {preset: nano, architecture: olmo2, layers: 1}
train: {max_steps: 4, micro_batch_size: 4, eval_every: 2, eval_rows: 8, checkpoint_every: 2, threads: 1, compile: "off", warmup_steps: 1}
evaluate: {bootstrap: 100, metrics: [perplexity, first_line], completions: {documents: 4, max_tokens: 8}}
safety_audit: {windows: 20, prefix_tokens: 12, suffix_tokens: 8, samples: 4, sample_tokens: 16}
report: {}
runtime: {device: cpu, trackers: [lines], on_event: [{plugin: to_file, events: [stage_finished], seconds: 60}]}
"""
BUILD = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
# Name -> code and entry points of a package that is of no use. "twin" is a name of both, and "chrf" is built in.
BROKEN = {
    "broken": ("raise ImportError('no such\\nlibrary')\n", {"metrics": ("bad", "twin")}),
    "odd": ("bad = odd = twin = chrf = 'text'\n", {"metrics": ("twin", "chrf"), "readers": ("odd",)}),
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment that sees the packages of this one, with the wheels of the template and of BROKEN."""
    folder = tmp_path_factory.mktemp("wheels")
    sources = [folder / "source"]
    shutil.copytree(ROOT / "examples/plugin", sources[0])
    for name, (code, kinds) in BROKEN.items():
        sources.append(folder / name)
        module = folder / name / "src" / name / "__init__.py"
        module.parent.mkdir(parents=True)
        module.write_text(code)
        points = "".join(
            f'[project.entry-points."codex_ml.{kind}"]\n' + "".join(f'{point} = "{name}:{point}"\n' for point in names)
            for kind, names in kinds.items()
        )
        (folder / name / "pyproject.toml").write_text(f'{BUILD}[project]\nname = "{name}"\nversion = "0.1"\n{points}')
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (inside,) = (environment / "lib").glob("python*/site-packages")
    (inside / "others.pth").write_text("\n".join(path for path in site.getsitepackages() if path) + "\n")
    for package in sources:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist"]
        subprocess.run(command, cwd=package, check=True, capture_output=True)
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        environment / "bin/python",
        "install",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*install, *(folder / "dist").glob("*.whl")], check=True, capture_output=True)
    return environment / "bin/python"


@pytest.fixture
def run(python: Path, workspace: Path):
    """run(words): the output of a command of the new environment in a workspace."""
    shutil.copytree(ROOT / "stages", workspace / "stages", dirs_exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV"))}

    def run(*words: str, fails: bool = False) -> str:
        done = subprocess.run(
            [python, *words], env={**environment, "PYTHONPATH": "src"}, capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return run


def run_of(workspace: Path, stage: str) -> str:
    """The run id of a stage's only run: every line of its log and its side note have it."""
    lines = [json.loads(line) for line in (workspace / f"logs/{stage}.ndjson").read_text().splitlines()]
    note = json.loads((workspace / f"logs/environment/{stage}.json").read_text())
    assert {line["run"] for line in lines} == {note["run"]}
    assert lines[-1]["event"] == "stage_finished"
    return note["run"]


@pytest.mark.slow
def test_every_kind_of_the_wheel_works_in_the_real_stages(run, workspace):
    found = json.loads(run("-m", "codex_ml", "plugins", "list", "--json"))["plugins"]
    states = {(plugin["kind"], plugin["name"]): (plugin["state"], plugin["why"]) for plugin in found}
    twins = [(p["state"], p["why"]) for p in found if p["name"] == "twin"]
    assert twins == [
        ("collision", f"{other} 0.1 offers the same name; uninstall all but one") for other in ("odd", "broken")
    ]
    del states["metrics", "twin"]
    assert states.pop(("metrics", "bad")) == ("failed", "ImportError: no such library")
    assert states.pop(("metrics", "chrf")) == ("shadowed", "the built-in metric of this name is used instead")
    assert states.pop(("readers", "odd")) == ("failed", "must be a callable, found str")
    assert {kind for kind, _ in states} == set(KINDS) and set(states.values()) == {("loaded", "")}

    folder = workspace / "data/raw/mine"
    folder.mkdir(parents=True)
    texts = [f"note {number} says alpha{number} beta{number} gamma{number} delta{number}\n" for number in range(60)]
    (folder / "a.txt").write_text("---\n".join([*texts, "ticket ABC-1234 is about w x y z\n"]))
    records = [{"prompt": f"say p{n} q{n} r{n}", "completion": f"s{n} t{n} u{n}", "licence": "MIT"} for n in range(60)]
    (workspace / "data/raw/records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (workspace / "params.yaml").write_text(PARAMS)
    policy = workspace / "data/policy.yaml"
    policy.write_text(policy.read_text().replace("detectors: []", "detectors: [tickets]"))
    assert "data/presets.lock does not have the preset 'nano'" in run("stages/fetch.py", fails=True)
    assert "holds 1 readers" in run("-m", "codex_ml", "plugins", "lock")
    run("stages/fetch.py")
    readers = workspace / "data/readers.lock"
    locked = readers.read_bytes()
    readers.write_text("readers: []\n")
    assert "data/readers.lock does not have the reader 'blocks'" in run("stages/ingest.py", fails=True)
    readers.write_bytes(locked)
    for stage in ("ingest", "split", "tokenizer", "pack", "train", "evaluate"):
        run(f"stages/{stage}.py")

    assert json.loads((workspace / "reports/ingest/details.json").read_text())["documents"] == 121
    assert '"rule": "ticket"' in (workspace / "data/splits/findings.ndjson").read_text()
    assert json.loads((workspace / "data/splits/augmented.json").read_text()) == {"shout": {"copies": 0}}  # no Python
    assert json.loads((workspace / "models/tokenizer/kind.json").read_text()) == {"kind": "bytes"}
    packed = json.loads((workspace / "data/packed/pack.json").read_text())
    assert packed["template"]["prompt"] == "Question: {instruction}\nAnswer: "
    training = json.loads((workspace / "models/model/training.json").read_text())
    assert training["template"] == packed["template"]
    shape = training["model"]
    assert (shape["architecture"], shape["hidden_size"], shape["layers"]) == ("olmo2", 32, 1)
    (tracked,) = (workspace / "logs/train/lines").glob("*.ndjson")
    tags = json.loads(tracked.read_text().splitlines()[1])["tags"]
    assert tags == {"run": run_of(workspace, "train"), "experiment": "workspace", "seed": "3", "commit": "none"}
    sent = json.loads(tracked.with_suffix(".evaluation.json").read_text())
    bits = json.loads((workspace / "reports/evaluate/metrics.json").read_text())["perplexity"]
    assert (sent["kind"], sent["step"], sent["evaluation/perplexity"]) == ("evaluation", training["global_step"], bits)
    assert (sent["run"], sent["evaluation/run"]) == (tags["run"], run_of(workspace, "evaluate"))
    resolved = json.loads((workspace / "logs/environment/train.json").read_text())["resolved"]
    assert resolved.pop("capability")
    assert resolved == {
        **{"device": "cpu", "precision": resolved["precision"], "compile": False, "threads": 1, "attention": "eager"},
        "recipe": tracked.stem,
    }
    alerts = (workspace / "logs/alerts.txt").read_text().splitlines()
    assert [line.split(": ")[:2] for line in alerts[-2:]] == [["stage_finished", s] for s in ("train", "evaluate")]
    details = json.loads((workspace / "reports/evaluate/details.json").read_text())
    assert [(p["name"], p["distribution"]) for p in details["plug_ins"]] == [("first_line", "codex-ml-example")]
    deps = json.loads((workspace / "reports/pack/lineage.json").read_text())["deps"]
    assert "data/templates.lock" in deps
    entries = yaml.safe_load((workspace / "data/templates.lock").read_text())["templates"]
    assert [(entry["name"], entry["version"]) for entry in entries] == [("question", "1.0")]
