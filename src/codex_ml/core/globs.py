"""Glob patterns over the files that DVC can see, the same in every Python."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from codex_ml.core.tree import only_hashed


def expand_glob(pattern: str) -> Iterator[Path]:
    """Paths of the current folder that match and that DVC can see, sorted by their bytes; the same in every Python.

    `**` must be a whole part of the path. It matches any number of folders, and at the end everything below. In Python
    3.11 a final `**` matches folders only, and 3.13 reads `a**` as `a*`.

    Raises:
        ValueError: for `**` inside a name; at the call, before the first path is yielded.
    """
    parts = pattern.split("/")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError("** must be a whole part of the path, as in data/**/name; use * inside a name")
    fixed = Path(*takewhile(lambda part: not set(part) & set("*?["), parts))
    found = sorted(_expanded([part for part in parts if part not in ("", ".")] + ["*"] * (parts[-1] == "**")))
    return only_hashed((Path(os.fsdecode(path)) for path in found), fixed)


def _expanded(parts: list[str]) -> set[bytes]:
    """Paths that match part by part. Each folder is listed once per part; `Path.glob` does it once per way to it.

    A path is its bytes, with b"" for the current folder: an object of pathlib takes four times as much memory.
    """
    found = {b""}
    for part in parts:
        if part == "**":
            found |= {folder for start in found for folder in _folders_below(start, found)}
        elif set(part) & set("*?["):
            matches = re.compile(fnmatch.translate(part)).match
            folders = [folder for folder in found if Path(os.fsdecode(folder)).is_dir()]
            found = {
                _path(folder, inner.name)
                for folder in folders
                for inner in _entries(folder)
                if matches(os.fsdecode(inner.name))
            }
        else:
            below = {_path(folder, os.fsencode(part)) for folder in found}
            found = {path for path in below if Path(os.fsdecode(path)).exists()}
    return found


def _entries(folder: bytes) -> Iterator[os.DirEntry[bytes]]:
    """What a folder holds."""
    with os.scandir(folder or b".") as listing:
        yield from listing


def _path(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _folders_below(start: bytes, known: set[bytes]) -> Iterator[bytes]:
    """Folders in a folder, without links and without what lies below another known one."""
    stack = [start] if Path(os.fsdecode(start)).is_dir() else []
    while stack:
        folder = stack.pop()
        inner = [_path(folder, entry.name) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]
        yield from inner
        stack += [below for below in inner if below not in known]
