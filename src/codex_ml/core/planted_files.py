"""Files where Python could find them in place of another module: in src, stages, the top folder, and by PYTHONPATH.

`python -P` does not look into stages or the top folder, and a stage whose modules come from there fails
(core.loaded_code). A Python without -P does look there. So such a file is refused before any work, whether it would be
imported or not.

Used by: core.stage, `codex-ml check`, `codex-ml verify`.
"""

from __future__ import annotations

import os
import re
import site
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import codex_ml
from codex_ml.core.byte_code import other_byte_code
from codex_ml.core.loaded_code import AT_START
from codex_ml.core.pipeline import PIPELINE, ROOTS, StageSpec
from codex_ml.core.syntax_tree import syntax_digest

# Of the file that each stage imports first and that no stage depends on, so that a new version makes none stale.
VERSION = re.compile(rb'^__version__ = "[^"\n\\]*"$', re.MULTILINE)
ROOT_SYNTAX = "9dac16b180f6122958ab9797f5f0eb228e1c8f9c9385c563da21c23ed364cf9e"
SUFFIXES = (".py", ".pyc", *EXTENSION_SUFFIXES)


def planted_files(stages: Mapping[str, StageSpec]) -> Iterator[str]:
    """One message per file that could be imported in place of another module, or beside the code that is recorded."""
    if os.environ.get("PYTHONHOME"):
        yield "PYTHONHOME is set, so Python's own modules may come from another place; unset it"
    for folder in ("src", "stages"):
        for name, path in _importable(Path(folder)):
            if path.as_posix() != "src/codex_ml" and not any(_touches(spec, path) for spec in stages.values()):
                why = f"Python could import it as {name}, and no stage declares it"
                yield f"{path}: {why}; remove it, or add it to deps in {PIPELINE}"
    names = _names_of_others()
    for name, path in _importable(Path()):
        if name in names and (path.is_file() or (path / "__init__.py").exists()):
            yield f"{path}: Python could import it in place of the module {name}; rename or remove it"
    for theirs in _of_the_shell():
        for name, path in _importable(theirs):
            if name in names - {*AT_START} and (path.is_file() or (path / "__init__.py").exists()):
                yield f"{path}: Python would import it in place of the module {name}; unset PYTHONPATH"
    yield from other_byte_code()
    root = Path(codex_ml.__file__)
    if syntax_digest(VERSION.sub(b"", root.read_bytes())) != ROOT_SYNTAX:
        yield f"{ROOTS[0]} is in no record, so it may hold the version only; move other code into a module of a stage"


def _of_the_shell() -> Iterator[Path]:
    """The folders that PYTHONPATH names, which come before those of the installed packages; src may be one."""
    folders = (Path(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry)
    yield from (folder for folder in folders if os.path.realpath(folder) != os.path.realpath("src"))


def _touches(spec: StageSpec, path: Path) -> bool:
    """Whether a stage depends on a file, or on something below a folder."""
    return spec.reads(path.as_posix()) or any(Path(dep).is_relative_to(path) for dep in spec.deps)


def _importable(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of what Python could import from a folder of sys.path, in the order of the paths."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        listed = sorted((entry.name, entry.is_dir()) for entry in entries)
    for entry, is_folder in listed:
        name = entry if is_folder else entry.partition(".")[0]
        if name.isidentifier() and name != "__pycache__" and (is_folder or entry.endswith(SUFFIXES)):
            yield name, folder / entry


def _names_of_others() -> set[str]:
    """Names of the modules that are not ours: of Python, of the installed packages, and of code at Python's start."""
    names = {*sys.stdlib_module_names, *AT_START, "codex_ml"}
    for folder in filter(os.path.isdir, site.getsitepackages()):
        names.update(name.partition(".")[0] for name in os.listdir(folder))  # noqa: PTH208 - hundreds of names
    return names
