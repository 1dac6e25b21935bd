"""Read files in blocks, compressed or not. A broken file is refused as a whole, so it is checked before it is read.

Used by: ingest.
"""

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
    """A file that is refused as a whole; its text is the reason."""


def refuse_bomb(total: int, size: int, least: int) -> None:
    """Check the decompressed size of a file of `size` bytes.

    Args:
        total: bytes that were decompressed from it.
        least: decompressed bytes that are allowed for a file of any size.

    Raises:
        Broken: when `total` exceeds both `least` and BOMB_RATIO times `size`.
    """
    if total > least and total > BOMB_RATIO * size:
        amount = f"{least >> 30} GiB" if least >= 1 << 30 else f"{least >> 20} MiB"
        raise Broken(f"more than {amount} and {BOMB_RATIO} times its size: a decompression bomb")


class _Streams(io.RawIOBase):
    """Decompress all streams of a file, one after the other.

    The standard library's readers ignore whatever follows the first stream.
    """

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
        """The first bytes of the next stream; b"" at the end of the file. xz(1) allows zeros between streams."""
        while not (data := data.lstrip(b"\0") if self._new is lzma.LZMADecompressor else data):
            data = self._raw.read(BLOCK)
            if not data:
                return b""
        return data


class _OwnPosition(io.RawIOBase):
    """An open file with a separate position. Arrow needs it, because it reads ahead and closes its input."""

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
    """Raise Broken for an open file that holds only a pointer of Git LFS or git-annex: its content is missing."""
    raw.seek(0)
    reason = missing_content(raw.read(POINTER_BYTES))
    raw.seek(0)
    if reason:
        raise Broken(reason)


def blocks(path: Path) -> Iterator[tuple[bytes, int]]:
    """Read a plain or compressed file: (block of at most 4 MiB, bytes of the file that it took).

    Raises:
        Broken: before the first block, when the file is damaged, has the wrong ending, or is a decompression bomb.
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
            if kind and last < before.st_size:  # for .zst, because Arrow reads with a position of its own
                yield b"", before.st_size - last


@contextmanager
def unchanged(file: Path, before: os.stat_result | None = None) -> Iterator[None]:
    """Check that a file does not change within the block. It was checked before, so an error in it means a change.

    Args:
        before: state of the file when it was checked; None for its state now.

    Raises:
        UserError: when the file was changed.
        OSError: when the disk failed.
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
    """(size, time of the last change in ns): they differ after a write to the file."""
    return status.st_size, status.st_mtime_ns


def changed_while_read(file: Path) -> UserError:
    """The error for a file that was changed while it was read."""
    return UserError(f"{writable(str(file))} changed while it was read; stop what writes to it and run again")


def _kind(path: Path, raw: IO[bytes]) -> str:
    """The ending that names the compression of a file, "" for a plain file.

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
    # a buffer of 4 MiB takes 50 us, which is too much for a small file
    piece = BLOCK if kind else max(1, min(BLOCK, os.fstat(raw.fileno()).st_size))
    while data := stream.read(piece):
        yield data
