"""Python runs byte code instead of a source that it does not look at; such byte code is named unless it is that of the source."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from codex_ml.core.byte_code import other_byte_code

MODES = py_compile.PycInvalidationMode
SECOND = 1_700_000_000_000_000_000  # nanoseconds


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module `rate` of one line, with byte code of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    file = Path("src/own/rate.py")
    file.parent.mkdir(parents=True)
    write(file, "VALUE = 1\n", mode=MODES.TIMESTAMP)
    return file


def write(file: Path, text: str, *, mode: MODES, late: int = 0) -> None:
    """Write a source and its byte code, both in the same second, the source `late` nanoseconds after the byte code."""
    file.write_text(text)
    os.utime(file, ns=(SECOND, SECOND + 1))
    compiled = py_compile.compile(str(file), invalidation_mode=mode)
    os.utime(compiled, ns=(SECOND, SECOND + 2))
    os.utime(file, ns=(SECOND, SECOND + 1 + late))


def value(module: Path) -> str:
    """What Python itself imports."""
    code = "import rate; print(rate.VALUE)"
    done = subprocess.run(
        [sys.executable, "-P", "-S", "-c", f"import sys; sys.path.insert(0, {str(module.parent)!r}); {code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_byte_code_that_python_wrote_for_this_source_is_no_problem(module):
    assert list(other_byte_code()) == []
    assert value(module) == "1"


def test_byte_code_that_python_takes_unseen_is_named(module):
    write(module, "VALUE = 2\n", mode=MODES.UNCHECKED_HASH)
    assert list(other_byte_code()) == []  # as an image may have it
    module.write_text("VALUE = 3\n")
    assert value(module) == "2"
    cached = cache_from_source("src/own/rate.py")
    problem = f"{cached}: Python would run this byte code, and it is not that of src/own/rate.py; remove it"
    assert list(other_byte_code()) == [problem]


def test_an_edit_within_a_second_that_python_does_not_notice_is_named(module):
    module.write_text("VALUE = 3\n")
    os.utime(module, ns=(SECOND, SECOND + 500_000_000))
    assert value(module) == "1"
    assert [problem.partition(":")[0] for problem in other_byte_code()] == [cache_from_source("src/own/rate.py")]


def test_a_source_that_is_only_touched_is_no_problem(module):
    os.utime(module, ns=(SECOND, SECOND + 500_000_000))
    assert list(other_byte_code()) == []


def test_byte_code_of_an_older_source_is_no_problem_because_python_compiles_again(module):
    write(module, "VALUE = 2\n", mode=MODES.CHECKED_HASH)
    module.write_text("VALUE = 4\n")
    assert value(module) == "4"
    assert list(other_byte_code()) == []


def test_damaged_byte_code_is_named(module):
    compiled = Path(py_compile.compile(str(module), invalidation_mode=MODES.UNCHECKED_HASH))
    compiled.write_bytes(compiled.read_bytes()[:20])
    assert [problem.partition(":")[0] for problem in other_byte_code()] == [str(compiled)]


def test_byte_code_in_the_place_of_a_module_is_named(module):
    package = Path("src/own/rate/__init__.pyc")
    package.parent.mkdir()
    Path(py_compile.compile(str(module))).rename(package)
    problem = "Python could import this byte code, and DVC leaves it out of its hashes; remove it"
    assert list(other_byte_code()) == [f"{package}: {problem}"]
