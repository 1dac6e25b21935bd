"""The house stays in order: one name for one thing, short modules, few parameters, short stage scripts."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "src/codex_ml").rglob("*.py"))
ONE_PER_PACKAGE = {"__init__.py", "config.py"}
LINES, PARAMETERS = 300, 6


def nodes(kind: type[ast.AST]) -> Iterator[tuple[Path, ast.AST]]:
    for file in MODULES:
        yield from ((file, node) for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, kind))


def repeated(names: list[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def test_no_two_classes_of_the_library_have_one_name() -> None:
    names = [node.name for _, node in nodes(ast.ClassDef)]
    assert len(names) > 100
    assert repeated(names) == []


def test_no_two_modules_of_the_library_have_one_name() -> None:
    names = [file.name for file in MODULES if file.name not in ONE_PER_PACKAGE]
    assert len(names) > 100
    assert repeated(names) == []


def test_modules_have_at_most_300_lines() -> None:
    lines = {file.relative_to(ROOT).as_posix(): file.read_text("utf-8").count("\n") for file in MODULES}
    assert max(lines.values()) > 200
    assert [file for file, count in lines.items() if count > LINES] == []


def test_scripts_of_stages_have_at_most_80_lines() -> None:
    lines = {file.name: file.read_text("utf-8").count("\n") for file in (ROOT / "stages").glob("*.py")}
    assert len(lines) == 9
    assert [file for file, count in lines.items() if count > 80] == []


def is_command(node: ast.FunctionDef) -> bool:
    """Typer makes a command of a function: there each option is a parameter."""
    return any(isinstance(d, ast.Call) and ast.unparse(d.func).endswith(".command") for d in node.decorator_list)


def test_functions_take_at_most_six_parameters() -> None:
    long = []
    for file, node in nodes(ast.FunctionDef):
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        own = [argument for argument in given if argument.arg not in ("self", "cls")]
        if len(own) > PARAMETERS and not is_command(node):
            long.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert long == []
