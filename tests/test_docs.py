"""What docs/ claims is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from codex_ml.cli.params import Params, validate_params
from codex_ml.core.config import Runtime
from codex_ml.core.params import known_keys
from codex_ml.core.yaml import parse_yaml
from codex_ml.ingest.config import Kind
from codex_ml.tokenizer.config import TokenizerKind

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.name)
def test_no_page_states_a_time_that_was_not_measured(file):
    text = " ".join(file.read_text(encoding="utf-8").split())
    assert not re.search(r"\b0(?:\.0+)? (?:seconds|minutes|hours)\b", text)


def test_every_kind_of_source_is_explained_and_no_other():
    rows = re.findall(r"^\| (`[a-z`, ]+`) \|", (ROOT / "docs/data.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(name.strip("` ") for row in rows for name in row.split(",")) == sorted(get_args(Kind))


def test_every_tracker_and_gauge_is_explained_and_no_other():
    from codex_ml.train.endpoint import GAUGES

    text = (ROOT / "docs/tracking.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z]+)` \| `logs/train/([a-z]+)/`", text, re.MULTILINE)
    trackers = get_args(get_args(Runtime.model_fields["trackers"].annotation)[0])
    assert rows == [(name, name) for name in trackers]
    gauges = {f"codex_ml_{name}" for name, _ in GAUGES.values()} | {"codex_ml_gpu_memory_used_bytes"}
    assert set(re.findall(r"`(codex_ml_[a-z_]+)`", text)) == gauges


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.name)
def test_yaml_in_docs_is_valid(file, project, monkeypatch):
    monkeypatch.chdir(project)
    blocks = re.findall(r"```yaml\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for text in blocks:
        validate_params(parse_yaml(text, file.name))


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.name)
def test_keys_and_files_that_docs_name_exist(file):
    text = file.read_text(encoding="utf-8")
    keys = set(known_keys(Params))
    sections = {key.split(".")[0] for key in keys}
    named = {name for name in re.findall(r"`([a-z_]+\.[a-z_]+)[:`]", text) if name.split(".")[0] in sections}
    assert named
    assert all(name in keys or any(key.startswith(name + ".") for key in keys) for name in named)
    for path in re.findall(r"`((?:data|docs)/[a-z_]+(?:\.[a-z]+)?)`", text):
        assert (ROOT / path).exists() or path in ("data/raw", "data/splits", "data/corpus", "data/packed"), path


def test_every_kind_of_tokenizer_is_explained_and_no_other():
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|", text, re.MULTILINE)
    assert sorted(re.findall(r"`([a-z_]+)`", " ".join(rows))) == sorted(get_args(TokenizerKind))
