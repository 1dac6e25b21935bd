"""The code of a plug-in: which files it is, and how Python must read them.

A package that is installed lists its files. An editable install lists a link to a checkout, and Python then imports
whatever is in that folder, so everything in it that can be imported is the plug-in's code.

Python prefers the byte code in `__pycache__` to the source beside it, and believes a file there that says that it fits.
A hash of the sources says nothing about such a file, so `read_sources_only` makes Python compile the sources.

Used by: core.plugins, core.plugin_lock.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, SourceFileLoader
from importlib.metadata import Distribution
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Any

from codex_ml.core.errors import UserError
from codex_ml.core.loaded_code import allow_code

MOST_FILES = 20_000  # of a checkout; each stage hashes them
SUFFIXES = (".py", ".pyc", *EXTENSION_SUFFIXES)  # of what can be imported


def files_of(distribution: Distribution, value: str) -> dict[str, Path]:
    """All files of a plug-in's code by their names, which do not depend on where they are.

    Args:
        distribution: the package that offers the plug-in.
        value: module and object, as the entry point has them.

    Raises:
        UserError: when it is installed from a checkout with too many files.
    """
    parts = value.partition(":")[0].strip().split(".")
    files = listed = dict(_listed(distribution))
    spec, depth = _first_with_code(parts)
    roots = list(_linked(distribution))
    if spec is not None and spec.origin is not None:
        origin = Path(spec.origin)
        is_package = bool(spec.submodule_search_locations)
        above = origin.parent if is_package else origin
        name = "/".join((*parts[: depth - 1], parts[depth - 1] if is_package else origin.name))
        files = listed | (dict(_below(above, name)) if is_package else {name: origin} if origin.is_file() else {})
        roots.insert(0, above.parents[depth - 1])
    checkouts = {root.resolve(): root for root in roots if not _is_shared(root, distribution, listed)}
    for number, root in enumerate(checkouts.values()):
        for own, path in _at_most(MOST_FILES, root, distribution):
            taken = own in files and not files[own].samefile(path)
            files[f"{own} of folder {number}" if taken else own] = path
    return files


def _at_most(count: int, root: Path, distribution: Distribution) -> Iterator[tuple[str, Path]]:
    for number, (name, path) in enumerate(_importable(root, "")):
        if number == count:
            most = f"holds more than {count} files and folders that Python could import"
            raise UserError(f"{distribution.name} is installed from {root}, which {most}; put its code into src/")
        if name:
            yield name, path


def _linked(distribution: Distribution) -> Iterator[Path]:
    """The folders of checkouts from which an editable install lets Python import, by a .pth file or by a finder."""
    for file in distribution.files or ():
        path = Path(str(distribution.locate_file(file)))
        if path.suffix == ".pth" and path.is_file():
            folders = (Path(line) for line in path.read_text("utf-8", "replace").splitlines() if line[:6] != "import")
            yield from (folder for folder in folders if folder.is_absolute() and folder.is_dir())
    for name in _top_level(distribution):
        spec, _ = _first_with_code([name])
        if spec is not None and spec.has_location and spec.origin:
            yield Path(spec.origin).parents[1 if spec.submodule_search_locations else 0]


def _is_shared(root: Path, distribution: Distribution, listed: dict[str, Path]) -> bool:
    """Whether the folder that holds a module is one of packages, such as site-packages, and not the plug-in's own."""
    if root.resolve() != Path(str(distribution.locate_file(""))).resolve():
        return False
    return bool(listed) or any(root.glob("*.dist-info"))  # `setup.py develop` leaves .egg-info in the checkout itself


def _listed(distribution: Distribution) -> Iterator[tuple[str, Path]]:
    """Files that the installer lists, without those that differ by machine: metadata, scripts, links to a checkout."""
    for file in distribution.files or ():
        path = Path(str(distribution.locate_file(file)))
        top = file.parts[0]
        if top == ".." or top.endswith((".dist-info", ".egg-info", ".pth")) or top.startswith("__editable__"):
            continue
        if _counts(path):
            yield file.as_posix(), path


def _first_with_code(parts: list[str]) -> tuple[ModuleSpec | None, int]:
    """The first package or module on the way to a module that is no namespace, and its depth from 1.

    Several distributions can share a namespace package. No code is imported: a namespace has none.
    """
    for depth in range(1, len(parts) + 1):
        try:
            spec = find_spec(".".join(parts[:depth]))
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is not None:
            return spec, depth
    return None, len(parts)


def _below(folder: Path, name: str, inside: frozenset[Path] = frozenset()) -> Iterator[tuple[str, Path]]:
    """All files below a package, its data included. Links are followed, as Python does, but not in a circle."""
    real = folder.resolve()
    if real in inside:
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _below(path, f"{name}/{path.name}", inside | {real})
        elif _counts(path):
            yield f"{name}/{path.name}", path


def _importable(folder: Path, name: str, inside: frozenset[Path] = frozenset()) -> Iterator[tuple[str, Path]]:
    """Modules and whole packages that Python finds in a folder of sys.path or of a namespace; no environment.

    What counts for nothing has the name "", so that the caller sees how much there is.
    """
    real = folder.resolve()
    if real in inside or (folder / "pyvenv.cfg").exists():
        return
    for path in sorted(folder.iterdir()):
        own = f"{name}{path.name}"
        yield "", path
        if path.is_dir():
            if (path / "__init__.py").is_file():
                yield from _below(path, own)
            elif path.name.isidentifier() and path.name != "__pycache__":
                yield from _importable(path, f"{own}/", inside | {real})
        elif path.name.endswith(SUFFIXES) and _counts(path):
            yield own, path


def _counts(path: Path) -> bool:
    """Whether a file is part of the code. Python's caches are not: __pycache__/NAME.cpython-311.pyc.

    Any other .pyc is, because Python imports it where its source is missing.
    """
    return path.is_file() and not (path.parent.name == "__pycache__" and path.suffix == ".pyc" and "." in path.stem)


def _top_level(distribution: Distribution) -> list[str]:
    """Names of the modules and packages as setuptools lists them; their folders can have other names."""
    return (distribution.read_text("top_level.txt") or "").split()


def read_sources_only(distribution: Distribution, value: str) -> None:
    """Let this process never use byte code from `__pycache__` for the modules of a plug-in; arguments as `files_of`."""
    files = files_of(distribution, value)
    allow_code(files.values())
    names = [value.strip(), *_top_level(distribution), *(name.split("/")[0] for name in files)]
    _SOURCES.modules |= {re.split("[.:]", name)[0] for name in names}
    if _SOURCES not in sys.meta_path:
        sys.meta_path.insert(0, _SOURCES)


class _SourceLoader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _SourceFinder:
    """Finds modules as the other finders do, and gives those of some names a loader that reads no byte code."""

    def __init__(self) -> None:
        self.modules: set[str] = set()

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self.modules:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            if find and (spec := find(fullname, path, target)) is not None:
                if type(spec.loader) is SourceFileLoader:
                    spec.loader = _SourceLoader(spec.loader.name, spec.loader.path)
                return spec
        return None


_SOURCES = _SourceFinder()
