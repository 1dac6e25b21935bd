"""Commands, parameters, files and modules that README, docs, docstrings, comments and messages name exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from codex_ml.cli.param_rules import Params
from codex_ml.core.pipeline import load_pipeline
from codex_ml.core.plugins import KINDS
from codex_ml.core.sections import known_keys

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CHANGELOG.md"]
CODE = [
    *sorted((ROOT / "src").rglob("*.py")),
    *sorted((ROOT / "stages").glob("*.py")),
    *(ROOT / name for name in ("dvc.yaml", "Makefile", "pyproject.toml", ".pre-commit-config.yaml")),
]
SHIPPED = [ROOT / "README.md", ROOT / "params.yaml"]
TESTS = [*sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]
GROUPS = [
    pytest.param(PAGES, id="docs"),
    pytest.param(CODE, id="library"),
    pytest.param(SHIPPED, id="README and params.yaml", marks=pytest.mark.shipped),
]
# What a user of the pages has and this repository has not: their data and models, and what appears where something runs.
OF_THE_USER = (
    "*shorten*", "*mbox*",  # the examples of docs/architecture.md
    "data/raw*", "models/base/*", "logs/*", ".cache/*", "data/split_ledger.dvc", "data/split_ledger/*",
    "data/redaction_key.dvc", "data/benchmarks/allow.txt", "reports/STAGE/*", "reports/<stage>/*", "data/.gitignore",
    "models/base", "data/split_ledger.ndjson", "*/shorten*",
)  # fmt: skip
TOP = r"src|stages|data|docs|models|reports|benchmarks|tests|logs|\.cache"
OF_FILES = (".py", ".md", ".json", ".ndjson", ".yaml", ".csv", ".txt", ".bin", ".parquet", ".mask", ".rows", ".pieces",
            ".starts", ".log", ".lock")  # fmt: skip
ENTRY_POINTS = {f"codex_ml.{kind}" for kind in KINDS}


@cache
def text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def written_as_code(file: Path) -> Iterator[str]:
    """What a reader copies: text between backticks and, of a page, the lines of its shell blocks, without comments."""
    text = text_of(file)
    if file.suffix == ".md":
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            yield from (line.split("  #")[0] for line in re.sub(r"\\\n\s*", "", block).splitlines())
        text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"`([^`\n]+)`", text)


@cache
def commands() -> dict[str, Any]:
    """Every command and group of `codex-ml` by its words, such as "ledger accept"."""
    import typer.main

    from codex_ml.cli.main import whole_app

    found: dict[str, Any] = {}

    def add(words: list[str], command: Any) -> None:
        found[" ".join(words)] = command
        for name, inner in getattr(command, "commands", {}).items():
            add([*words, name], inner)

    add([], typer.main.get_command(whole_app()))
    return found


def wrong_command(words: list[str]) -> str:
    """What is wrong with the words after `codex-ml`; "" where they are a command and its options."""
    known, used = commands(), 0
    while used < len(words) and " ".join(words[: used + 1]) in known:
        used += 1
    command = known[" ".join(words[:used])]
    rest = [word for word in words[used:] if re.fullmatch(r"[a-z][a-z_-]*|--?[a-z-]+", word)]
    if getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
        return f"no command {rest[0]}"
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    missing = [word for word in rest if word.startswith("-") and word not in {*options, "--help"}]
    return f"no option {missing[0]}" if missing else ""


@pytest.mark.parametrize("files", GROUPS)
def test_commands_and_their_options_exist(files: list[Path]) -> None:
    calls = [
        (file.name, call)
        for file in files
        for code in written_as_code(file)
        for call in re.findall(r"(?:^|[\s(])codex-ml ([^|&;)]*)", code)
    ]
    assert calls
    assert [(*found, problem) for found in calls if (problem := wrong_command(found[1].split()))] == []


@pytest.mark.parametrize("files", GROUPS)
def test_parameters_exist(files: list[Path]) -> None:
    """A dotted name in backticks, or set on a command line, whose first part is a section of params.yaml."""
    keys = set(known_keys(Params))
    sections = {key.split(".")[0] for key in keys if "." in key}
    wholes = {".".join(key.split(".")[:end]) for key in keys for end in range(1, key.count(".") + 2)}
    named = [
        (file.name, key)
        for file in files
        for code in written_as_code(file)
        for key in re.findall(r"(?:^|-S |--set-param )([a-z_]+(?:\.[a-z_0-9]+)+)(?:$|[:=])", code)
        if key.split(".")[0] in sections and Path(key).suffix not in OF_FILES
    ]
    assert len(named) > 3
    assert [found for found in named if found[1] not in wholes] == []


@pytest.mark.parametrize("files", GROUPS)
def test_files_exist_or_are_outputs_of_the_pipeline(files: list[Path]) -> None:
    outs = [out for spec in load_pipeline(ROOT / "dvc.yaml").values() for out in spec.outs]

    def is_there(path: str) -> bool:
        written = any(
            Path(path).is_relative_to(out) or Path(out).is_relative_to(path) or fnmatch(out, path) for out in outs
        )
        return written or any(fnmatch(path, pattern) for pattern in OF_THE_USER) or any(ROOT.glob(path))

    named = [
        (file.name, path)
        for file in files
        for code in written_as_code(file)
        for path in re.findall(rf"(?:^|\s)((?:{TOP})/[A-Za-z0-9_./*<>-]*[A-Za-z0-9_>*])", code)
    ]
    assert len(named) > 3
    assert [found for found in named if not is_there(found[1])] == []


def defined(name: str) -> bool:
    """Whether a dotted name is a module of the library, or something at the top of one, or in a class there."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        base = ROOT / "src" / Path(*parts[:end])
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if file.is_file():
            head = r"^\s*(?:def|class|async def) {0}\b|^\s*{0}\b.*[:=]"
            return all(re.search(head.format(part), text_of(file), re.MULTILINE) for part in parts[end:])
    return False


@pytest.mark.parametrize("files", [*GROUPS[:2], pytest.param(TESTS, id="tests"), GROUPS[2]])
def test_modules_and_what_is_in_them_exist(files: list[Path]) -> None:
    pattern = r"(?<![\w.\"/])codex_ml(?:\.[a-zA-Z]\w*)+"
    dotted = {(file.name, word) for file in files for word in re.findall(pattern, text_of(file))}
    assert sorted(found for found in dotted if found[1] not in ENTRY_POINTS and not defined(found[1])) == []


@pytest.mark.parametrize("files", GROUPS)
def test_nothing_sends_the_reader_to_a_page_that_is_not_here(files: list[Path]) -> None:
    here = {file.name for file in (*PAGES, *ROOT.glob("*.md"))} | {"model_card.md"}
    named = {
        (file.name, page) for file in files for page in re.findall(r"(?<![\w/.*-])[A-Za-z_]+\.md\b", text_of(file))
    }
    assert sorted(found for found in named if found[1] not in here) == []
