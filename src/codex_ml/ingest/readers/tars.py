"""Read the members of tar files, also compressed.

The module parses headers itself. `tarfile` stops silently at a damaged or truncated header and before a second archive,
so the members after it would be lost. It also reads extended headers of any size: one of 300 MB took 900 MiB.
Used by: ingest.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import dirname, join
from typing import IO, Any

from codex_ml.documents.document import Document, Refused
from codex_ml.ingest.readers import archives, compression
from codex_ml.ingest.readers.compression import DAMAGE, Broken, refuse_pointer, unchanged
from codex_ml.ingest.readers.name_globs import NameGlobs
from codex_ml.ingest.readers.origin import Origin
from codex_ml.ingest.readers.tasks import Content, Context, ReadTask

TASK_BYTES, TASK_FILES = 4 << 20, 4096
BLOCK = 512  # bytes; tar counts in them
ENDINGS = {".tgz": ".gz", ".tbz": ".bz2", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}


@dataclass(frozen=True)
class TarTask(ReadTask):
    """Some members of a tar file with their content, because a worker cannot start in the middle of a stream.

    Attributes:
        members: (name, content) of each.
    """

    members: tuple[tuple[str, Content], ...]

    def read(self) -> Iterator[Document | Refused]:
        """Documents in the order of the archive."""
        origin = archives.archive_origin(self.context)
        for name, data in self.members:
            yield origin.document(name, data)


def plan_tar(context: Context) -> Iterator[TarTask | Refused]:
    """Check the whole archive, then cut its members into tasks of about 4 MiB.

    Raises:
        UserError: when the file changes after the check.
    """
    file, names, origin = Path(context.path), NameGlobs.of(context.source), archives.archive_origin(context)
    try:
        before = file.stat()
        for _ in proved(file, context.max_bytes):
            pass
    except (Broken, *DAMAGE) as error:
        yield archives.refused_whole(origin, error)
        return
    batch: list[tuple[str, bytes]] = []
    held = last = 0
    with unchanged(file, before), opened_tar(file) as stream:
        for item in tar_files(stream, origin, names):
            if isinstance(item, Refused):
                yield item
                continue
            if held >= TASK_BYTES or len(batch) >= TASK_FILES:
                at = stream.raw.tell()
                yield TarTask(context, at - last, tuple(batch))
                batch, held, last = [], 0, at
            batch.append(item)
            held += len(item[1])
    if batch:
        yield TarTask(context, before.st_size - last, tuple(batch))


class _Stream:
    """The decompressed bytes of a tar file, read forward only.

    Its methods raise Broken for a decompression bomb, and EOFError when the file ends too early.
    """

    def __init__(self, raw: IO[bytes], stream: Any, size: int) -> None:
        self.raw, self.stream, self.size, self.position = raw, stream, size, 0

    def read(self, count: int) -> bytes:
        """Read exactly `count` bytes."""
        parts = []
        while count:
            data = self._some(min(count, 1 << 20))
            if not data:
                raise EOFError("cut short")
            parts.append(data)
            count -= len(data)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        while count:
            count -= len(self.read(min(count, 1 << 20)))

    def drain(self) -> None:
        """Read to the end, because the checksum of a compressed file is there.

        Raises:
            Broken: when another archive follows, as after `cat a.tar b.tar`: its members would be lost.
        """
        while block := self._block():
            if block[257:262] == b"ustar":
                raise Broken("a second archive follows the end of the first; unpack both, and pack them as one")

    def _block(self) -> bytes:
        """The next 512 bytes; fewer at the end."""
        block = b""
        while len(block) < BLOCK and (data := self._some(BLOCK - len(block))):
            block += data
        return block

    def _some(self, count: int) -> bytes:
        data: bytes = self.stream.read(count)
        self.position += len(data)
        compression.refuse_bomb(self.position, self.size, archives.BOMB_BYTES)
        return data


@contextmanager
def opened_tar(file: Path) -> Iterator[_Stream]:
    """Open a tar file, compressed or not; its stream checks the limits for decompression bombs.

    Raises:
        Broken: when the name and the first bytes disagree about the compression.
    """
    with file.open("rb") as raw:
        refuse_pointer(raw)
        head = raw.read(6)
        raw.seek(0)
        ending = ENDINGS.get(file.suffix.lower(), file.suffix.lower())
        kind = ending if ending in compression.MAGIC else ""
        found = next((kind for kind, magic in compression.MAGIC.items() if head.startswith(magic)), "")
        if kind != found:
            raise Broken(f"the name says {kind or 'not compressed'}, the first bytes say {found or 'something else'}")
        size = os.fstat(raw.fileno()).st_size
        if not kind:
            yield _Stream(raw, raw, size)
            return
        with compression.OPENERS[kind](raw, "rb") as stream:
            yield _Stream(raw, stream, size)


@dataclass(frozen=True)
class _Entry:
    """A member of a tar file.

    Attributes:
        name: as the archive has it; `proved` returns entries with the plain name.
        link: target of a link, relative to the top of the archive; None for other members.
    """

    name: str
    size: int
    regular: bool
    folder: bool = False
    device: bool = False
    link: str | None = None


def entries(stream: _Stream) -> Iterator[_Entry]:
    """Every member of an archive (POSIX ustar and pax, GNU).

    The caller may read up to `size` bytes of a member from the stream before it asks for the next one.
    """
    members = 0
    extended: dict[str, bytes] = {}
    while any(block := stream.read(BLOCK)):  # a block of zeros ends the archive
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.size < 0:
            raise tarfile.ReadError("a negative size")
        if info.type in (b"x", b"X", b"g", b"L", b"K"):
            if info.size > archives.METADATA_LIMIT:
                raise tarfile.ReadError(f"an extended header of {info.size} bytes")
            data = stream.read(info.size)
            stream.skip(-info.size % BLOCK)
            if info.type in (b"L", b"K"):
                extended["path" if info.type == b"L" else "linkpath"] = data.partition(b"\0")[0]
            elif info.type in (b"x", b"X"):
                extended |= _pax(data)
            continue
        members += 1
        archives.refuse_crowd(members)
        entry = _entry(info, extended)
        more = info.type == tarfile.GNUTYPE_SPARSE and block[482]
        while more:  # further blocks of the map of holes
            more = stream.read(BLOCK)[504]
        has_data = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
        end = stream.position + (entry.size + -entry.size % BLOCK if has_data else 0)
        yield entry
        stream.skip(end - stream.position)
        extended = {}
    stream.drain()


def _entry(info: tarfile.TarInfo, extended: dict[str, bytes]) -> _Entry:
    name = extended["path"].decode("utf-8", "surrogateescape") if "path" in extended else info.name
    size = int(extended["size"]) if "size" in extended else info.size
    if size < 0:
        raise tarfile.ReadError("a negative size")
    holes = info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in extended)
    regular, device = info.isreg() and not holes, info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE)
    return _Entry(name, size, regular, info.isdir(), device, _link(info, extended, name))


def _link(info: tarfile.TarInfo, extended: dict[str, bytes], name: str) -> str | None:
    if not info.islnk() and not info.issym():
        return None
    target = extended["linkpath"].decode("utf-8", "surrogateescape") if "linkpath" in extended else info.linkname
    return join(dirname(archives.plain(name)), target) if info.issym() else target


def _pax(data: bytes) -> dict[str, bytes]:
    """The records "length key=value\\n" of an extended header (POSIX pax, 4.1.3): key -> value."""
    found, at = {}, 0
    while at < len(data):
        blank = data.find(b" ", at, at + 8)
        length = int(data[at:blank]) if blank > at and data[at:blank].isdigit() else 0
        if length <= blank - at + 1 or at + length > len(data) or data[at + length - 1 : at + length] != b"\n":
            raise tarfile.ReadError("a damaged extended header")
        key, _, value = data[blank + 1 : at + length - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value
        at += length
    return found


def proved(file: Path, max_bytes: int) -> Iterator[tuple[_Entry, bytes]]:
    """Read an archive to its end and check it: (entry with plain name, content) of each regular file.

    The content is b"" for a file longer than `max_bytes`.

    Raises:
        Unsafe: for a hostile or ambiguous archive, possibly only after the last file; see `archives`.
    """
    links: set[str] = set()
    contents: dict[bytes, bytes] = {}  # hash of the name -> hash of the content: many long names would take gigabytes
    with opened_tar(file) as stream:
        for entry in entries(stream):
            archives.refuse_unsafe(entry.name, device=entry.device, link=entry.link)
            if entry.link is not None:
                links.add(archives.plain(entry.name))
            if entry.regular:
                data = stream.read(entry.size) if entry.size <= max_bytes else b""
                value = _digest(b"%d " % entry.size + data)
                if contents.setdefault(_digest(os.fsencode(archives.plain(entry.name))), value) != value:
                    raise archives.twice(entry.name)
                yield replace(entry, name=archives.plain(entry.name)), data
    if links:  # a second pass, because a link can come after members below it
        with opened_tar(file) as stream:
            for entry in entries(stream):
                archives.refuse_through(entry.name, links, is_link=entry.link is not None)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def tar_files(
    stream: _Stream, origin: Origin, names: NameGlobs, prefix: str = ""
) -> Iterator[tuple[str, bytes] | Refused]:
    """(name, content) of the members that the globs choose, or their refusals.

    Of several members with one name it returns the first; `proved` has checked that they are equal.
    """
    met: set[bytes] = set()
    found: set[bytes] = set()
    for entry in entries(stream):
        whole = archives.plain(entry.name)
        name = whole.removeprefix(prefix)
        if entry.folder or not archives.is_wanted(names, name):
            continue
        key, short = _digest(os.fsencode(whole)), _digest(os.fsencode(name))
        if entry.regular and key in met:
            continue
        why = archives.why_not(name, entry.size, origin.max_bytes, regular=entry.regular, again=short in found)
        if why:
            yield origin.refused(name, why[0], bad=why[1])
        else:
            yield name, stream.read(entry.size)
        if entry.regular:
            met.add(key)
            found.add(short)
