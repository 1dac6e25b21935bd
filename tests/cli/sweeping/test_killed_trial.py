"""What a killed DVC leaves in the workspace is put back, and nothing that the user wrote."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from dvc.utils.hydra import apply_overrides

from codex_ml.cli.sweeping.killed_trial import NOTE, PACKED, note_trial, put_back
from codex_ml.cli.sweeping.trial_values import overrides
from codex_ml.core.errors import UserError

COMMITTED = "# the rate\ntrain:\n  lr: 3e-3  # peak\n  ema: 0.0\n"
TRIAL = {"train.lr": "0x2", "train.stop": "{after: 08}"}


def git(*words: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", *words],
        check=True, capture_output=True, encoding="utf-8",
    ).stdout.strip()  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a sweep whose trial has just been noted, in a clean repository on the branch `work`."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(COMMITTED)
    Path(".gitignore").write_text("/logs\n/.dvc/tmp\n")
    git("init", "-q", "-b", "work")
    git("add", "-A")
    git("commit", "-q", "-m", "start")
    note_trial(Path("logs"), TRIAL)
    return Path("logs")


def state() -> tuple[str, str, str]:
    return git("symbolic-ref", "HEAD"), git("status", "--porcelain"), Path("params.yaml").read_text()


@pytest.mark.parametrize("done", range(4))
def test_each_step_of_dvc_is_undone(folder: Path, done: int, capsys: pytest.CaptureFixture[str]) -> None:
    before = state()
    steps = [
        lambda: git("checkout", "-q", "--detach"),
        lambda: apply_overrides("params.yaml", [f"++{each}" for each in overrides(TRIAL)]),
        lambda: (Path(PACKED).parent.mkdir(parents=True), Path(PACKED).write_text("x"), git("add", "--force", PACKED)),
    ]
    for step in steps[:done]:
        step()
    put_back(folder)
    assert state() == before
    said = "put back params.yaml, into which a killed experiment wrote its values\n"
    assert capsys.readouterr().err == (said if done >= 2 else "")
    assert not (folder / NOTE).exists()


@pytest.mark.parametrize("text", [COMMITTED.replace("3e-3", "2"), COMMITTED + "more: 1\n", "train: [", "", "\ud800"])
def test_an_edit_of_the_user_stays(folder: Path, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    Path("params.yaml").write_bytes(data)
    put_back(folder)
    assert Path("params.yaml").read_bytes() == data


def test_a_lock_that_dvc_left_is_removed_unless_git_runs_or_it_is_older(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Path(".git/index.lock")
    lock.touch()
    os.utime(lock, (1, 1))
    put_back(folder)
    assert lock.exists(), "it was there before the trial"
    lock.touch()
    note_trial(folder, TRIAL)
    os.utime(folder / NOTE, (1, 1))
    found = SimpleNamespace(pid=7, info={"name": "git", "cwd": str(Path.cwd())})
    with monkeypatch.context() as patch:
        patch.setattr(psutil, "process_iter", lambda attributes: [found])
        with pytest.raises(UserError, match=r"index.lock exists, and Git \(process 7\) runs; run the command again"):
            put_back(folder)
        assert lock.exists() and (folder / NOTE).exists()
        found.info["cwd"] = "/elsewhere"
        put_back(folder)
    assert not lock.exists()


def test_an_applied_trial_stays(folder: Path) -> None:
    """`dvc exp apply` writes the values of the trial too, with the outputs."""
    apply_overrides("params.yaml", [f"++{each}" for each in overrides(TRIAL)])
    Path(".gitignore").write_text("/logs\n")
    applied = Path("params.yaml").read_text()
    put_back(folder)
    assert Path("params.yaml").read_text() == applied != COMMITTED


def test_a_commit_or_a_branch_of_the_user_stays(folder: Path) -> None:
    git("checkout", "-q", "--detach")
    git("commit", "-q", "--allow-empty", "-m", "own")
    put_back(folder)
    assert git("rev-parse", "--abbrev-ref", "HEAD") == "HEAD"
    git("checkout", "-q", "-b", "other")
    note_trial(folder, TRIAL)
    put_back(folder)
    assert git("symbolic-ref", "HEAD") == "refs/heads/other"


@pytest.mark.parametrize("note", [None, b"", b"{", b'{"branch": "--x", "params": {}}', b"\xff", b'{"branch": 1}'])
def test_a_damaged_note_changes_nothing(folder: Path, note: bytes | None) -> None:
    git("checkout", "-q", "--detach")
    (folder / NOTE).unlink() if note is None else (folder / NOTE).write_bytes(note)
    put_back(folder)
    assert git("rev-parse", "--abbrev-ref", "HEAD") == "HEAD"
    assert not git("status", "--porcelain")
