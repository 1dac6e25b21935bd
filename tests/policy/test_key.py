"""A warning appears when your own data would be redacted with the published key."""

import hashlib
import json
from pathlib import Path

import pytest

from codex_ml.cli.main import whole_app
from codex_ml.cli.param_rules import Params
from codex_ml.core.errors import UserError
from codex_ml.policy.key import PUBLISHED, read_key, warning

OWN, SAMPLE = "data/raw/notes.jsonl", "data/raw/sample"


@pytest.fixture
def published(tmp_path, repository):
    key = tmp_path / "key"
    key.write_bytes((repository / "tests/project/data/redaction_key").read_bytes())
    return key


def test_the_published_key_is_the_one_of_this_repository(published):
    assert hashlib.sha256(published.read_bytes().strip()).hexdigest() == PUBLISHED


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b"  \n\n"])
def test_white_space_around_a_key_does_not_hide_that_it_is_published(published, ending):
    published.write_bytes(published.read_bytes().strip() + ending)
    assert OWN in warning(published, [SAMPLE, OWN])


@pytest.mark.parametrize("sources", [[], [SAMPLE], [SAMPLE, "data/raw/sample/a.whl", "./data/raw/sample"]])
def test_the_sample_may_use_the_published_key(published, sources):
    assert warning(published, sources) == ""


@pytest.mark.parametrize("own", [OWN, "data/raw/sample2", "data/raw", "data/raw/samples/x", "data/raw/*.jsonl"])
def test_own_sources_with_the_published_key_are_warned_about_with_the_command(published, own):
    line = warning(published, [SAMPLE, own])
    assert own in line
    assert "codex-ml policy new-key" in line
    assert "\n" not in line


def test_a_private_key_warns_about_nothing(tmp_path):
    (tmp_path / "key").write_bytes(b"0123456789abcdef0123456789abcdef\n")
    assert warning(tmp_path / "key", [OWN]) == ""


@pytest.mark.parametrize("content", [None, b"", b" \n", b"short", b"123456789012345\n"])
def test_a_missing_or_short_key_is_refused_with_the_command(tmp_path: Path, content):
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(UserError, match="codex-ml policy new-key"):
        read_key(tmp_path / "key")


def test_the_message_for_a_key_that_dvc_tracks_says_dvc_pull(tmp_path: Path):
    (tmp_path / "key.dvc").write_text("outs: []\n")
    with pytest.raises(UserError, match=r"`dvc pull .*/key\.dvc` fetches it$"):
        read_key(tmp_path / "key")


def test_check_warns_once_and_passes(workspace, repository, capfd):
    (workspace / "data/raw/notes.jsonl").write_text("{}\n")
    (workspace / "data/redaction_key").write_bytes((repository / "tests/project/data/redaction_key").read_bytes())
    sections = {key: {} for key in Params.model_fields if key != "version"} | {
        "seed": 1,
        "fetch": {"sample": False},
        "ingest": {"sources": [{"kind": "jsonl", "path": "data/raw/notes.jsonl"}]},
    }
    (workspace / "params.yaml").write_text(json.dumps(sections))
    with pytest.raises(SystemExit) as ended:
        whole_app()(["check"])
    assert ended.value.code == 0
    assert [line[:8] for line in capfd.readouterr().err.splitlines()] == ["warning:"]
