"""An import that fails at the start of a program is one line, which names the file that is the cause."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

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


def test_a_program_of_others_keeps_its_traceback(repository, tmp_path):
    (tmp_path / "yaml.py").touch()
    done = run(["-c", "import codex_ml; 1 / 0"], tmp_path, library=repository / "src", theirs=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "Traceback (most recent call last):")
