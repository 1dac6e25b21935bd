"""Raw text is for its owner: the corpus in each case, DVC's cache where this pipeline makes it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import whole_app
from codex_ml.core.io import atomic_folder
from codex_ml.core.private_data import CACHE, keep_private, make_private_cache, open_cache


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    umask = os.umask(0o022)
    yield tmp_path
    os.umask(umask)


def test_a_missing_cache_is_made_for_its_owner(checkout):
    make_private_cache()
    assert mode(CACHE) == 0o700
    assert open_cache() == ""


def test_a_cache_that_is_there_keeps_its_mode_and_check_warns(checkout):
    CACHE.mkdir()
    make_private_cache()
    assert mode(CACHE) == 0o755
    assert open_cache() == (
        "every user of this machine can read the raw documents in .dvc/cache; `chmod 700 .dvc/cache` makes it private"
    )


@pytest.mark.parametrize("name", ["config", "config.local"])
def test_the_cache_of_a_team_is_left_to_dvc(checkout, name):
    Path(".dvc", name).write_text("[cache]\n    shared = group\n")
    make_private_cache()
    assert not CACHE.exists()
    CACHE.mkdir(mode=0o770)
    assert open_cache() == ""


def test_no_cache_is_made_outside_of_a_checkout_of_dvc(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_private_cache()
    assert list(tmp_path.iterdir()) == []


def test_a_private_folder_and_all_in_it_are_for_its_owner(checkout):
    with atomic_folder(Path("corpus"), private=True) as folder:
        (folder / "inner").mkdir()
        (folder / "inner/a").write_text("a")
        assert mode(folder) == 0o700  # while it is written, too
    assert [mode(path) for path in (Path("corpus"), Path("corpus/inner"), Path("corpus/inner/a"))] == [
        0o700, 0o700, 0o600,
    ]  # fmt: skip


def test_a_folder_that_dvc_made_anew_is_taken_back(checkout):
    Path("corpus").mkdir(mode=0o755)
    keep_private(Path("corpus"))
    assert mode(Path("corpus")) == 0o700


def test_check_warns_where_the_data_are_the_users_own(workspace):
    CACHE.mkdir(parents=True)
    CACHE.chmod(0o755)
    sample = CliRunner().invoke(whole_app(), ["check"])
    Path("data/raw/own.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    text = Path("params.yaml").read_text(encoding="utf-8")
    start, stop = text.index("  - kind: wheels"), text.index("  max_document_bytes")
    Path("params.yaml").write_text(f"{text[:start]}  - {{kind: jsonl, path: data/raw/own.jsonl}}\n{text[stop:]}")
    own = CliRunner().invoke(whole_app(), ["check"])
    assert [("every user of this machine" in done.output, done.exit_code) for done in (sample, own)] == [
        (False, 0), (True, 0),
    ], own.output  # fmt: skip
