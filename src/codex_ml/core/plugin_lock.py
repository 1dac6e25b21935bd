"""data/<kind>.lock: the version and hash of the code of each plug-in that params.yaml or data/policy.yaml names.

A plug-in decides bytes: a detector what may be trained on, a tokenizer how text is cut. Its code is in an installed
package, which DVC does not track. So a lock records its name, version and the hash of its files, and the stages that
use it depend on the lock. They refuse to run with other code, and they run again when the lock changes.

No code of a package runs that its lock does not record: `load_locked` compares both before it imports a plug-in. A
detector is the exception, because its lock is beside the policy that names it; see policy.detectors.
Used by: the stages that use plug-ins, the hook for secrets, `codex-ml check`, `codex-ml verify`, `codex-ml plugins`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from codex_ml.core.errors import UserError
from codex_ml.core.hashing import sha256_of
from codex_ml.core.io import write_text
from codex_ml.core.plugin_files import files_of
from codex_ml.core.plugins import KINDS, Plugin, find
from codex_ml.core.yaml import read_yaml

COMMAND = "`codex-ml plugins lock`"
KEYS = ("name", "distribution", "version", "object", "sha256")
_any_code: ContextVar[bool] = ContextVar("any_code", default=False)


def lock_path(kind: str) -> Path:
    """The file of the lock of a kind."""
    return Path("data") / f"{kind}.lock"


def lock_of(kind: str, names: Iterable[str]) -> list[dict[str, str]]:
    """The entries of the lock for these plug-ins as they are installed, in order of their names.

    Raises:
        UserError: when one is not installed, or its code cannot be found.
    """
    return [_entry(find(kind, name)) for name in sorted(set(names))]


def write_lock(kind: str, names: Iterable[str], path: Path | None = None) -> list[dict[str, str]]:
    """Write the lock of these plug-ins as they are installed; returns its entries.

    Args:
        path: the lock; None for `lock_path`.
    """
    import yaml

    entries = lock_of(kind, names)
    header = f"# The code of the {kind} that {_named_in(kind)} names; {COMMAND} writes it.\n"
    write_text(path or lock_path(kind), header + yaml.safe_dump({kind: entries}, sort_keys=False))
    return entries


def refuse_other_code(kind: str, names: Iterable[str], path: Path | None = None) -> None:
    """Raise unless the installed code of each named plug-in is the code that the lock records.

    Args:
        names: all plug-ins of this kind that params.yaml or data/policy.yaml names, and nothing that is built in.
        path: the lock; None for `lock_path`.

    Raises:
        UserError: names the plug-in, what the lock has, what is installed, and the command that updates the lock.
    """
    path = path or lock_path(kind)
    installed = {entry["name"]: entry for entry in lock_of(kind, names)}
    locked = {entry["name"]: entry for entry in _read(kind, path)}
    if more := sorted(locked.keys() - installed.keys()):
        lacks = f"{_named_in(kind)} does not have the {KINDS[kind].one} {more[0]!r}, which {path} holds"
        raise UserError(f"{lacks}; {_advice(path)}")
    for name, entry in installed.items():
        _refuse_unlike(kind, entry, locked.get(name), path)


def load_locked(kind: str, name: str) -> Any:
    """Import the plug-in with a name and return its object, if its code is the one that data/<kind>.lock records.

    What a test registers has no package, so no lock records it.

    Raises:
        UserError: as `refuse_other_code`, and then nothing was imported; or when it cannot be found or imported.

    >>> load_locked("tokenizers", "characters")  # doctest: +SKIP
    """
    plugin, path = find(kind, name), lock_path(kind)
    if plugin.point is not None and not _any_code.get():
        locked = {entry["name"]: entry for entry in _read(kind, path)}
        _refuse_unlike(kind, _entry(plugin), locked.get(name), path)
    return plugin.load()


@contextmanager
def any_code() -> Iterator[None]:
    """Let `load_locked` import what is installed. Used by: `codex-ml plugins lock`, by which a user accepts it."""
    token = _any_code.set(True)
    try:
        yield
    finally:
        _any_code.reset(token)


def code_digest(kind: str, name: str) -> str:
    """SHA-256 of the installed code of a plug-in of a kind without a lock, for the record of what ran it.

    Returns:
        hexadecimal; "" where it belongs to no package, or its code cannot be found.
    """
    try:
        return _entry(find(kind, name))["sha256"]
    except UserError:
        return ""


def _refuse_unlike(kind: str, installed: dict[str, str], locked: dict[str, str] | None, path: Path) -> None:
    one, name = KINDS[kind].one, installed["name"]
    if locked is None:
        raise UserError(f"{path} does not have the {one} {name!r}, which {_named_in(kind)} names; {_advice(path)}")
    for key in KEYS:
        if installed[key] != locked[key]:
            raise UserError(
                f"{one} {name!r}: {path} has {key} {locked[key]}, installed is {installed[key]} "
                f"({installed['distribution']} {installed['version']}); {_advice(path)}"
            )


def _advice(path: Path) -> str:
    return f"run {COMMAND} and commit {path}; what uses it then runs again"


def locked_names(kind: str, path: Path | None = None) -> list[str]:
    """The names of the plug-ins in the lock; none without a lock.

    Raises:
        UserError: when the file is malformed.
    """
    return [entry["name"] for entry in _read(kind, path or lock_path(kind))]


def _named_in(kind: str) -> str:
    return KINDS[kind].named_in.partition(":")[0]


def _read(kind: str, path: Path) -> list[dict[str, str]]:
    if not path.exists():  # an older commit may have no lock; a stage that depends on it does not start without it
        return []
    value: Any = read_yaml(path)
    entries = value.get(kind) if isinstance(value, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and entry.keys() == set(KEYS) and all(isinstance(v, str) for v in entry.values())
        for entry in entries
    ):
        raise UserError(f"{path}: expected `{kind}`, a list of mappings with {', '.join(KEYS)}; {COMMAND} writes it")
    return entries


def _entry(plugin: Plugin) -> dict[str, str]:
    one = KINDS[plugin.kind].one
    if plugin.point is None or plugin.point.dist is None or not plugin.distribution:
        raise UserError(f"{one} {plugin.name!r} belongs to no installed package; install it with pip")
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "object": plugin.value,
        "sha256": _hash(plugin, plugin.point.dist),
    }


def _hash(plugin: Plugin, distribution: Distribution) -> str:
    """SHA-256 over the names and contents of all files of its code; it does not depend on where they are."""
    files = files_of(distribution, plugin.value)
    if not files:
        one = KINDS[plugin.kind].one
        raise UserError(f"{one} {plugin.name!r}: no file of {distribution.name} was found; install it with pip")
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{sha256_of(files[name])}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()
