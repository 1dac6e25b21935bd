"""data/detectors.lock: the version and hash of the code of each detector that data/policy.yaml names.

A detector decides what may be trained on. Its code is in an installed package, which DVC does not track. So the lock
records its name, version and the hash of its files, and the stages that use detectors depend on the lock. They refuse
to run with other code, and they run again when the lock changes.
Used by: split, safety_audit, the hook for secrets, `codex-ml check`, `codex-ml verify`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from codex_ml.core.errors import UserError
from codex_ml.core.hashing import sha256_of
from codex_ml.core.io import write_text
from codex_ml.core.yaml import read_yaml
from codex_ml.policy.detectors import installed_detector

DETECTORS = Path("data/detectors.lock")
COMMAND = "`codex-ml policy lock-detectors`"
HEADER = f"# The code of the detectors that data/policy.yaml names; {COMMAND} writes it.\n"
KEYS = ("name", "distribution", "version", "object", "sha256")


def lock_of(names: Iterable[str]) -> list[dict[str, str]]:
    """The entries of data/detectors.lock for these detectors as they are installed, in order of their names.

    Raises:
        UserError: when one is not installed, or its code cannot be found.
    """
    return [_entry(installed_detector(name)) for name in sorted(set(names))]


def write_lock(names: Iterable[str], path: Path = DETECTORS) -> list[dict[str, str]]:
    """Write the lock of these detectors as they are installed; returns its entries."""
    import yaml

    entries = lock_of(names)
    write_text(path, HEADER + yaml.safe_dump({"detectors": entries}, sort_keys=False))
    return entries


def refuse_other_code(names: Iterable[str], path: Path = DETECTORS) -> None:
    """Raise unless the installed code of each detector that a policy names is the code that the lock records.

    Raises:
        UserError: names the detector, what the lock has, what is installed, and the command that updates the lock.
    """
    installed = {entry["name"]: entry for entry in lock_of(names)}
    locked = {entry["name"]: entry for entry in _read(path)}
    advice = f"run {COMMAND} and commit {path}; what uses it then runs again"
    for name in sorted(installed.keys() ^ locked.keys()):
        where, other = (path, "data/policy.yaml names") if name in installed else ("data/policy.yaml", f"{path} holds")
        raise UserError(f"{where} does not have the detector {name!r}, which {other}; {advice}")
    for name, entry in installed.items():
        for key in KEYS:
            if entry[key] != locked[name][key]:
                raise UserError(
                    f"detector {name!r}: {path} has {key} {locked[name][key]}, installed is {entry[key]} "
                    f"({entry['distribution']} {entry['version']}); {advice}"
                )


def locked_names(path: Path = DETECTORS) -> list[str]:
    """The names of the detectors in the lock; none without a lock.

    Raises:
        UserError: when the file is malformed.
    """
    return [entry["name"] for entry in _read(path)]


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():  # an older commit may have no lock; a stage that depends on it does not start without it
        return []
    value: Any = read_yaml(path)
    entries = value.get("detectors") if isinstance(value, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and entry.keys() == set(KEYS) and all(isinstance(v, str) for v in entry.values())
        for entry in entries
    ):
        raise UserError(f"{path}: expected `detectors`, a list of mappings with {', '.join(KEYS)}; {COMMAND} writes it")
    return entries


def _entry(point: EntryPoint) -> dict[str, str]:
    if point.dist is None:
        raise UserError(f"detector {point.name!r} belongs to no installed package; install it with pip")
    return {
        "name": point.name,
        "distribution": point.dist.name,
        "version": point.dist.version,
        "object": point.value,
        "sha256": _hash(point, point.dist),
    }


def _hash(point: EntryPoint, distribution: Distribution) -> str:
    """SHA-256 over the names and contents of all files of the package; it does not depend on where they are."""
    files = dict(_listed(distribution)) | dict(_imported(point.module))
    if not files:
        raise UserError(f"detector {point.name!r}: no file of {distribution.name} was found; install it with pip")
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{sha256_of(files[name])}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def _listed(distribution: Distribution) -> Iterator[tuple[str, Path]]:
    """Files that the installer lists, without those that differ by machine: metadata, scripts, links to a checkout."""
    for file in distribution.files or ():
        path = Path(str(distribution.locate_file(file)))
        top = file.parts[0]
        if top == ".." or top.endswith((".dist-info", ".egg-info", ".pth")) or top.startswith("__editable__"):
            continue
        if _counts(path):
            yield file.as_posix(), path


def _imported(module: str) -> Iterator[tuple[str, Path]]:
    """Files of the detector's top package, or its single file; an editable install does not list them.

    Several distributions can share a namespace package, so the first package below it counts.
    """
    parts, end, spec = module.split("."), 0, None
    while end < len(parts) and (spec is None or spec.origin is None):
        end += 1
        try:
            spec = find_spec(".".join(parts[:end]))
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            return
    if spec is None or spec.origin is None:
        return
    origin = Path(spec.origin)
    if not spec.submodule_search_locations:
        if origin.is_file():
            yield "/".join((*parts[: end - 1], origin.name)), origin
        return
    for file in sorted(origin.parent.rglob("*")):
        if _counts(file):
            yield "/".join((*parts[:end], *file.relative_to(origin.parent).parts)), file


def _counts(path: Path) -> bool:
    return path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
