"""Files that Python finds before the module of the same name that is installed or comes with Python.

This module imports only what each start of Python has loaded already, so it can also name the file that made another
import fail.
Used by: core.planted_files, core.start_failure, core.loaded_code, cli.main.
"""

from __future__ import annotations

import os
import site
import sys
from importlib.machinery import EXTENSION_SUFFIXES

AT_START = ("sitecustomize", "usercustomize")  # Python imports them before any program
SUFFIXES = (".py", ".pyc", *EXTENSION_SUFFIXES)
SHOWN = 5  # files in a message
LIBRARY = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 - pathlib may have a namesake


def namesakes(folders: tuple[str, ...] = (".",)) -> list[str]:
    """One message per file in these folders, and in those of PYTHONPATH, that has the name of a module of others.

    An archive in PYTHONPATH is named whatever it holds.
    """
    found, names = [], names_of_others()
    for folder in folders:
        for name, path in importable(folder):
            if name in names and _is_module(path) and os.path.realpath(path) != LIBRARY:
                found.append(f"{path}: Python could import it in place of the module {name}; rename or remove it")
    for folder in _of_the_shell():
        if _is_in_a_file(folder):  # of a zip file, which is not opened
            found.append(f"{folder}: Python would import modules out of this file; unset PYTHONPATH")
        for name, path in importable(folder):
            if name in names - {*AT_START} and _is_module(path) and os.path.realpath(path) != LIBRARY:
                found.append(f"{path}: Python would import it in place of the module {name}; unset PYTHONPATH")
    return found


def all_in_one(problems: list[str]) -> str:
    """One line about several files, each of whose messages begins with its path."""
    first, *others = problems
    more = [problem.partition(": ")[0] for problem in others[: SHOWN - 1]] + ["..."] * (len(problems) > SHOWN)
    return first + (f" (and {len(others)} more: {', '.join(more)})" if others else "")


def importable(folder: str) -> list[tuple[str, str]]:
    """(name, path) of what Python could import from a folder of sys.path, in the order of the paths."""
    if not os.path.isdir(folder):  # noqa: PTH112
        return []
    with os.scandir(folder) as entries:
        listed = sorted((entry.name, entry.is_dir()) for entry in entries)
    found = []
    for entry, is_folder in listed:
        name = entry if is_folder else entry.partition(".")[0]
        if name.isidentifier() and name != "__pycache__" and (is_folder or entry.endswith(SUFFIXES)):
            found.append((name, entry if folder == "." else f"{folder}/{entry}"))
    return found


def names_of_others() -> set[str]:
    """Names of the modules that are not ours: of Python, of the installed packages, and of code at Python's start."""
    names = {*sys.stdlib_module_names, *AT_START, "codex_ml"}
    for folder in filter(os.path.isdir, site.getsitepackages()):
        names.update(name.partition(".")[0] for name in os.listdir(folder))  # noqa: PTH208
    return names


def _is_module(path: str) -> bool:
    return os.path.isfile(path) or os.path.exists(f"{path}/__init__.py")  # noqa: PTH110, PTH113


def _is_in_a_file(entry: str) -> bool:
    """Whether an entry of PYTHONPATH is a file, or a folder in an archive."""
    while entry and not os.path.exists(entry):  # noqa: PTH110
        entry = os.path.dirname(entry)  # noqa: PTH120
    return os.path.isfile(entry)  # noqa: PTH113


def _of_the_shell() -> list[str]:
    """The folders that PYTHONPATH names, which come before those of the installed packages, and may be these."""
    own = {os.path.realpath(folder) for folder in ("src", os.path.dirname(os.__file__), *site.getsitepackages())}  # noqa: PTH120
    folders = (entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry)
    return [folder for folder in folders if os.path.realpath(folder) not in own]
