"""Read objects of a Git repository, and check each against its id, so that the content is what was committed.

Used by: ingest.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dulwich.object_store import BaseObjectStore, DiskObjectStore
from dulwich.objects import ObjectID, RawObjectID

from codex_ml.core.errors import Reason, naming
from codex_ml.core.tree import stands_for

MOST_ENTRIES = 5_000_000  # of all trees; trees that each name the next one twice, 30 deep, would have a billion
DEEPEST = 200  # nested folders
OBJECT_LIMIT = 256 << 20  # bytes of an object and of all bases of its delta; hosts refuse files of 100 MB
LONGEST_CHAIN = 4096  # deltas (pack.depth in git-config(1))
COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4  # gitformat-pack(5)
OFS_DELTA, REF_DELTA = 6, 7
NAMES = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}
ENTRY = re.compile(rb"([0-7]{5,6}) ([^\0]+)\0(?=.{20})", re.DOTALL)  # mode, name, and 20 bytes of its id


class Damaged(Exception):
    """An object that is missing, cannot be decoded, or does not match its id; see `Reason` for the arguments."""

    def __init__(self, reason: str, *values: object) -> None:
        super().__init__(Reason(reason, *values))


class Objects(DiskObjectStore):
    """The objects below one folder. Alternates and a multi-pack index can name files elsewhere, so they are ignored."""

    @property
    def alternates(self) -> list[BaseObjectStore]:
        return []

    def get_midx(self) -> None:
        return None


def read_object(store: Objects, name: bytes) -> tuple[int, bytes]:
    """Read an object: (kind, content).

    Args:
        name: its id, 40 hexadecimal digits.

    Raises:
        Damaged: when it is missing or damaged, hashes to another id, or needs too much memory.
    """
    try:
        _refuse_costly(store, name)
        kind, data = store.get_raw(ObjectID(name))
    except Damaged:
        raise
    except KeyError:
        raise Damaged("object {} is missing (a shallow, partial or damaged clone)", name.decode()) from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # dulwich raises a dozen types for damage, also AssertionError and struct.error
        raise Damaged("object {} is damaged ({})", name.decode(), type(error).__name__) from None
    digest = hashlib.sha1(NAMES.get(kind, b"?") + b" %d\0" % len(data), usedforsecurity=False)
    digest.update(data)
    if digest.hexdigest().encode() != name:
        raise Damaged("object {} is damaged (its content has another hash)", name.decode())
    return kind, data


def object_size(store: Objects, name: bytes) -> int | None:
    """Bytes of an object, read from its header without decompressing it; None when it is missing.

    Raises:
        Damaged: when the header is damaged.
    """
    try:
        for pack in store.packs:
            try:
                offset = pack.index.object_offset(ObjectID(name))
            except KeyError:  # another pack may have it
                continue
            return _packed_head(Path(os.fsdecode(pack.data.path)), offset).result
        file = _loose_file(store, name)
        if file is None:
            return None
        with naming(file), file.open("rb") as loose:
            head = zlib.decompressobj().decompress(loose.read(128), 64)
        return int(head.partition(b"\0")[0].partition(b" ")[2])
    except (Damaged, OSError, MemoryError):
        raise
    except Exception as error:  # as in read_object
        raise Damaged("object {} is damaged ({})", name.decode(), type(error).__name__) from None


def _refuse_costly(store: Objects, name: bytes) -> None:
    """Raise Damaged for an object that needs too much memory: a delta or zlib can expand 10 kB to gigabytes."""
    for pack in store.packs:
        try:
            offset = pack.index.object_offset(ObjectID(name))
        except KeyError:  # another pack may have it
            continue
        total = 0
        path = Path(os.fsdecode(pack.data.path))
        for _ in range(LONGEST_CHAIN):
            head = _packed_head(path, offset)
            total += max(head.size, head.result)
            if total > OBJECT_LIMIT:
                raise Damaged("object {} needs {} bytes; at most {} are read", name.decode(), total, OBJECT_LIMIT)
            if head.base is None:
                return
            offset = (
                offset - head.base if isinstance(head.base, int) else pack.index.object_offset(RawObjectID(head.base))
            )
        raise Damaged("object {} is a delta of more than {} deltas", name.decode(), LONGEST_CHAIN)
    if file := _loose_file(store, name):
        inflate, total = zlib.decompressobj(), 0
        with naming(file), file.open("rb") as loose:
            while data := inflate.unconsumed_tail or loose.read(1 << 16):
                total += len(inflate.decompress(data, 1 << 20))
                if total > OBJECT_LIMIT:
                    raise Damaged("object {} needs more than {} bytes", name.decode(), OBJECT_LIMIT)


def _loose_file(store: Objects, name: bytes) -> Path | None:
    """The file of an object that is not in a pack; None when there is none. Raises Damaged for a link or a FIFO."""
    digits = name.decode()
    file = stands_for(Path(os.fsdecode(store.path)) / digits[:2] / digits[2:])
    try:
        mode = file.lstat().st_mode
    except OSError:
        return None
    if not stat.S_ISREG(mode):
        raise Damaged("object {} is not a regular file", digits)
    return file


@dataclass(frozen=True)
class _Head:
    """The header of a packed object (gitformat-pack(5)).

    Attributes:
        size: bytes of its data after decompression.
        result: bytes of the object; for a delta, after the delta is applied.
        base: the base of a delta: its id, or its distance in bytes before this object; None for a whole object.
    """

    size: int
    result: int
    base: int | bytes | None


def _packed_head(pack: Path, offset: int) -> _Head:
    with naming(pack), pack.open("rb") as file:
        file.seek(offset)
        head = file.read(256)
    kind, size = head[0] >> 4 & 7, head[0] & 15
    at, shift = 1, 4
    while head[at - 1] & 0x80:
        size |= (head[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    if kind not in (OFS_DELTA, REF_DELTA):
        return _Head(size, size, None)
    base: int | bytes
    if kind == REF_DELTA:
        base, at = head[at : at + 20], at + 20
    else:
        base = head[at] & 0x7F
        while head[at] & 0x80:
            at += 1
            base = (base + 1 << 7) | head[at] & 0x7F
        at += 1
    delta = zlib.decompressobj().decompress(head[at:], 32)
    _, used = _varint(delta, 0)  # size of the base
    return _Head(size, _varint(delta, used)[0], base)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 0x80:
            return value, at


def walk_tree(store: Objects, root: bytes) -> Iterator[tuple[bytes, int, bytes, str]]:
    """(path, mode, id, reason to refuse it or "") of everything below a tree except folders, sorted by path.

    Raises:
        Damaged: for a damaged tree, and for too many entries or folders.
    """
    stack = [iter(_entries(store, root, b""))]
    met = 0
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            continue
        met += 1
        if met > MOST_ENTRIES or len(stack) > DEEPEST:
            raise Damaged(f"more than {MOST_ENTRIES:,} entries, or folders {DEEPEST} deep")
        path, mode, name, reason = entry
        if stat.S_ISDIR(mode) and not reason:
            stack.append(iter(_entries(store, name, path + b"/")))
        else:
            yield path, mode, name, reason


def _entries(store: Objects, tree: bytes, below: bytes) -> list[tuple[bytes, int, bytes, str]]:
    kind, data = read_object(store, tree)
    if kind != TREE:
        raise Damaged("object {} is not a tree", tree.decode())
    found: list[tuple[bytes, int, bytes, str]] = []
    at = 0
    while at < len(data):
        match = ENTRY.match(data, at)
        if match is None:
            raise Damaged("object {} is a damaged tree", tree.decode())
        at = match.end() + 20
        found.append((match[2], int(match[1], 8), data[match.end() : at].hex().encode(), ""))
    found.sort(key=lambda entry: entry[0] + b"/" * stat.S_ISDIR(entry[1]))
    seen: set[bytes] = set()
    result = []
    for name, mode, target, _ in found:
        reason = "a second entry of this name" if name in seen else ""
        if name in (b".", b"..") or b"/" in name or name.lower() == b".git":
            reason = "a name that Git does not allow"
        seen.add(name)
        result.append((below + name, mode, target, reason))
    return result
