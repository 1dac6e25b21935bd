"""Which code this process runs: each module must come from a file that a record holds.

    the standard library     the record has the version of Python
    an installed package     its RECORD lists the file; `codex-ml check` compares the versions with requirements.lock
    this checkout            a dependency of the stage in dvc.yaml
    a plug-in                its lock, or the details of the evaluation
    compiled kernels         torch wrote them in this run, into a folder that this run made
    code at Python's start   `start_code` gives its hashes to the record: sitecustomize, .pth files, LD_PRELOAD

Anything else was put in the way of a module, such as by PYTHONPATH, and the stage fails.

Used by: core.stage, core.parallel, core.record, `codex-ml check`, `codex-ml verify`.
"""

from __future__ import annotations

import os
import re
import site
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import codex_ml
from codex_ml.core.dvcignore import FILE as IGNORE_FILE
from codex_ml.core.errors import CheckFailed
from codex_ml.core.hashing import sha256_of
from codex_ml.core.namesakes import AT_START
from codex_ml.core.pipeline import PIPELINE, ROOTS, StageSpec
from codex_ml.core.tree import rules_for, why_not_traced
from codex_ml.core.variables import preloaded

MODULE = re.compile(rb'^(?:"([^"\n]+\.(?:py|pyc|so))"|([^\n,"]+\.(?:py|pyc|so))),', re.MULTILINE)  # of a RECORD
_others: set[str] = set()  # files and folders from which modules may come too
Guard = Callable[[str, tuple[Any, ...]], None]  # an audit hook


@dataclass(frozen=True)
class WatchedStage:
    """What the worker processes of a stage must check too; it can be pickled.

    Attributes:
        guard: the audit hook of the network; None for a stage that may use it.
        others: what `allow_code` was told.
    """

    spec: StageSpec
    guard: Guard | None
    others: frozenset[str] = frozenset()

    def begin(self) -> None:
        """In a worker process: start to check; see `watch`."""
        if self.guard is not None:
            sys.addaudithook(self.guard)
        _others.update(self.others)
        watch(self.spec, guard=self.guard)


_watch: WatchedStage | None = None
_seen = 0  # number of modules at the last look


def watch(spec: StageSpec, *, guard: Guard | None) -> None:
    """Say which stage this process runs, for its workers.

    Args:
        guard: the audit hook that this process has, and that its workers shall have.
    """
    global _watch
    _watch = WatchedStage(spec, guard)


def watched() -> WatchedStage | None:
    """What the workers of this process must check; None outside of a stage."""
    return replace(_watch, others=frozenset(_others)) if _watch else None


def refuse_new() -> None:
    """In a worker process, after a task: check the modules if there are new ones; see `refuse_unrecorded`."""
    global _seen
    if _watch is not None and len(sys.modules) != _seen:
        refuse_unrecorded(_watch.spec)
        _seen = len(sys.modules)


def allow_code(paths: Iterable[Path]) -> None:
    """Let modules come from these files and folders: a record holds them, or this run made them."""
    _others.update(os.path.realpath(path) for path in paths)


@dataclass(frozen=True)
class LoadedModule:
    """A module of this process that no record holds.

    Attributes:
        path: relative to the checkout if it lies in it.
    """

    name: str
    path: str
    inside: bool


def refuse_unrecorded(spec: StageSpec, *, packages: bool = True) -> None:
    """Check where each module of this process comes from.

    Args:
        packages: whether to look for the modules of installed packages in their lists, which takes 50 ms.

    Raises:
        CheckFailed: names modules that no record holds, and their files.
    """
    found_all = list(unrecorded(spec, packages=packages))
    if inside := [f"{found.name} from {found.path}" for found in found_all if found.inside]:
        left_out = next((why for found in found_all if found.inside and (why := _left_out(found.path, spec))), "")
        advice = left_out or f"add its folder to the stage's deps in {PIPELINE}, or remove the file"
        raise CheckFailed(f"{spec.name} imported {', '.join(inside)}: {advice}")
    for found in found_all:
        if found.path.startswith(tuple(f"{folder}/" for folder in _site_folders())):
            advice = "no installed package lists it; `make packages` builds .venv again without it"
        else:
            advice = "it is in no record; remove the file, or unset PYTHONPATH"
        raise CheckFailed(f"{spec.name} imported {found.name} from {found.path}: {advice}")


def unrecorded(spec: StageSpec, *, packages: bool = True) -> Iterator[LoadedModule]:
    """The modules of this process that no record holds, in the order of their files; arguments: `refuse_unrecorded`."""
    files = sorted((path, name) for name, path in _module_files() if name not in AT_START)
    for path, name in files:
        if not (_is_recorded(path, spec, packages) or _is_recorded(os.path.realpath(path), spec, packages)):
            place = _in_the_checkout(path)
            yield LoadedModule(name, place or path, inside=place is not None)


def _is_recorded(path: str, spec: StageSpec, packages: bool) -> bool:
    if path.startswith(tuple(f"{folder}/" for folder in _site_folders())):
        return not packages or _is_listed(path) or _is_allowed(path)
    if path.startswith(_standard_library()) or _is_allowed(path):
        return True
    place = _in_the_checkout(path)
    return place is not None and (place in ROOTS or (spec.reads(place) and not _left_out(place, spec)))


def _left_out(place: str, spec: StageSpec) -> str:
    """Why a file of a dependency is not in its hash; "" if it is, or if it is in no dependency."""
    if not spec.reads(place):
        return ""
    folder, _, name = place.rpartition("/")
    ignores, why = _rules(folder, spec.deps)
    if why and spec.reads(folder):
        return why
    return f"{place} is in no hash, because of {IGNORE_FILE}; remove the file, or that rule" if ignores(name) else ""


@cache
def _rules(folder: str, deps: tuple[str, ...]) -> tuple[Callable[[str], bool], str]:
    """(whether DVC leaves a file of a folder out, why it leaves out the folder)."""
    rules, prefix = rules_for(Path(folder))
    return lambda name: rules.matches(prefix + name, is_folder=False), why_not_traced(folder, deps)


def _in_the_checkout(path: str) -> str | None:
    """A path relative to the checkout, whose src may be a link; None for a path that is not in it."""
    library, here = f"{Path(codex_ml.__file__).parents[1]}/", f"{Path.cwd()}/"
    if path.startswith(library):
        return f"src/{path.removeprefix(library)}"
    return path.removeprefix(here) if path.startswith(here) else None


def _module_files() -> Iterator[tuple[str, str]]:
    """(name, path of its file) of each module that came from a file."""
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__dict__", {}).get("__spec__")  # no getattr: a lazy module would import others
        path = spec.origin if spec is not None and spec.has_location else None
        if name == "__main__" or spec is None:
            path = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(path, str) and (path[:1] == "/" or name == "__main__"):
            yield name, os.path.abspath(path)  # noqa: PTH100 - names only


def _is_allowed(path: str) -> bool:
    return any(path == other or path.startswith(f"{other}/") for other in _others)


@cache
def _standard_library() -> tuple[str, ...]:
    """Beginnings of the paths of Python's own modules: a folder, and the zip file that may replace it."""
    zipped = f"python{sys.version_info[0]}{sys.version_info[1]}.zip"
    folders = {str(Path(os.__file__).parent), *(path for path in sys.path if Path(path).name == zipped)}
    return tuple(f"{folder}/" for folder in sorted(folders | {os.path.realpath(folder) for folder in folders}))


@cache
def _site_folders() -> tuple[str, ...]:
    """The folders of installed packages."""
    return (*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else []))


def _is_listed(path: str) -> bool:
    """Whether an installed package lists a file of a folder of packages."""
    return any(
        path[len(folder) + 1 :].encode() in _listed(folder)
        for folder in _site_folders()
        if path.startswith(f"{folder}/")
    )


@cache
def _listed(folder: str) -> frozenset[bytes]:
    """All modules that the packages in a folder list, relative to it."""
    return frozenset(
        quoted or plain
        for record in _records(folder)
        if record.is_file()
        for quoted, plain in MODULE.findall(record.read_bytes())
    )


def _records(folder: str) -> list[Path]:
    """The RECORD of each package in a folder."""
    with os.scandir(folder) as entries:
        return [Path(entry.path, "RECORD") for entry in entries if entry.name.endswith(".dist-info")]


def start_code() -> dict[str, str]:
    """SHA-256 of the code that runs at Python's start and that no installed package brings, by the name of its file.

    It runs in each process before any check can, so it is recorded rather than refused.
    """
    return {path.name: sha256_of(path) for path in _start_files()}


def installed_start_code() -> list[Path]:
    """Files among the installed packages that run at Python's start and that no installed package lists."""
    return [path for path in _start_files() if str(path.parent) in _site_folders()]


def _start_files() -> list[Path]:
    """Files that run at Python's start, in the order of their names; see `start_code`."""
    loaded = {Path(path) for name, path in _module_files() if name in AT_START} | set(_found_at_start())
    found = {path for path in loaded if not str(path).startswith(_standard_library()) or _is_installed(path)}
    for folder in filter(os.path.isdir, _site_folders()):
        names = os.listdir(folder)  # noqa: PTH208 - a Path for each of hundreds takes longer
        found |= {path for name in names if name.endswith(".pth") and _runs_code(path := Path(folder, name))}
        found |= {Path(folder, f"{name}.py") for name in AT_START if f"{name}.py" in names}
    found.update(preloaded())
    return sorted((path for path in found if not (_is_installed(path) and _is_in_a_record(path))), key=lambda p: p.name)


def _found_at_start() -> Iterator[Path]:
    """Where Python finds the modules of its start: they can remove themselves from the modules of this process."""
    folders = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *sys.path]
    for name in AT_START if site.ENABLE_USER_SITE else AT_START[:1]:
        if (spec := PathFinder.find_spec(name, folders)) and spec.origin and spec.has_location:
            yield Path(os.path.abspath(spec.origin))  # noqa: PTH100 - names only


def _is_installed(path: Path) -> bool:
    return str(path.parent) in _site_folders()


def _runs_code(path: Path) -> bool:
    return any(line.startswith((b"import ", b"import\t")) for line in path.read_bytes().splitlines())


def _is_in_a_record(path: Path) -> bool:
    """Whether an installed package lists a file at the top of a folder of packages.

    The packages that the file names come first, so that few of the lists are read.
    """
    text, line = path.name.encode().lower() + path.read_bytes().lower(), b"\n" + path.name.encode() + b","
    records = [file for file in _records(str(path.parent)) if file.is_file()]
    records.sort(key=lambda file: file.parent.name.partition("-")[0].lower().encode() not in text)
    return any(line in b"\n" + file.read_bytes() for file in records)
