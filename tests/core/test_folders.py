"""Logs and scratch: an experiment in a temporary copy uses the original repository, and no mode of a shared folder changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from codex_ml.core.errors import UserError
from codex_ml.core.folders import logs_folder, scratch_folder, scratch_place

COPY = ".dvc/tmp/exps/standalone/tmpabc"


@pytest.fixture(autouse=True)
def shell(monkeypatch):
    for name in ("DVC_ROOT", "DVC_EXP_NAME", "CODEX_ML_SCRATCH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("codex_ml.core.folders.clean_message", lambda text: text)  # the policy needs a workspace


def mode(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


@pytest.mark.parametrize("inside", ["", "/project"])
def test_logs_of_an_experiment_in_a_copy_stay_in_the_repository(tmp_path, monkeypatch, inside):
    """DVC deletes the copy; its experiments run at the same time and have files of their own, but share the trackers."""
    monkeypatch.chdir(tmp_path)
    assert logs_folder() == logs_folder(shared=True) == Path("logs")
    monkeypatch.setenv("DVC_EXP_NAME", "plain-name")  # dvc exp run in the workspace
    assert logs_folder() == logs_folder(shared=True) == Path("logs")
    copy = tmp_path / (COPY + inside)
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    up = Path("../../../../..", *[".."] * bool(inside))
    assert logs_folder() == up / "logs/experiments/plain-name"
    assert logs_folder(shared=True) == up / "logs"
    assert scratch_place() == up / ".cache"
    monkeypatch.delenv("DVC_EXP_NAME")
    assert logs_folder() == up / "logs/experiments" / copy.name


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("with-hunter2", "with-_SECRET_a_12345678_"),
        ("../../outside", "_.._outside"),
        ("/abs", "_abs"),
        ("..", ""),
        ("a\x1b[2J\n\u202e", "a__2J__"),
        ("ü" + "x" * 300, "_" + "x" * 99),
    ],
)
def test_the_name_of_an_experiment_is_one_folder_without_secrets(tmp_path, monkeypatch, name, plain):
    copy = tmp_path / COPY
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setattr(
        "codex_ml.core.folders.clean_message", lambda text: text.replace("hunter2", "<SECRET:a:12345678>")
    )
    found = set()
    for one in (name, f"{name}2"):
        monkeypatch.setenv("DVC_EXP_NAME", one)
        found.add(logs_folder())
    assert len(found) == 2  # names that become alike have folders of their own
    assert {folder.parent for folder in found} == {Path("../../../../../logs/experiments")}
    assert Path(f"../../../../../logs/experiments/{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}") in found


def test_the_shell_does_not_move_the_folders(tmp_path, monkeypatch):
    copy = tmp_path / COPY
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "elsewhere"))
    assert logs_folder() == Path("../../../../../logs/experiments/tmpabc")
    monkeypatch.chdir(tmp_path)
    assert logs_folder() == Path("logs")
    assert scratch_folder() == Path(".cache")
    assert not (tmp_path / "elsewhere").exists()


def test_the_scratch_folder_of_the_checkout_is_private(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert scratch_folder() == Path(".cache")
    assert mode(Path(".cache")) == 0o700
    Path(".cache").chmod(0o755)  # as `make lock` makes it
    scratch_folder()
    assert mode(Path(".cache")) == 0o700


def test_a_folder_that_is_named_is_made_private_or_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODEX_ML_SCRATCH", str(tmp_path / "own/new"))
    assert scratch_folder() == tmp_path / "own/new"
    assert mode(tmp_path / "own/new") == 0o700
    assert scratch_folder() == tmp_path / "own/new"  # private already
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv("CODEX_ML_SCRATCH", str(shared))
    assert scratch_folder() == shared / "codex-ml"
    assert shared.stat().st_mode & 0o7777 == 0o1777
    assert mode(shared / "codex-ml") == 0o700
    (shared / "codex-ml").chmod(0o755)
    with pytest.raises(UserError, match=r"shared/codex-ml is open to others, and checkpoints .* `chmod 700 "):
        scratch_folder()
    assert mode(shared / "codex-ml") == 0o755


def test_a_link_of_the_checkout_to_a_shared_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shared").mkdir(mode=0o755)
    (tmp_path / "shared").chmod(0o755)
    Path(".cache").symlink_to("shared")
    with pytest.raises(UserError, match=r"^\.cache is open to others, "):
        scratch_folder()
    assert mode(tmp_path / "shared") == 0o755
