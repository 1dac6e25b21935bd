"""The side note of a run holds what differs between machines, and belongs to one record only."""

import hashlib
import importlib
import json
import platform
import re
import subprocess
import sys
from importlib.metadata import distributions, version
from pathlib import Path

import pytest

from codex_ml.core import side_note
from codex_ml.core.config import Runtime
from codex_ml.core.events import run_id
from codex_ml.core.packages import normal
from codex_ml.core.record import record_path
from codex_ml.core.side_note import (
    GitState,
    forget_side_note,
    note_resolved,
    read_side_note,
    side_note_path,
    write_side_note,
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with a record of `pack`."""
    monkeypatch.chdir(tmp_path)
    record_path("pack").parent.mkdir(parents=True)
    record_path("pack").write_text("{}\n")
    yield tmp_path
    forget_side_note()


def git(*words):
    names = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *names, *words], capture_output=True, check=True, encoding="utf-8")
    return done.stdout.strip()


def test_it_names_commit_and_changes_of_tracked_files(here):
    assert GitState().read() == (None, None)
    git("init", "-q")
    assert GitState().read() == (None, None)  # no commit yet
    Path("a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")
    Path("untracked").write_text("x")
    assert GitState().read() == (commit, False)
    Path("a").write_text("2")
    assert GitState().read() == (commit, True)


def test_a_machine_without_git_gets_a_note_without_a_commit(here, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert GitState().read() == (None, None)


def test_the_note_holds_every_distribution_and_what_the_run_resolved(here, monkeypatch, tmp_path):
    nvidia = tmp_path / "nvidia"
    (nvidia / "gpus/0000:01").mkdir(parents=True)
    (nvidia / "gpus/0000:01/information").write_text("Model: \t\t NVIDIA H200\nIRQ: 3\n")
    (nvidia / "version").write_text("NVRM version: NVIDIA 570.86\nGCC version: 12\n")
    monkeypatch.setattr(side_note, "NVIDIA", nvidia)
    write_side_note("pack", GitState())
    note_resolved(device="cuda", precision="bf16")
    note_resolved(attention="sdpa")
    note = read_side_note("pack")
    assert (note.run, note.stage, note.gpus) == (run_id(), "pack", ["NVIDIA H200"])
    assert note.driver == "NVRM version: NVIDIA 570.86"
    assert note.resolved == {"device": "cuda", "precision": "bf16", "attention": "sdpa"}
    assert {name: note.packages[name] for name in ("numpy", "pytest", "pydantic")} == {
        name: version(name) for name in ("numpy", "pytest", "pydantic")
    }
    assert json.loads(side_note_path("pack").read_text())["schema"] == "codex-ml/environment/1"


def test_the_code_of_hooks_and_trackers_of_other_packages_is_recorded(here, monkeypatch, tmp_path):
    info = tmp_path / "site/far-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: far\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[codex_ml.trackers]\nlines = far:make\n[codex_ml.hooks]\nalert = far:call\n"
    )
    (tmp_path / "site/far.py").write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    runtime = Runtime(trackers=("tensorboard", "lines"), on_event=({"plugin": "alert"}, {"command": ("true",)}))
    whole = hashlib.sha256(
        f"far.py\0{hashlib.sha256(b'raise SystemExit' + bytes([10])).hexdigest()}\n".encode()
    ).hexdigest()
    expected = [("hooks", "alert", whole), ("trackers", "lines", whole)]
    for stage, called in (("train", expected), ("pack", expected[:1])):
        record_path(stage).parent.mkdir(parents=True, exist_ok=True)
        record_path(stage).write_text("{}\n")
        write_side_note(stage, GitState(), runtime)
        note = json.loads(side_note_path(stage).read_text())
        assert [(one["kind"], one["name"], one["sha256"]) for one in note["plugins"]] == called


def test_it_names_the_whole_environment_and_each_value_is_that_of_its_source(here, monkeypatch):
    git("init", "-q")
    Path("tracked").write_text("1")
    git("add", "tracked")
    git("commit", "-qm", "one")
    Path("tracked").write_text("2")
    monkeypatch.setattr(side_note, "NVIDIA", here / "no driver")
    write_side_note("pack", GitState())
    note = json.loads(side_note_path("pack").read_text())
    processors = subprocess.run(["nproc"], capture_output=True, check=True, encoding="utf-8", env={}).stdout
    named = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    everything = {normal(name) for found in distributions() if (name := found.metadata["Name"])}
    assert {name: value for name, value in note.items() if name != "packages"} == {
        "schema": "codex-ml/environment/1",
        "run": run_id(),
        "stage": "pack",
        "record": hashlib.sha256(b"{}\n").hexdigest(),
        "commit": git("rev-parse", "HEAD"),
        "dirty": True,
        "python": f"{sys.implementation.name.replace('cpython', 'CPython')} {'.'.join(map(str, sys.version_info[:3]))}",
        "system": platform.platform(),
        "cpu": named[1].strip() if named else note["cpu"],
        "cores": note["cores"],
        "gpus": [],
        "driver": "",
        "resolved": {},
        "plugins": [],
    }
    assert 1 <= note["cores"] <= int(processors)  # a quota of the container can lower it
    assert {normal(name) for name in note["packages"]} == everything


def test_a_note_of_another_run_or_a_damaged_one_is_not_shown(here):
    write_side_note("pack", GitState())
    assert read_side_note("pack") is not None
    record_path("pack").write_text('{"other": 1}\n')
    assert read_side_note("pack") is None
    side_note_path("pack").write_text("[" * 5000)
    assert read_side_note("pack") is None
    side_note_path("pack").unlink()
    assert read_side_note("pack") is None


def test_outside_a_run_nothing_is_written(here):
    note_resolved(device="cpu")
    assert not Path("logs").exists()


def test_a_note_that_cannot_be_written_is_a_warning(here, caplog):
    Path("logs").write_text("not a folder")
    write_side_note("pack", GitState())
    assert "pack: the side note logs/environment/pack.json could not be written" in caplog.text
