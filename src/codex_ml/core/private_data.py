"""Who may read the raw corpus on disk: its owner. `data/corpus` and DVC's cache hold it; all else is cleaned.

Used by: core.stage, split, `codex-ml check`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

CACHE, SETTINGS = Path(".dvc/cache"), ("config", "config.local")  # beside the cache


def make_private_cache() -> None:
    """Make DVC's cache of this checkout, where it is missing: DVC copies the raw corpus into it, for all to read.

    A cache that is there already, or that a team shares by the setting `cache.shared` of DVC, keeps its mode; see
    `open_cache`.
    """
    if CACHE.parent.is_dir() and not _shares_cache():
        CACHE.mkdir(mode=0o700, exist_ok=True)


def _shares_cache() -> bool:
    texts = (file.read_text("utf-8", "replace") for name in SETTINGS if (file := CACHE.with_name(name)).is_file())
    return any(re.search(r"^\s*shared\s*=", text, re.MULTILINE) for text in texts)


def open_cache() -> str:
    """A warning of one line where every user of this machine can read DVC's cache of this checkout, else ""."""
    if CACHE.is_symlink() or not CACHE.is_dir() or not CACHE.stat().st_mode & 0o005:
        return ""
    return f"every user of this machine can read the raw documents in {CACHE}; `chmod 700 {CACHE}` makes it private"


def keep_private(folder: Path) -> None:
    """Take a folder that `ingest` wrote back from other users: `dvc checkout` and `dvc pull` make it anew by the umask.

    Where another user owns it, it stays as it is.
    """
    if not folder.is_symlink() and folder.stat().st_mode & 0o077:
        with suppress(PermissionError):
            folder.chmod(0o700)
