"""--help of every command answers at once: it imports nothing heavy, and it reads well on a narrow terminal."""

from __future__ import annotations

import doctest
import json

import pytest

from codex_ml.cli import help_text

from .test_json_schemas import commands

HEAVY = {
    "torch", "transformers", "pandas", "numpy", "dvc", "scipy", "tokenizers", "starlette", "uvicorn", "optuna", "pyarrow",
    "accelerate", "peft", "safetensors", "matplotlib", "jinja2", "gguf", "git", "yaml",
}  # fmt: skip
# What the commands share. Neither core.contract nor core.config: pydantic builds a validator per class.
LIGHT_OF_CORE = (
    "bounds", "conflicts", "errors", "internal_error", "interruption", "namesakes", "out_of_memory", "paths",
    "private_data", "repository_root", "start_failure",
)  # fmt: skip
LIGHT = {
    "",
    ".__main__",
    ".core",
    *(f".core.{name}" for name in LIGHT_OF_CORE),
}

# Each command in a process of its own, which begins where the modules of Typer are loaded.
EACH = """
import io, json, os, sys
import typer.rich_utils, typer.core, typer.completion, pydantic.main, pydantic.type_adapter, rich.markdown
from codex_ml.cli import main
main.whole_app()
before = sorted(sys.modules)
found = {"": before}
for words in json.loads(sys.argv[1]):
    reader, writer = os.pipe()
    if os.fork() == 0:
        sys.argv = ["codex-ml", *words.split(), "--help"]
        sys.stdout = open(os.devnull, "w")
        try:
            main.main()
        except SystemExit as end:
            os.write(writer, json.dumps([end.code or 0, sorted(set(sys.modules) - set(before))]).encode())
        os._exit(0)
    os.close(writer)
    found[words] = json.loads(b"".join(iter(lambda: os.read(reader, 65536), b"")) or "null")
    os.wait()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Command -> [exit code, modules that its --help imports beyond those of all commands]; "" -> those modules."""
    import os
    import subprocess
    import sys

    from ..conftest import REPOSITORY

    names = [name for name, _ in commands()]
    groups = sorted({name.split()[0] for name in names if " " in name})
    done = subprocess.run(
        [sys.executable, "-c", EACH, json.dumps(names + groups)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        cwd=tmp_path_factory.mktemp("empty"),
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


def names_of(modules):
    return {name.split(".")[0] for name in modules}


def own(modules):
    return {name.removeprefix("codex_ml") for name in modules if name.split(".")[0] == "codex_ml"}


def test_the_commands_themselves_import_nothing_heavy(loaded):
    assert names_of(loaded[""]) & HEAVY == set()
    assert {name for name in own(loaded[""]) if not name.startswith(".cli")} - LIGHT == set()


def test_the_help_of_no_command_imports_more(loaded):
    answered = {name: found for name, found in loaded.items() if name}
    assert len(answered) > 50
    assert {name for name, found in answered.items() if found is None or found[0] != 0} == set()
    assert {name: names_of(found[1]) & HEAVY for name, found in answered.items() if names_of(found[1]) & HEAVY} == {}
    assert {name: own(found[1]) for name, found in answered.items() if own(found[1])} == {}


def test_the_list_of_commands_needs_no_pydantic(run_python):
    code = "import sys; sys.argv = ['codex-ml', '--help']; from codex_ml.cli.main import main\ntry: main()\n"
    done = run_python("-c", code + "finally: print('pydantic' in sys.modules, 'numpy' in sys.modules, file=sys.stderr)")
    assert done.stderr == "False False\n"


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_help_begins_with_a_sentence_and_breaks_no_line_itself(name, command):
    first, *paragraphs = command.help.split("\n\n")
    assert first.endswith(".") and len(first) <= 130, "the list of commands shows it"
    for paragraph in paragraphs:
        lines = paragraph.split("\n")
        assert not [line for line in lines[1:] if not line.startswith((" ", "$ "))], name


def test_the_example_in_the_docstring_of_help_of():
    assert doctest.testmod(help_text).failed == 0


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_help_shows_how_the_command_is_called(name, command):
    """The hooks are called by pre-commit, not by people."""
    assert name.startswith("hook ") or f"codex-ml {name}" in command.help.partition("\n\n")[2]
