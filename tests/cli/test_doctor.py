"""`codex-ml doctor` names what is wrong with machine and checkout, and the command that mends it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dvc.repo import Repo
from typer.testing import CliRunner

from codex_ml.cli.diagnosis import checkout_state as checkout
from codex_ml.cli.diagnosis import kept_files as kept
from codex_ml.cli.diagnosis import machine_state as machine
from codex_ml.cli.diagnosis.doctor_finding import Diagnosis, DoctorFinding, examined, ok
from codex_ml.cli.diagnosis.optional_extras import GIVES, extras, requirements
from codex_ml.cli.json_outputs import output_schema
from codex_ml.cli.main import whole_app

from ..json_schema_checker import problems


def told(findings) -> list[tuple[str, str, str]]:
    return [(finding.status, finding.text, finding.mend) for finding in findings]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Git repository without any configuration of the user."""
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    subprocess.run(["git", "init", "-q"], check=True)
    return tmp_path


def configure(*words: str) -> None:
    subprocess.run(["git", "config", *words], check=True)


def test_the_command_prints_findings_and_changes_nothing(folder: Path, repository: Path, monkeypatch) -> None:
    Path("src/codex_ml").mkdir(parents=True)
    Path("dvc.yaml").write_text("stages: {}\n")
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copyfile(repository / name, name)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(folder / ".git/site"))
    Repo.init(".").close()
    monkeypatch.setattr(machine, "TORCH", 'print(\'{"version": "2", "cpu": "A", "cuda": null, "gpus": []}\')')
    monkeypatch.setattr(machine, "sandbox", lambda: [ok("sandbox", "works")])

    def files() -> list[str]:
        return sorted(str(file) for file in folder.rglob("*") if not file.is_relative_to(folder / ".git/site"))

    before = files()
    done = CliRunner().invoke(whole_app(), ["doctor", "--json"])
    found = Diagnosis.model_validate_json(done.stdout)
    assert problems(json.loads(done.stdout), output_schema("doctor")) == []
    assert done.stdout.isascii()
    assert done.exit_code == found.exit_code == any(finding.status == "bad" for finding in found.findings)
    names = {finding.name for finding in found.findings}
    assert names >= {"python", "packages", "torch", "gpu", "compiler", "cores", "memory", "disk", "sandbox", "git",
        "hooks", "DVC cache", "locks", "extras"}  # fmt: skip
    assert all("\n" not in finding.text + finding.mend for finding in found.findings)
    assert all(finding.mend for finding in found.findings if finding.status != "ok")
    assert files() == before


def test_a_line_has_status_name_finding_and_command(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    found = [DoctorFinding(name="a thing", status="bad", text="is broken", mend="mend it"), ok("other", "works")]
    monkeypatch.setattr("codex_ml.cli.doctor._diagnosis", lambda: Diagnosis(findings=found, exit_code=1))
    done = CliRunner().invoke(whole_app(), ["doctor"])
    lines = [
        "bad   a thing         is broken  ->  mend it",
        "ok    other           works",
        "doctor: 1 ok, 0 warn, 1 bad",
    ]
    assert (done.exit_code, done.stdout.splitlines()) == (1, lines)


def test_an_examination_that_fails_is_a_finding_and_the_others_are_made() -> None:
    def broken():
        yield ok("first", "works")
        raise RuntimeError("no\nsuch thing")

    found = told(examined({"first": broken, "second": lambda: [ok("second", "works")]}))
    failed = ("bad", "could not be examined: RuntimeError: no such thing", "codex-ml doctor --debug")
    assert found == [("ok", "works", ""), failed, ("ok", "works", "")]


def test_a_torch_that_cannot_be_imported_is_bad_even_when_it_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TORCH", "raise ImportError('libtorch.so: cannot open')")
    assert told(machine.torch()) == [
        ("bad", "cannot be imported: ImportError: libtorch.so: cannot open", "make packages")
    ]
    monkeypatch.setattr(machine, "TORCH", "import os; os.abort()")
    assert told(machine.torch()) == [("bad", "cannot be imported: exit code -6", "make packages")]


def test_a_cpu_build_of_torch_on_a_machine_with_a_gpu_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TORCH", 'print(\'{"version": "2", "cpu": "A", "cuda": null, "gpus": []}\')')
    monkeypatch.setattr(machine, "GPU_DEVICES", (os.devnull,))
    [(status, text, mend)] = told(machine.torch())
    assert (status, text) == ("warn", "2, built for the CPU, CPU kernels for A, but this machine has a GPU")
    assert mend.startswith("make setup TORCH=")


def test_another_python_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    assert told(machine.python())[0][0] == "bad"


def test_without_a_compiler_there_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert told(machine.compiler())[0][::2] == ("warn", "apt install g++")


def test_fewer_threads_than_cores_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    limited = "4 of 8; a control group or an affinity mask limits them"
    assert told(machine.processor()) == [("warn", f"{limited}, but OMP_NUM_THREADS is 1", "unset OMP_NUM_THREADS")]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert told(machine.processor()) == [("ok", limited, "")]


@pytest.mark.parametrize(("free", "status"), [(100, "bad"), (2 * 10**9, "warn"), (10**11, "ok")])
def test_little_disk_is_a_warning_and_none_is_bad(monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**12, 10**12 - free, free))
    assert {finding.status for finding in machine.disk()} == {status}


def test_line_endings_that_change_bytes_are_bad_unless_a_rule_decides(folder: Path) -> None:
    configure("core.autocrlf", "true")
    assert told(checkout.git_settings())[0][::2] == ("bad", "git config core.autocrlf false")
    Path(".gitattributes").write_text("* text=auto eol=lf\n")
    assert told(checkout.git_settings())[0] == ("ok", "eol=lf in .gitattributes decides", "")


def test_a_missing_user_of_git_is_a_warning(folder: Path) -> None:
    mends = [mend for status, _, mend in told(checkout.git_settings()) if status == "warn"]
    assert mends == ['git config user.name "Ada Lovelace"', 'git config user.email "ada@example.org"']
    configure("user.name", "A")
    configure("user.email", "a@example.org")
    assert [finding.status for finding in checkout.git_settings()] == ["ok"]


def test_a_folder_outside_of_git_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert told(checkout.git())[0][::2] == ("bad", "git init")
    assert list(checkout.hooks()) == []


def test_missing_hooks_are_named(folder: Path) -> None:
    for name in ("pre-commit", "pre-push"):
        hook = folder / ".git/hooks" / name
        hook.write_text("#!/bin/sh\n# File generated by pre-commit\n")
        hook.chmod(0o755)
    missing = "not installed: pre-merge-commit; commits are not checked"
    assert told(checkout.hooks()) == [("warn", missing, "make hooks")]


def test_a_folder_that_cannot_be_written_is_bad(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def __init__(self, dir: Path) -> None:
            if dir == Path("models"):
                raise PermissionError(13, "Permission denied")

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    Path("models").mkdir()
    monkeypatch.setattr(checkout.tempfile, "TemporaryFile", Refused)
    assert told(checkout.write_access()) == [("bad", "models: Permission denied", "chown -R $(id -u) models")]


@pytest.mark.parametrize(
    ("name", "mend"), [("plain", "make setup"), ("é 1", 'export DVC_SITE_CACHE_DIR="$PWD/.dvc/tmp/site"')]
)
def test_an_index_of_dvc_that_others_may_write_is_a_warning(folder: Path, monkeypatch, name: str, mend: str) -> None:
    (folder / name).mkdir()
    monkeypatch.chdir(folder / name)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))
    Repo.init(".", no_scm=True).close()
    assert [found.name for found in checkout.links()] == ["DVC cache"]
    monkeypatch.delenv("DVC_SITE_CACHE_DIR")
    found = next(iter(checkout.links()))
    assert (found.status, found.name, found.mend) == ("warn", "DVC index", mend)
    assert ("is not plain ASCII" in found.text) == (name != "plain")


@pytest.mark.parametrize(("asked", "status"), [("hardlink", "ok"), ("symlink,copy", "ok"), ("reflink,copy", "ok")])
def test_links_of_the_cache_are_really_made(folder: Path, monkeypatch, tmp_path: Path, asked: str, status: str) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    Repo.init(".").close()
    Path(".dvc/config").write_text(f"[cache]\n    type = {asked}\n")
    before = sorted(Path(".dvc").rglob("*"))
    [(found, text, _)] = told(checkout.links())
    assert found == status
    assert text.startswith(f"cache.type is {asked.replace(',', ', ')}; links that work here: ")
    assert {"hardlink", "symlink"} <= set(text.partition("here: ")[2].partition(";")[0].split(", "))
    assert [file for file in sorted(Path(".dvc").rglob("*")) if "/tmp" not in str(file)] == [
        file for file in before if "/tmp" not in str(file)
    ]


def test_what_a_killed_dvc_left_is_bad_and_what_a_process_holds_is_not(folder: Path, monkeypatch) -> None:
    assert told(checkout.locks()) == [("ok", "none is held, none is left over", "")]
    Path(".cache/locks").mkdir(parents=True)
    Path(".dvc/tmp").mkdir(parents=True)
    Path(".dvc/tmp/rwlock").write_text("{")
    with Path(".cache/locks/train").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stale, held = told(checkout.locks())
    assert stale[0] == "bad"
    assert stale[2] == "rm .dvc/tmp/rwlock"
    assert held == ("ok", ".cache/locks/train: a process holds it and works here", "")


def test_what_is_kept_has_size_age_and_the_command_that_removes_it(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(kept.tempfile, "gettempdir", lambda: str(folder / "temporary"))
    assert told(kept.kept_files()) == [("ok", "empty", "")]
    Path(".cache/train").mkdir(parents=True)
    Path(".cache/train/weights").write_bytes(bytes(2_500_000))
    for path in (".cache/train/weights", ".cache/train"):
        os.utime(path, (1, Path(path).stat().st_mtime - 3600))
    text = ".cache/train: 2.5 MB, last written 1 h 0 min ago; without it: an interrupted training run starts again from step 0"
    assert told(kept.kept_files()) == [("ok", text, "rm -r .cache/train")]
    monkeypatch.setattr(kept, "MUCH", 1e6)
    monkeypatch.setattr(kept, "OLD", 60)
    assert told(kept.kept_files()) == [("warn", text, "rm -r .cache/train")]


def test_the_folder_of_compiled_kernels_of_a_killed_training_is_named(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(kept.tempfile, "gettempdir", lambda: str(folder))
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    for name, number in (("killed", ended.stdout), ("at work", str(os.getpid())), ("odd", "no number")):
        (folder / f"codex-ml-{name}").mkdir()
        (folder / f"codex-ml-{name}/process").write_text(number)
    [(state, text, mend)] = told(kept.kept_files())
    assert (state, mend) == ("ok", f"rm -r {folder}/codex-ml-killed")
    assert text.endswith("without it: nothing; a killed command left it")


def test_every_extra_says_what_it_gives(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert set(GIVES) == set(requirements()) == set(project["optional-dependencies"])
    monkeypatch.setattr("codex_ml.cli.diagnosis.optional_extras.installed_versions", lambda: {"optuna": "4"})
    found = {finding.text.partition(":")[0]: finding for finding in extras()}
    assert found["sweep"].text == "sweep: installed; it gives `codex-ml sweep` with optuna's samplers"
    assert found["gguf"].text.startswith("gguf: not installed (gguf); it gives ")
    assert found["gguf"].mend.endswith("'.[gguf]'")


def test_a_damaged_pyproject_is_bad(folder: Path) -> None:
    Path("pyproject.toml").write_text("[project\n")
    assert told(extras())[0][::2] == ("bad", "git checkout pyproject.toml")


def test_outside_a_repository_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(whole_app(), ["doctor"])
    assert done.exit_code == 2
    assert "run this inside the repository" in done.output
    assert json.dumps(done.output).count("Traceback") == 0


def test_the_last_error_is_shown_with_its_cause_and_the_command_that_helps(folder: Path) -> None:
    Path("src/codex_ml").mkdir(parents=True)
    Path("dvc.yaml").write_text("stages: {}\n")
    nothing = CliRunner().invoke(whole_app(), ["doctor", "--last-error"])
    assert (nothing.exit_code, nothing.output) == (0, "doctor: no failure is recorded in logs/errors.ndjson\n")
    assert CliRunner().invoke(whole_app(), ["doctor", "--last-error", "--json"]).output == '{"error": null}\n'
    line = {
        "time": "2026-01-31T12:00:00.123Z", "run": "20260131-120000-abcdef", "where": "train", "step": "train: starting",
        "kind": "CheckFailed", "message": "the loss is not \x1b[1mfinite", "exit_code": 1,
        "context": {"causes": ["ValueError: nan", "OSError: gone"], "place": "train/step.py:9"},
        "suggestion": "dvc repro train", "traceback": "",
    }  # fmt: skip
    Path("logs").mkdir()
    Path("logs/errors.ndjson").write_text("not json\n" + json.dumps(line) + "\n{")
    done = CliRunner().invoke(whole_app(), ["doctor", "--last-error"])
    assert done.output.splitlines() == [
        "2026-01-31T12:00:00.123Z  train  CheckFailed, exit code 1, run 20260131-120000-abcdef",
        "error: the loss is not \\x1b[1mfinite",
        "step: train: starting",
        "causes: ValueError: nan; OSError: gone",
        "place: train/step.py:9",
        "->  dvc repro train",
    ]
    shown = json.loads(CliRunner().invoke(whole_app(), ["doctor", "--last-error", "--json"]).output)
    assert shown == {"error": line}
