"""What the code of a stage imports, reads and declares, from its source: nothing is run.

Used by: check, which compares it with dvc.yaml.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import UserError

PACKAGE = Path("src/codex_ml")
INNER = ("body", "orelse", "finalbody", "handlers", "cases")  # fields of a statement that hold statements
Read = TypeVar("Read")


class ImportGraph:
    """Which modules of the library import which, read from their sources; each file is parsed once.

    >>> ImportGraph(Path()).folders(Path("stages/fetch.py"))  # doctest: +SKIP
    {'src/codex_ml/core', 'src/codex_ml/fetch'}
    """

    def __init__(self, root: Path = Path()) -> None:
        self._root = root
        self._known: dict[str, set[str]] = {}
        self._files: dict[str, list[str]] = {}

    def modules(self, script: Path) -> set[str]:
        """Files of the library that `script` imports, directly or not, also inside functions.

        Returns:
            paths relative to the root, such as "src/codex_ml/core/io.py".
        """
        modules: set[str] = set()
        todo = list(self._imports(script.as_posix()))
        while todo:
            module = todo.pop()
            if module not in modules:
                modules.add(module)
                todo.extend(self._imports(module))
        return modules

    def folders(self, script: Path) -> set[str]:
        """Folders of the packages that `script` imports from, directly or not."""
        inner = (Path(module).relative_to(PACKAGE).parts for module in self.modules(script))
        return {(PACKAGE / parts[0]).as_posix() for parts in inner if len(parts) > 1}

    def _imports(self, file: str) -> set[str]:
        if file not in self._known:
            self._known[file] = set(self._read(self._root / file))
        return self._known[file]

    def _read(self, file: Path) -> Iterator[str]:
        for name in _read_python(file, _library_imports):
            yield from self._files_of(name)

    def _files_of(self, name: str) -> list[str]:
        """The module itself and the __init__.py files of its packages, which Python runs too."""
        if name not in self._files:
            package, base = name.rpartition(".")[0], f"src/{name.replace('.', '/')}"
            own = [file for file in (f"{base}.py", f"{base}/__init__.py") if (self._root / file).is_file()]
            self._files[name] = [*(self._files_of(package) if package else ()), *own]
        return self._files[name]


@cache
def _library_imports(source: bytes) -> tuple[str, ...]:
    """Names that a source imports from the library. All of it takes half a second, so a process does that once."""
    names: list[str] = []
    for node in _statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.split(".")[0] == PACKAGE.name)


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements of a program, also inside others; an import is one, and `ast.walk` takes as long as the parser."""
    left = list(tree.body)
    while left:
        node = left.pop()
        yield node
        for field in INNER:
            left += getattr(node, field, ())


def _read_python(file: Path, read: Callable[[bytes], Read]) -> Read:
    source = file.read_bytes()
    try:
        return read(source)
    except (SyntaxError, ValueError) as error:
        refuse_conflict(source, str(file))
        line = getattr(error, "lineno", None) or 1
        why = f"not Python: {getattr(error, 'msg', error)}; `git diff {file}` shows what was changed"
        raise UserError(f"{file}:{line}: {why}") from None


def deps_read(script: Path) -> set[str]:
    """Paths that a stage script names as its dependencies: the text of every `stage.dep("PATH")` in its source."""
    return {
        node.args[0].value
        for node in ast.walk(_read_python(script, ast.parse))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "dep"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def params_declared(script: Path) -> set[str]:
    """Sections of params.yaml that a stage script reads: the fields of its `class Params`."""
    return {
        field.target.id
        for node in _read_python(script, ast.parse).body
        if isinstance(node, ast.ClassDef) and node.name == "Params"
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }
