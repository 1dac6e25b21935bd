"""Files that may be compressed, read in blocks. A broken one is refused whole, so it is proved before it is used."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from codex_ml.core.errors import Reason, UserError, naming, one_line, raise_disk_error
from codex_ml.documents.document import writable
from codex_ml.ingest.readers.texts import POINTER_BYTES, missing_content

BLOCK = 4 << 20  # bytes
BOMB_BYTES, BOMB_RATIO = 1 << 30, 200  # a text compresses 3 to 20 times; gzip cannot do more than 1032 (RFC 1951)
MAGIC = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\x00", ".zst": b"\x28\xb5\x2f\xfd"}
DAMAGE = (
    OSError, EOFError, ValueError, NotImplementedError, RuntimeError, OverflowError, zlib.error, lzma.LZMAError,
    struct.error, zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError, pa.ArrowException,
)  # fmt: skip


class Broken(Exception):
    """A compressed file that cannot be trusted; the text says why."""


def refuse_bomb(total: int, size: int, least: int) -> None:
    """Refuse a file of `size` bytes once `total` bytes came out of it.

    Args:
        least: bytes that may come out of any file.

    Raises:
        Broken: for more than that, and more than BOMB_RATIO times the size.
    """
    if total > least and total > BOMB_RATIO * size:
        amount = f"{least >> 30} GiB" if least >= 1 << 30 else f"{least >> 20} MiB"
        raise Broken(f"more than {amount} and {BOMB_RATIO} times its size: a decompression bomb")


class _Streams(io.RawIOBase):
    """One stream after the other. The standard library's readers take whatever follows the first for padding."""

    def __init__(self, raw: IO[bytes], new: Callable[[], Any]) -> None:
        self._raw, self._new, self._stream, self._data = raw, new, new(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._stream.eof:
                self._data = self._next_stream(self._stream.unused_data)
                if not self._data:
                    return 0
                self._stream = self._new()
            if self._stream.needs_input and not self._data:
                self._data = self._raw.read(BLOCK)
                if not self._data:
                    raise EOFError("the file ends before its last stream does")
            data, self._data = self._stream.decompress(self._data, max_length=len(buffer)), b""
            if data:
                buffer[: len(data)] = data
                return len(data)

    def _next_stream(self, data: bytes) -> bytes:
        """What begins the next stream, b"" at the end; xz(1) allows zeros between streams."""
        while not (data := data.lstrip(b"\0") if self._new is lzma.LZMADecompressor else data):
            data = self._raw.read(BLOCK)
            if not data:
                return b""
        return data


class _OwnPosition(io.RawIOBase):
    """The same open file with a position of its own, for Arrow, which reads ahead and closes what it read."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._handle, self._place = raw.fileno(), raw.tell()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._handle, len(buffer), self._place)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _open_bz2(raw: IO[bytes], mode: str) -> Any:
    return io.BufferedReader(_Streams(raw, bz2.BZ2Decompressor), BLOCK)


def _open_xz(raw: IO[bytes], mode: str) -> Any:
    return io.BufferedReader(_Streams(raw, lzma.LZMADecompressor), BLOCK)


def _open_zst(raw: IO[bytes], mode: str) -> Any:
    return pa.input_stream(_OwnPosition(raw), compression="zstd")


OPENERS: dict[str, Callable[[Any, str], Any]] = {
    ".gz": gzip.open,
    ".bz2": _open_bz2,
    ".xz": _open_xz,
    ".zst": _open_zst,
}


def refuse_pointer(raw: IO[bytes]) -> None:
    """Raises Broken for an open file whose content was never fetched: Git LFS left a pointer in its place."""
    raw.seek(0)
    reason = missing_content(raw.read(POINTER_BYTES))
    raw.seek(0)
    if reason:
        raise Broken(reason)


def blocks(path: Path) -> Iterator[tuple[bytes, int]]:
    """(block of at most 4 MiB, bytes of the file it took) of a plain or compressed file.

    Raises:
        Broken: before the first block, when the file is damaged, misnamed or a bomb.
        UserError: when the file changes while it is read.
    """
    with path.open("rb") as raw:
        before = os.fstat(raw.fileno())
        refuse_pointer(raw)
        kind = _kind(path, raw)
        if kind:
            _prove(raw, kind, before.st_size)
            raw.seek(0)
        with unchanged(path, before):
            last = 0
            for data in _read(raw, kind):
                yield data, raw.tell() - last
                last = raw.tell()
            if kind and last < before.st_size:  # Arrow reads through a handle of its own
                yield b"", before.st_size - last


@contextmanager
def unchanged(file: Path, before: os.stat_result | None = None) -> Iterator[None]:
    """What was proved a moment ago can fail only when somebody writes to the file, or the disk fails.

    Raises:
        UserError: when it was written to.
    """
    with naming(file):
        before = before or file.stat()
        try:
            yield
            after = file.stat()
        except (Broken, *DAMAGE) as error:
            raise_disk_error(error)
            raise changed_while_read(file) from None
    if state_of(before) != state_of(after):
        raise changed_while_read(file)


def state_of(status: os.stat_result) -> tuple[int, int]:
    """Size and time of the last change: what differs once somebody has written to the file."""
    return status.st_size, status.st_mtime_ns


def changed_while_read(file: Path) -> UserError:
    """What to raise for a file that was written to while it was read."""
    return UserError(f"{writable(str(file))} changed while it was read; stop what writes to it and run again")


def _kind(path: Path, raw: IO[bytes]) -> str:
    """The ending that says how the file is compressed, "" for none.

    Raises:
        Broken: when the ending and the first bytes disagree.
    """
    ending = path.suffix.lower()
    head = raw.read(6)
    raw.seek(0)
    found = next((kind for kind, magic in MAGIC.items() if head.startswith(magic)), "")
    if ending in MAGIC and head and found != ending:
        raise Broken(f"the name says {ending}, the first bytes do not")
    if ending not in MAGIC and found:
        raise Broken(f"is compressed; let its name end in {found}")
    return ending if ending in MAGIC and head else ""


def _prove(raw: IO[bytes], kind: str, size: int) -> None:
    total = 0
    try:
        for data in _read(raw, kind):
            if not total and data.startswith(tuple(MAGIC.values())):
                raise Broken("is compressed twice; unpack it once")
            total += len(data)
            refuse_bomb(total, size, BOMB_BYTES)
    except DAMAGE as error:
        raise_disk_error(error)
        raise Broken(Reason("damaged ({})", one_line(error))) from None


def _read(raw: IO[bytes], kind: str) -> Iterator[bytes]:
    stream = OPENERS[kind](raw, "rb") if kind else raw
    # a buffer of 4 MiB costs a small file 50 us
    piece = BLOCK if kind else max(1, min(BLOCK, os.fstat(raw.fileno()).st_size))
    while data := stream.read(piece):
        yield data
