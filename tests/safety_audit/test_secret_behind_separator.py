"""Case C055: a key behind a line separator, or spelt with an escape, is gone after `split`, and the audit agrees."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from codex_ml.cli.param_rules import validate_params
from codex_ml.core.pipeline import load_pipeline
from codex_ml.core.stage import Stage
from codex_ml.policy.rules import load_policy
from codex_ml.safety_audit.data_side import data_side
from codex_ml.safety_audit.split_reports import SplitReports

from .byte_audit import audit_job

REPOSITORY = Path(__file__).parents[2]
SPLITS = ("train", "val", "test")
# Made up, of the shape of the policy's one provider; each record has its own.
KEYS = ["gh" + "p_" + letter + "3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1eF3hJ5x" for letter in "BCDE"]


def run(name: str, params: dict[str, Any]) -> None:
    spec = importlib.util.spec_from_file_location(f"stage_{name}", REPOSITORY / f"stages/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    Path("params.yaml").write_text(json.dumps(params), encoding="utf-8")  # JSON is YAML
    parsed = validate_params(params)
    stage = load_pipeline()[name]
    declared = SimpleNamespace(**{section: getattr(parsed, section) for section in stage.params})
    module.main(Stage(stage, declared, parsed.runtime, {}))


def record(key: str, before: str, number: int) -> str:
    words = " ".join(f"w{number}x{i}" for i in range(30))
    return json.dumps({"text": f"{words}{before}token = '{key}'", "licence": "MIT"}, ensure_ascii=False)


@pytest.fixture
def published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: Path, caplog: pytest.LogCaptureFixture
) -> dict[str, str]:
    """All that ingest and split write and log, but data/corpus, as text: name -> content."""
    caplog.set_level(logging.DEBUG)
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    shutil.copyfile(REPOSITORY / "dvc.yaml", tmp_path / "dvc.yaml")
    monkeypatch.chdir(tmp_path)
    lines = [
        record(key, before, number) for number, (key, before) in enumerate(zip(KEYS, "\u2028\x85 \n", strict=True))
    ]
    lines[2] = lines[2].replace("gh" + "p_", "\\u0067hp\\u005f")  # the same text to whoever reads JSON
    lines += [json.dumps({"text": " ".join(f"f{n}y{i}" for i in range(30)), "licence": "MIT"}) for n in range(40)]
    raw = Path("data/raw/own")
    raw.mkdir(parents=True)
    (raw / "records.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    sources = [{"kind": "jsonl", "path": str(raw), "name": "own"}]
    split = {"licences": ["MIT"], "quality": {"min_alphanumeric_share": None}, "val": 0.2, "test": 0.2}
    params = {"ingest": {"sources": sources}, "split": split, "runtime": {"progress": "off"}}
    for name in ("ingest", "split"):
        run(name, params)
    return dict(contents(caplog.text))


def contents(log: str) -> Iterator[tuple[str, str]]:
    yield "log", log
    for file in (*Path("data/splits").rglob("*"), *Path("reports").rglob("*")):
        if file.suffix == ".parquet":
            yield str(file), json.dumps(pq.read_table(file).to_pylist(), ensure_ascii=False)
        elif file.is_file():
            yield str(file), file.read_text(encoding="utf-8")


def test_no_key_is_left_and_the_audit_that_says_so_finds_planted_ones(
    published: dict[str, str], tmp_path: Path
) -> None:
    documents = [text for name in SPLITS for text in pq.read_table(f"data/splits/{name}.parquet")["text"].to_pylist()]
    assert len(documents) == 4 + 40  # no split may be empty
    assert sum("<SECRET:github-token:" in text for text in documents) == 4
    assert {"\u2028", "\x85"} <= set("".join(documents))
    for name, text in published.items():
        for key in KEYS:
            assert key not in text, name
            assert key[4:] not in text, name
    job = audit_job(tmp_path, policy=load_policy(Path("data/policy.yaml")))
    train = Path("data/splits/train.parquet")
    part = data_side(replace(job, data=replace(job.data, train=train, split=SplitReports.read()))).part
    assert part.numbers["secrets"].value == 0
    assert part.numbers["secrets"].trials == pq.read_table(train).num_rows
    assert part.numbers["planted_recall"].value == 1
    assert all(control.passed for control in part.controls)


def test_the_audit_would_have_found_each_key(tmp_path: Path, project: Path) -> None:
    """The same records without the text policy: every key is counted, on its own line."""
    from .byte_audit import document

    texts = [json.loads(record(key, before, 0))["text"] for key, before in zip(KEYS, "\u2028\x85 \n", strict=True)]
    job = audit_job(
        tmp_path,
        train=[document(number, text) for number, text in enumerate(texts)],
        policy=load_policy(project / "data/policy.yaml"),
    )
    found = data_side(job)
    assert found.part.numbers["secrets"].value == 4
    assert [(finding.kind, finding.path, finding.line) for finding in found.findings] == [
        ("github-token", f"{number}.py", line) for number, line in enumerate([1, 1, 1, 2])
    ]
    assert not any(key[4:] in finding.model_dump_json() for finding in found.findings for key in KEYS)
