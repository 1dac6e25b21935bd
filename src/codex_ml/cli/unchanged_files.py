"""The digest of what a command loads, which is refused if the files changed between the load and the hash.

A training that ends, `dvc checkout` or `dvc pull` can replace a folder at any moment. The result would then name a
model that was not asked.

Used by: `codex-ml evaluate`, `audit`, `generate`, `serve`.
"""

from __future__ import annotations

from pathlib import Path

from codex_ml.core.errors import UserError
from codex_ml.core.hashing import hash_path
from codex_ml.core.tree import walk

Stamp = tuple[str, int, int, int, int]  # name, device, inode, bytes, time of the last write


class UnchangedFiles:
    """A file or folder as it is; made before it is loaded.

    >>> rules = UnchangedFiles(Path("data/policy.yaml"))  # doctest: +SKIP
    >>> screen = load_filter(...)  # doctest: +SKIP
    >>> rules.digest()  # doctest: +SKIP
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamps = _stamps(path)

    def digest(self) -> str:
        """SHA-256 of the files, as `hash_path` has it.

        Raises:
            UserError: when a file was added, removed, replaced or written since this object was made.
        """
        found = hash_path(self.path).sha256
        if _stamps(self.path) != self._stamps:
            raise UserError(f"{self.path} changed while it was in use; run the command again")
        return found


def _stamps(path: Path) -> list[Stamp]:
    """Of each file. None of a folder without a model, which the load refuses: it may be a home folder."""
    if path.is_dir() and not any(path.glob("*config.json")):
        return []
    files = [(entry.name, path / entry.name) for entry in walk(path)] if path.is_dir() else [("", path)]
    return [_stamp(name, file) for name, file in files if file.exists()]


def _stamp(name: str, file: Path) -> Stamp:
    status = file.stat()
    return name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
