"""Somebody else's checkout: another folder, C locale, no HOME, no Git identity, a dirty tree, no remote (C059)."""

from __future__ import annotations

import os
import re
import shutil
import venv
from pathlib import Path

import pytest
from workspace import Finished, Workspace


@pytest.fixture
def awkward(finished: Finished, tmp_path: Path) -> Workspace:
    """A copy in a folder that a C locale cannot spell, in an environment without HOME, UTF-8 and Git settings."""
    copy = finished.workspace.copy(tmp_path / "ünï (2) & co")
    copy.extra |= {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "", "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"}
    copy.extra |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    return copy


def test_stages_run_in_a_c_locale_without_a_home(awkward: Workspace) -> None:
    lock = awkward.lock
    ran = awkward.dvc("repro", "--force", "--single-item", "split")
    assert "Running stage 'split'" in ran.stdout
    assert awkward.lock == lock
    assert "links hold" in awkward.cli("verify", "data/splits").stdout


def test_moved_folder_and_detached_head_recompute_nothing(awkward: Workspace, tmp_path: Path) -> None:
    awkward.root.rename(tmp_path / "moved")
    moved = Workspace(tmp_path / "moved", awkward.wheels, awkward.extra)
    assert moved.dvc("status", "--quiet").returncode == 0
    moved.run("git", "checkout", "--quiet", "--detach", "HEAD")
    assert "Running stage" not in moved.dvc("repro").stdout


def test_experiment_on_a_dirty_tree_without_identity_loses_no_work(awkward: Workspace) -> None:
    (awkward.root / "README.md").write_text("edited\n", encoding="utf-8")
    (awkward.root / "untracked.tmp").touch()
    refused = awkward.dvc("exp", "run", check=False)
    assert refused.returncode == 255
    assert "Git user name and email must be configured" in refused.stderr
    for role in ("AUTHOR", "COMMITTER"):
        awkward.extra |= {f"GIT_{role}_NAME": "A. Nobody", f"GIT_{role}_EMAIL": "nobody@example.org"}
    awkward.dvc("exp", "run")
    status = awkward.run("git", "status", "--porcelain").stdout
    assert re.findall(r"^.. (\S+)$", status, re.MULTILINE) == ["README.md", "untracked.tmp"]


def test_pull_without_a_remote_changes_nothing(awkward: Workspace) -> None:
    lock = awkward.lock
    assert "No remote provided" in awkward.dvc("pull", check=False).stderr
    assert awkward.lock == lock
    assert awkward.dvc("status", "--quiet").returncode == 0


def test_a_stage_that_another_python_starts_says_what_to_type(awkward: Workspace, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    path = os.pathsep.join([str(tmp_path / "bare/bin"), awkward.environment["PATH"]])
    started = Workspace(awkward.root, awkward.wheels, {**awkward.extra, "PATH": path})
    done = started.dvc("repro", "--force", "--single-item", "fetch", check=False)
    assert "has no pydantic; type `make repro`, or `. .venv/bin/activate` first\n" in done.stderr
    assert done.returncode != 0 and "Traceback" not in done.stderr


def test_a_remote_of_the_users_own_is_used(awkward: Workspace, tmp_path: Path) -> None:
    awkward.dvc("remote", "add", "--local", "--default", "mine", str(tmp_path / "remote"))
    awkward.dvc("push")
    shutil.rmtree(awkward.root / "data/splits")
    shutil.rmtree(awkward.root / ".dvc/cache")
    assert awkward.dvc("pull", "data/splits").returncode == 0
    assert (awkward.root / "data/splits/train.parquet").exists()
