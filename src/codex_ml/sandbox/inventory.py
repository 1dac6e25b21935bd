"""What a sandbox shows of this machine, all read-only: the interpreter and its libraries.

Used by: ladder, supervisor, bubblewrap, namespaces.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORK = "/work"  # the work folder inside: a new memory file system per program, which ends with it
NULL = "/dev/null"
SYSTEM = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")


@dataclass(frozen=True)
class Inventory:
    """The files of a sandbox.

    Attributes:
        python: path of the interpreter, the same outside and inside.
        binds: (path outside, path inside), no place below another.
        links: (what the link says, path inside).
    """

    python: str
    binds: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Inventory:
        """Return the inventory whose fields, as JSON values, are given."""
        pairs = {name: tuple((a, b) for a, b in fields[name]) for name in ("binds", "links")}
        return cls(python=fields["python"], **pairs)


def take_inventory() -> Inventory:
    """List what this interpreter needs: the base of a virtual environment, not the environment itself."""
    python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    prefixes = [Path(prefix) for prefix in (sys.base_prefix, sys.base_exec_prefix)]
    prefixes += [prefix.resolve() for prefix in prefixes]
    base = [prefix / name for prefix in prefixes for name in ("lib", sys.platlibdir)]
    system = [Path(path) for path in SYSTEM]
    links = tuple((str(path.readlink()), str(path)) for path in system if path.is_symlink())
    kept: list[Path] = []
    for path in sorted({python, *base, *system}):  # a folder comes before what is below it
        if path.exists() and not path.is_symlink() and not any(path.is_relative_to(above) for above in kept):
            kept.append(path)
    return Inventory(str(python), tuple((str(path), str(path)) for path in kept), links)
