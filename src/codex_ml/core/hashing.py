"""Digests of files and folders: MD5 as dvc.lock has it, SHA-256 for our own record."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.core.cores import cores
from codex_ml.core.tree import TreeEntry, walk

CHUNK = 1 << 20
HASHED_AHEAD = 256  # files of a folder


@dataclass(frozen=True)
class Hashes:
    """Digests of one file or folder: `md5` as DVC writes it in dvc.lock, `sha256` for our own record."""

    md5: str
    sha256: str
    size: int  # bytes


def hash_file(path: Path) -> Hashes:
    """Hash a file in one pass."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with path.open("rb") as handle:
        piece = min(max(os.fstat(handle.fileno()).st_size + 1, 4096), CHUNK)  # a large buffer costs a small file 20 us
        while chunk := handle.read(piece):
            md5.update(chunk)
            sha256.update(chunk)
            size += len(chunk)
    return Hashes(md5.hexdigest(), sha256.hexdigest(), size)


def hash_path(path: Path, *, listing: dict[str, str] | None = None) -> Hashes:
    """Hash a file, or a folder as DVC does: the MD5 of the JSON list of `{md5, relpath}` of its files, plus `.dir`.

    The SHA-256 of a folder also covers the links that lead from one place in it to another: DVC does not see that a
    link became a copy, or where a link to a folder leads.

    Args:
        listing: if given, gets relative name -> MD5 of each file of a folder; 200 bytes per file, so for small folders.

    Raises:
        UserError: for what DVC cannot hash, such as a FIFO or a link that leads out (see `codex_ml.core.tree`).
    """
    if not path.is_dir():
        return hash_file(path)
    for _ in walk(path):  # report what DVC cannot hash before hours of hashing; 1.5 us per file
        pass
    md5, sha256, size = hashlib.md5(b"[", usedforsecurity=False), hashlib.sha256(), 0
    separator = ""
    for entry, hashes in _hashed(path):
        if hashes is not None:
            listed = json.dumps({"md5": hashes.md5, "relpath": entry.name}, sort_keys=True)
            md5.update(f"{separator}{listed}".encode())
            sha256.update(f"{hashes.sha256}  {entry.name}\n".encode())
            size, separator = size + hashes.size, ", "
            if listing is not None:
                listing[entry.name] = hashes.md5
        if entry.target:
            sha256.update(f"link to {entry.target}  {entry.name}\n".encode("utf-8", "surrogateescape"))
    md5.update(b"]")
    return Hashes(md5=f"{md5.hexdigest()}.dir", sha256=sha256.hexdigest(), size=size)


def _hashed(folder: Path) -> Iterator[tuple[TreeEntry, Hashes | None]]:
    """The entries of a folder with the hashes of its files, sorted by full name like dvc_data's Tree.as_list.

    Threads hash large files: hashlib releases the GIL for large pieces. This thread hashes small files meanwhile.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    waiting: deque[tuple[TreeEntry, Hashes | Future[Hashes] | None]] = deque()
    with ThreadPoolExecutor(cores()) as threads:
        for entry in walk(folder):
            file = folder / entry.name
            if not entry.is_file:
                waiting.append((entry, None))
            elif file.stat().st_size > CHUNK:
                waiting.append((entry, threads.submit(hash_file, file)))
            else:
                waiting.append((entry, hash_file(file)))
            if len(waiting) > HASHED_AHEAD:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())


def _result(entry: TreeEntry, hashes: Any) -> tuple[TreeEntry, Hashes | None]:
    return entry, hashes if hashes is None or isinstance(hashes, Hashes) else hashes.result()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. Takes a quarter of the time of `hash_file`."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
