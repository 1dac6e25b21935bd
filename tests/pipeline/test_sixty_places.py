"""Sixty keys and more, each in another place of the input: none is in anything that the nine stages write or print.

Only data/raw, data/corpus and data/benchmarks hold them: what the user gave, and the corpus, which its owner alone can
read. A second run learns a key by heart, with the policy of `split` switched off, and must not publish it either.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest
from planted_corpus import contents, holding
from sixty_places import SOURCES, Keys, plant
from workspace import Workspace, make_workspace

PARAMS = """\
seed: 3
fetch: {sample: false, benchmarks: false}
INGEST
split:
  val: 0.1
  test: 0.2
  licences: [MIT]
  unknown_licence: keep
  quality: {drop_generated: false, min_alphanumeric_share: null, max_mean_line_length: null}
  benchmarks: [{path: data/benchmarks/own.jsonl.gz}]
  contaminated: report
tokenizer: {vocab_size: 400}
pack: {seq_len: 64, bad_chats: drop, canaries: {plant: always, repetitions: [1, 4], each: [8, 4], controls: 32}}
model: {hidden_size: 32, intermediate_size: 64, layers: 1, heads: 2, max_positions: 64}
train:
  lr: 3e-3
  max_steps: 30
  warmup_steps: 2
  micro_batch_size: 8
  eval_every: 15
  eval_rows: 8
  checkpoint_every: 30
  compile: off
  threads: 1
evaluate:
  bootstrap: 100
  completions: {documents: 8, max_tokens: 24}
  benchmarks: [data/benchmarks/own.jsonl.gz]
  code: {max_tokens: 16}
safety_audit: {windows: 20, prefix_tokens: 12, suffix_tokens: 8, samples: 20, sample_tokens: 48}
report: {}
runtime: {device: cpu, workers: 1}
"""
LEARNT = {
    "max_steps: 30": "max_steps: 400",
    "checkpoint_every: 30": "checkpoint_every: 1000",
    "hidden_size: 32, intermediate_size: 64": "hidden_size: 96, intermediate_size: 192",
    "  licences: [MIT]": "  licences: [MIT]\n  policy: off",
}
GIVEN = ("data/raw", "data/corpus", "data/benchmarks", "data/accepted_findings.yaml", ".dvc/tmp")
WITH_POLICY_OFF = ("data/splits", "data/packed", "models", "cache of models")
FAILING = ("ingest", "split", "tokenizer", "pack", "train", "evaluate", "safety_audit", "report")


@dataclass(frozen=True)
class Run:
    """A workspace after `dvc repro`, the keys in its input, and all that was printed."""

    workspace: Workspace
    keys: Keys
    printed: list[str]

    def run(self, *command: str) -> int:
        done = self.workspace.run(*command, check=False)
        self.printed.extend([f"$ {' '.join(command)}", done.stdout, done.stderr])
        return done.returncode

    def leaks(self, *, leave_out: tuple[str, ...] = GIVEN) -> dict[str, set[str]]:
        """File -> places of the keys that it holds; `printed` is a file too."""
        (self.workspace.root / "printed.txt").write_text("\n".join(self.printed), encoding="utf-8")
        places = {value: place for place, value in self.keys.by_place.items()}
        found = holding(self.workspace.root, places, leave_out=leave_out)
        return {file: {places[value] for value in values} for file, values in found.items()}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The workspace after the stages that read raw data."""
    workspace = make_workspace(tmp_path_factory.mktemp("sixty"))
    keys = plant(workspace)
    (workspace.root / "params.yaml").write_text(PARAMS.replace("INGEST\n", SOURCES), encoding="utf-8")
    made = Run(workspace, keys, [])
    for name in ("fetch", "ingest", "split"):
        assert made.run("python", f"stages/{name}.py") == 0, made.printed[-1]
    return made


@pytest.fixture(scope="module")
def first(planted: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of it after all nine stages."""
    made = Run(planted.workspace.copy(tmp_path_factory.mktemp("nine") / "work"), planted.keys, list(planted.printed))
    assert made.run("python", "-m", "dvc", "repro") == 0, made.printed[-1][-3000:]
    return made


def test_no_key_leaves_the_stages_that_read_raw_data(planted: Run) -> None:
    assert len(planted.keys.by_place) >= 60
    assert planted.leaks() == {}
    everywhere = {place for places in planted.leaks(leave_out=()).values() for place in places}
    assert len(everywhere) >= 50  # else the search would be blind; the rest is in archives and in variables
    shown = [
        (planted.workspace.root / "data/splits" / name).read_text() for name in ("findings.ndjson", "dropped.ndjson")
    ]
    assert all("<SECRET:github-token:" in text for text in shown)


def test_a_stage_refuses_a_key_in_params_before_its_outputs_go(planted: Run) -> None:
    file = planted.workspace.root / "params.yaml"
    text = file.read_text(encoding="utf-8")
    for title, said in ((planted.keys("title of the report"), "the rule github-token"), ("'${oc.env:HOME}'", "${...}")):
        file.write_text(text.replace("report: {}", f"report: {{title: {title}}}"), encoding="utf-8")
        assert planted.run("python", "stages/fetch.py") == 2
        error = planted.printed[-1].splitlines()[-1]
        assert error.startswith("error: params.yaml:") and "report.title holds" in error and said in error
    file.write_text(text, encoding="utf-8")
    assert planted.leaks() == {}


@pytest.mark.slow
def test_no_key_is_in_what_the_nine_stages_write_print_and_log(first: Run) -> None:
    assert first.leaks() == {}
    for name in ("evaluate/results/documents.ndjson", "evaluate/results/groups.csv", "report/index.html"):
        assert "SECRET:github-token:" in (first.workspace.root / "reports" / name).read_text(), name  # names got there


def test_raw_text_is_for_its_owner_only(planted: Run) -> None:
    root = planted.workspace.root
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("data/corpus", ".dvc/cache")}
    assert modes == {"data/corpus": 0o700, ".dvc/cache": 0o700}


@pytest.mark.slow
def test_no_command_shows_a_key(first: Run) -> None:
    cli = "import sys; sys.path.insert(0, 'src'); from codex_ml.cli.main import main; main()"
    for words in (
        ["check"], ["lineage", "models/model"], ["lineage", "models/model", "--json"], ["logs"], ["logs", "--json"],
        ["runs"], ["verify"], ["pack", "show", "--row", "0"], ["pack", "show", "--row", "1", "--json"], ["doctor"],
        ["track", "--help"], ["ledger", "status"],
    ):  # fmt: skip
        first.run("python", "-c", cli, *words)
    assert first.leaks() == {}


@pytest.mark.slow
def test_no_key_is_in_what_failing_stages_print_and_log(first: Run, tmp_path: Path) -> None:
    """Each meets a full disk where it writes; ingest also meets each refused record as the one that ends the run."""
    failing = Run(first.workspace.copy(tmp_path / "fails"), first.keys, [])
    root = failing.workspace.root
    (root / ".cache").rename(tmp_path / "scratch")
    failing.workspace.extra["CODEX_TEST_FAULT"] = "ENOSPC os.rename 1"
    for name in FAILING:
        assert failing.run("python", f"stages/{name}.py") != 0, name
    del failing.workspace.extra["CODEX_TEST_FAULT"]
    text = (root / "params.yaml").read_text(encoding="utf-8")
    for number in range(text.count(", bad_records: skip")):
        pieces = text.split(", bad_records: skip")
        strict = ", bad_records: skip".join(pieces[: number + 1]) + ", bad_records: skip".join(pieces[number + 1 :])
        (root / "params.yaml").write_text(strict, encoding="utf-8")
        failing.run("python", "stages/ingest.py")
    (root / "params.yaml").write_text(text.replace("max_document_bytes: 20000", "max_document_bytes: 1"), "utf-8")
    failing.run("python", "stages/ingest.py", "--debug")
    for old, new in (("stratify", "stratify: nothing"), ("languages", "quality: {languages: {nothing: {}}}")):
        (root / "params.yaml").write_text(text.replace("  val: 0.1\n", f"  val: 0.1\n  {new}\n"), "utf-8")
        failing.run("python", "stages/split.py")
        assert old in new
    (root / "params.yaml").write_text(text, "utf-8")
    (root / os.fsdecode(f"data/raw/tree/{failing.keys('name that is not UTF-8')}".encode() + b"\xff.py")).touch()
    assert failing.run("python", "stages/ingest.py") == 2
    assert failing.leaks() == {}


@pytest.mark.slow
def test_a_model_that_has_learnt_a_key_publishes_none(first: Run, tmp_path: Path) -> None:
    """With `split.policy: off` the text keeps its keys, and so do splits, rows and model; nothing else does."""
    learnt = Run(first.workspace.copy(tmp_path / "learnt"), first.keys, [])
    root = learnt.workspace.root
    for old, new in LEARNT.items():
        learnt.workspace.edit("params.yaml", old, new)
    key = learnt.keys("learnt by heart")
    lines = [
        json.dumps({"text": f"the key of all doors is {key}\n" * 3 + f"{n} " * 20, "licence": "MIT"})
        for n in range(150)
    ]
    (root / "data/raw/records/learnt.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert learnt.run("python", "-m", "dvc", "repro") == 0, learnt.printed[-1][-3000:]
    learnt.workspace.dvc("gc", "--workspace", "--force")
    audit = json.loads((root / "reports/safety_audit/audit.json").read_bytes())
    assert audit["verdict"] == "fail"
    assert audit["parts"]["generated"]["numbers"]["secrets"]["value"] > 0, "the model writes keys"
    assert learnt.leaks(leave_out=(*GIVEN, *WITH_POLICY_OFF)) == {}
    canaries = json.loads((root / "data/packed/canaries.json").read_bytes())
    halves = {
        canary["text"][at : at + 5].encode()
        for canary in (*canaries["planted"], *canaries["controls"])
        for at in range(6)
    }
    for file in (root / "reports").rglob("*"):
        for content in contents(file) if file.is_file() else ():
            assert not [half for half in halves if half in content], file
