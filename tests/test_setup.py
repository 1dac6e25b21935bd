"""What `make setup` leaves: DVC finds our Python and keeps its index to itself; another Python says what to type."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = sorted(file.name for file in (ROOT / "stages").glob("*.py"))
NO_PYTHON = {
    name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DVC_", "MAKE", "GIT_"))
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python without packages, as the system's is."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return folder / "bin/python"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_in_one_line_that_another_python_started_it(bare: Path, tmp_path: Path, stage: str) -> None:
    done = subprocess.run([bare, ROOT / "stages" / stage], capture_output=True, text=True, env=NO_PYTHON, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: this Python ({bare}) has no pydantic; type `make repro`, or `. .venv/bin/activate` first\n"
    )


def test_so_does_the_command_line(bare: Path, tmp_path: Path) -> None:
    environment = {**NO_PYTHON, "PYTHONPATH": str(ROOT / "src")}
    command = [bare, "-m", "codex_ml", "check"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: this Python ({bare}) has no pydantic; ")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A DVC project with our Makefile, in which `make library` runs everything but pip."""
    folder = tmp_path / "a (project) of o'Neill, & co"
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    python = folder / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\n[ "$3" = pip ] || exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return folder


def make_library(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "library"], cwd=folder, env=NO_PYTHON, capture_output=True, text=True, check=True)


def test_dvc_of_the_environment_needs_no_activation(project: Path) -> None:
    """Its stages run our Python from any folder, its index is ours alone, and the user's own settings stay."""
    (project / ".dvc/config.local").write_text('[remote "mine"]\n    url = /somewhere\n')
    (project / "dvc.yaml").write_text("stages: {a: {cmd: command -v python > where, outs: [where]}}\n")
    (project / "below").mkdir()
    make_library(project)
    bare_path = {**NO_PYTHON, "PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = ["../.venv/bin/dvc", "repro", "--quiet", "../dvc.yaml"]
    subprocess.run(command, cwd=project / "below", env=bare_path, check=True)
    assert (project / "where").read_text() == f"{project}/.venv/bin/python\n"
    assert list((project / ".dvc/tmp/site/repo").iterdir())
    assert 'remote "mine"' in (project / ".dvc/config.local").read_text()


def test_dvc_of_the_environment_works_with_the_users_cdpath(project: Path) -> None:
    make_library(project)
    environment = {**NO_PYTHON, "CDPATH": f".:{project}"}
    done = subprocess.run([".venv/bin/dvc", "--version"], cwd=project, env=environment, capture_output=True, check=True)
    assert done.stdout[:1].isdigit()


def test_a_folder_that_dvc_cannot_write_down_is_named(project: Path, tmp_path: Path) -> None:
    odd = project.rename(tmp_path / "ünï")
    assert make_library(odd).stderr.startswith(f"note: {odd} is not plain ASCII, so DVC keeps its index where other ")
    assert not (odd / ".dvc/config.local").exists()


def test_an_image_is_installed_as_a_checkout_is(tmp_path: Path) -> None:
    """The same script, and then the same proof; every file that a step copies may enter the image."""
    docker, make = ((ROOT / name).read_text(encoding="utf-8") for name in ("Dockerfile", "Makefile"))
    assert 'RUN TORCH="$TORCH" sh .ci/install /opt/venv\n' in docker
    assert '\tTORCH="$$GIVEN_TORCH" sh .ci/install .venv\n' in make
    for text in (docker, make):
        assert text.index("sh .ci/install") < text.index("codex_ml packages")
    copied = [word for line in docker.splitlines() if line.startswith("COPY ") and "--from" not in line
              for word in line.split()[1:-1]]  # fmt: skip
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied == ["requirements.lock", "torch.lock", ".ci/install", "LICENSE", "README.md", "pyproject.toml", "src"]
    assert {f"!{name}" for name in copied} <= set(allowed)


def test_both_locks_have_hashes_of_everything_and_share_no_package() -> None:
    names = {}
    for lock in ("requirements.lock", "torch.lock"):
        entries = re.split(r"^(?=[a-z])", (ROOT / lock).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
        assert all(re.search(r"^    --hash=sha256:[0-9a-f]{64}", each, re.MULTILINE) for each in entries)
        names[lock] = {each.partition("==")[0] for each in entries}
    assert not names["requirements.lock"] & names["torch.lock"]
    assert {"torch", "triton"} < names["torch.lock"]
