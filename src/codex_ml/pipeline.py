"""dvc.yaml and dvc.lock as plain data, and the library modules that a script really imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from codex_ml.errors import UserError
from codex_ml.yaml import parse_yaml, read_yaml

PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")
PACKAGE = Path("src/codex_ml")


@dataclass(frozen=True)
class StageSpec:
    """One stage of dvc.yaml. Paths are relative to the repository, with forward slashes."""

    name: str
    cmd: str
    desc: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]
    uncached: frozenset[str]  # outs that lie in Git instead of DVC's cache

    @property
    def script(self) -> str:
        return f"stages/{self.name}.py"

    @property
    def code(self) -> tuple[str, ...]:
        """The deps that are code: the script and the library modules."""
        return tuple(dep for dep in self.deps if Path(dep).parts[0] in ("src", "stages"))

    @property
    def data(self) -> tuple[str, ...]:
        return tuple(dep for dep in self.deps if dep not in self.code)


def load_pipeline(path: Path = PIPELINE) -> dict[str, StageSpec]:
    """Stages of dvc.yaml by name, in the order of the file.

    Raises:
        UserError: when the file is missing or is not shaped like ours.
    """
    return parse_pipeline(read_yaml(path), str(path))


def parse_pipeline(document: Any, name: str) -> dict[str, StageSpec]:
    """See `load_pipeline`; `name` stands in messages."""
    stages = document.get("stages") if isinstance(document, dict) else None
    if not isinstance(stages, dict) or not stages:
        raise UserError(f"{name}: a mapping `stages:` is wanted")
    result = {}
    for stage, body in stages.items():
        if not isinstance(body, dict) or not isinstance(body.get("cmd"), str):
            raise UserError(f"{name}: stage {stage} needs a `cmd` that is one text")
        outs = [_path_and_flags(out) for kind in ("outs", "metrics", "plots") for out in body.get(kind) or []]
        result[stage] = StageSpec(
            name=stage,
            cmd=body["cmd"],
            desc=str(body.get("desc") or ""),
            deps=tuple(str(dep) for dep in body.get("deps") or []),
            params=tuple(str(param) for param in body.get("params") or []),
            outs=tuple(path for path, _ in outs),
            uncached=frozenset(path for path, flags in outs if flags.get("cache") is False),
        )
    return result


def _path_and_flags(out: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(out, dict):
        path, flags = next(iter(out.items()))
        return str(path), dict(flags or {})
    return str(out), {}


def load_lock(path: Path = LOCK) -> dict[str, Any]:
    """The `stages` of dvc.lock; each has cmd, deps, params and outs as DVC recorded them.

    Raises:
        UserError: when the file is missing or is not YAML.
    """
    return parse_lock(path.read_text(encoding="utf-8")) if path.exists() else _no_lock(path)


def parse_lock(text: str) -> dict[str, Any]:
    """See `load_lock`."""
    document = parse_yaml(text, str(LOCK))
    stages = document.get("stages") if isinstance(document, dict) else None
    if not isinstance(stages, dict):
        raise UserError(f"{LOCK}: a mapping `stages:` is wanted; run `dvc repro`")
    return stages


def _no_lock(path: Path) -> dict[str, Any]:
    raise UserError(f"{path} is missing; run `make repro` first")


def producers_of(path: str, stages: dict[str, StageSpec]) -> list[StageSpec]:
    """The stages with an output that is `path`, holds it, or lies inside it."""
    wanted = Path(path)

    def touches(out: Path) -> bool:
        return out.is_relative_to(wanted) or wanted.is_relative_to(out)

    return [spec for spec in stages.values() if any(touches(Path(out)) for out in spec.outs)]


def imported_modules(script: Path, root: Path = Path()) -> set[str]:
    """Files of the library that `script` imports, directly or not, also inside functions.

    Returns:
        paths relative to `root`, such as "src/codex_ml/io.py".
    """
    found: set[str] = set()
    todo = list(_imports(root / script, root))
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo.extend(_imports(root / module, root))
    return found


@cache
def _imports(file: Path, root: Path) -> tuple[str, ...]:
    return tuple(sorted(set(_walk_imports(file, root))))


def _walk_imports(file: Path, root: Path) -> Iterator[str]:
    for node in ast.walk(_parse_python(file)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] == PACKAGE.name:
                yield from _files_of(name, root)


def _parse_python(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserError(f"{file}:{line}: not Python: {getattr(error, 'msg', error)}") from None


def _files_of(name: str, root: Path) -> Iterator[str]:
    """The module itself and the __init__.py files of its packages, which Python runs too."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        base = Path("src", *parts[:end])
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if (root / candidate).is_file():
                yield candidate.as_posix()


def params_read(script: Path) -> set[str]:
    """Names of the sections that a stage script reads: every `params.NAME` in its source."""
    return {
        node.attr
        for node in ast.walk(_parse_python(script))
        if isinstance(node, ast.Attribute)
        and (
            (isinstance(node.value, ast.Name) and node.value.id == "params")
            or (isinstance(node.value, ast.Attribute) and node.value.attr == "params")
        )
    }
