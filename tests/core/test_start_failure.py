"""An import that fails at the start of a program is one line, which names the file that is the cause."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from codex_ml.core.start_failure import start_failure

STAGE, COMMAND = ["stages/fetch.py"], ["-m", "codex_ml", "check"]


def run(words, folder, *, library=None, theirs=None):
    paths = [str(path) for path in (library, theirs) if path]
    return subprocess.run(
        [sys.executable, "-P", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "module", "file", "text"),
    [
        (STAGE, "yaml", "yaml.py", ""),
        (COMMAND, "yaml", "yaml.py", ""),
        (COMMAND, "typer", "typer.py", "raise RuntimeError"),
        (STAGE, "pydantic", "pydantic/__init__.py", ""),
        (COMMAND, "dataclasses", "dataclasses.py", ""),
        (STAGE, "yaml", f"yaml{EXTENSION_SUFFIXES[0]}", ""),
    ],
)
def test_a_namesake_that_breaks_an_import_is_named(repository, tmp_path, words, module, file, text):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    done = run(words, repository, library=repository / "src", theirs=tmp_path)
    named = tmp_path / file.partition("/")[0]
    why = f"Python would import it in place of the module {module}; unset PYTHONPATH"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {named}: {why}\n")


BROKEN = {
    "x = 1\ny = (\n": "2: not Python: '(' was never closed; `git diff {}` shows what was changed",
    "a = 1\n<<<<<<< HEAD\n": "2: conflict markers of a merge; keep the lines that you want of both sides, delete the "
    "markers, then `git add {}`",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_module_of_the_library_that_is_not_python_is_named_with_its_line(repository, tmp_path, text):
    for part in ("src/codex_ml/core", "stages"):
        shutil.copytree(repository / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "src/codex_ml/__init__.py", tmp_path / "src/codex_ml")
    name = "src/codex_ml/core/config.py"
    (tmp_path / name).write_text(text)
    done = run(STAGE, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {name}:{BROKEN[text].format(name)}\n")


def test_a_namesake_that_was_not_imported_is_not_blamed_for_an_error(tmp_path, monkeypatch):
    """A stage may declare such a package in src; then each fault of the library would hide behind it."""
    monkeypatch.chdir(tmp_path)
    Path("src/yaml").mkdir(parents=True)
    Path("src/yaml/__init__.py").touch()
    assert start_failure(KeyError("x")) == ""
    monkeypatch.setitem(sys.modules, "yaml", type(sys)("yaml"))
    monkeypatch.setattr(sys.modules["yaml"], "__file__", str(tmp_path / "src/yaml/__init__.py"), raising=False)
    assert start_failure(KeyError("x")).startswith("src/yaml: Python could import it in place of the module yaml")


def test_control_characters_in_the_name_of_a_file_are_shown_as_escapes(repository, tmp_path):
    theirs = tmp_path / "a\x1b[31mb"
    theirs.mkdir()
    (theirs / "yaml.py").touch()
    done = run(STAGE, repository, library=repository / "src", theirs=theirs)
    assert done.stderr.startswith(f"error: {tmp_path}/a\\x1b[31mb/yaml.py: ")


def test_a_program_of_others_keeps_its_traceback(repository, tmp_path):
    folder = tmp_path / "codex-ml"  # as a clone is called
    folder.mkdir()
    (folder / "broken.py").write_text("x = (")
    done = run(["-c", "import codex_ml, broken"], folder, library=repository / "src", theirs=folder)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "Traceback (most recent call last):")
