"""Documents in archives: wheels, sdists, zip, tar. Nothing is unpacked to disk and no name of a member becomes a path.

A damaged archive is refused whole, so it is proved before the first of its documents. Tar is read here and not by
`tarfile`, which keeps every member it has seen, and holds extended headers of any size, in memory.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import IO, Any

from codex_ml.config import Source
from codex_ml.data.documents import Document, Refused, writable
from codex_ml.data.licences import licence_of_metadata
from codex_ml.data.readers import compression
from codex_ml.data.readers.compression import BOMB_BYTES, BOMB_RATIO, Broken
from codex_ml.data.readers.files import Names, file_document, group_of
from codex_ml.errors import UserError

ZIP_TASK_BYTES, TAR_TASK_BYTES = 8 << 20, 4 << 20
MOST_MEMBERS = 1_000_000
METADATA_LIMIT = 1 << 20  # bytes of METADATA, PKG-INFO or an extended header of tar
LONGEST_NAME = 4096  # characters; PATH_MAX of Linux
BLOCK = 512  # bytes; tar counts in them
ENCRYPTED = 0x1 | 0x40 | 0x2000  # flag bits: encrypted, strongly encrypted, directory encrypted
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile inflates bzip2 and LZMA without a limit
DAMAGE = (
    *compression.DAMAGE, zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError, NotImplementedError, RuntimeError,
    struct.error, OverflowError,
)  # fmt: skip
TAR_ENDINGS = {".tgz": ".gz", ".tbz": ".bz2", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}
Data = bytes  # tasks have a field named bytes


# --- tasks


@dataclass(frozen=True)
class WheelTask:
    """A wheel; its source is "name==version", its licence what METADATA says."""

    source: Source
    file: str
    bytes: int
    max_bytes: int

    def read(self) -> Iterator[Document | Refused]:
        """Documents in the order of their names; raises UserError for a wheel that is not whole."""
        wheel = Path(self.file)
        release = "==".join(wheel.name.removesuffix(".whl").split("-")[:2])
        names = Names.of(self.source)
        name, _, version = release.partition("==")
        origin = Origin(self.source, self.file, _release(name, version), self.source.licence, self.max_bytes)
        try:
            with _opened_zip(wheel) as archive:
                origin = origin.under(_wheel_metadata(archive))
                members = [info for info in _members(archive) if ".dist-info/" not in info.filename]
                for item in _zip_files(archive, members, range(len(members)), origin, names):
                    yield item if isinstance(item, Refused) else origin.document(*item)
        except Broken as error:
            yield origin.refused_whole(error)
        except DAMAGE as error:
            raise UserError(
                f"{writable(self.file)} is not a whole wheel ({error}); delete it and run `dvc repro` again"
            ) from None


@dataclass(frozen=True)
class SdistTask:
    """A source distribution; its source is "name==version" and its licence what PKG-INFO says."""

    source: Source
    file: str
    bytes: int
    max_bytes: int

    def read(self) -> Iterator[Document | Refused]:
        """Documents by name below the leading folder, or one refusal of a damaged file."""
        file, names = Path(self.file), Names.of(self.source)
        stem = re.sub(r"\.(tar\.gz|zip)\Z", "", file.name)
        origin = Origin(self.source, self.file, _release(*_split(stem)), self.source.licence, self.max_bytes)
        try:
            found = _proved_sdist(file, names, self.max_bytes)
        except (Broken, *DAMAGE) as error:
            yield origin.refused_whole(error)
            return
        folder, headers = found or (stem, None)
        if headers is not None:
            name, version = str(headers.get("Name") or ""), str(headers.get("Version") or "")
            label = _release(name, version) if _plain(name) and _plain(version) else origin.label
            origin = Origin(self.source, self.file, label, self.source.licence, self.max_bytes).under(headers)
        with _unchanged(file):
            for item in _sdist_files(file, origin, names, folder + "/"):
                yield item if isinstance(item, Refused) else origin.document(*item)


@dataclass(frozen=True)
class ZipTask:
    """Some members of a zip file: a range of them in the order of their names."""

    source: Source
    file: str
    start: int
    stop: int
    bytes: int
    max_bytes: int

    def read(self) -> Iterator[Document | Refused]:
        """Documents in the order of their names."""
        file = Path(self.file)
        origin = Origin.of(self.source, file, self.max_bytes)
        with _unchanged(file), _opened_zip(file) as archive:
            members = _members(archive)
            wanted = range(self.start, min(self.stop, len(members)))
            for item in _zip_files(archive, members, wanted, origin, Names.of(self.source)):
                yield item if isinstance(item, Refused) else origin.document(*item)


@dataclass(frozen=True)
class TarTask:
    """Some members of a tar file with what is in them: a compressed stream cannot be entered in the middle."""

    source: Source
    file: str
    members: tuple[tuple[str, Data], ...]
    bytes: int
    max_bytes: int

    def read(self) -> Iterator[Document | Refused]:
        """Documents in the order of the archive."""
        origin = Origin.of(self.source, Path(self.file), self.max_bytes)
        for name, data in self.members:
            yield origin.document(name, data)


@dataclass(frozen=True)
class Origin:
    """What the documents of an archive have in common."""

    source: Source
    file: str
    label: str
    licence: str
    max_bytes: int

    @classmethod
    def of(cls, source: Source, file: Path, max_bytes: int) -> Origin:
        return cls(source, str(file), f"{source.label}/{writable(file.name)}", source.licence, max_bytes)

    def under(self, headers: Message | None) -> Origin:
        """The same under the licence that the metadata of a package names, if it names one."""
        licence = None if headers is None else licence_of_metadata(headers)
        return Origin(self.source, self.file, self.label, licence or self.licence, self.max_bytes)

    def document(self, name: str, data: bytes) -> Document | Refused:
        return file_document(
            data,
            source=self.label,
            path=name,
            licence=self.licence,
            group=group_of(self.source, self.label, name),
            place=f"{self.file}/{name}",
            max_bytes=self.max_bytes,
        )

    def refused(self, name: str, reason: str, *, bad: bool) -> Refused:
        return Refused(self.label, writable(name[:LONGEST_NAME]), None, reason, bad)

    def refused_whole(self, error: Exception) -> Refused:
        reason = str(error) if isinstance(error, Broken) else f"damaged ({_short(error)})"
        return Refused(self.source.label, writable(self.file), None, reason)


# --- planning


def plan_wheels(source: Source, folder: Path, max_bytes: int) -> Iterator[WheelTask | Refused]:
    """A task for each wheel of a folder, in the order of their names.

    Raises:
        UserError: when there is no folder, or no wheel in it.
    """
    for file in _packages(source, folder, "wheel", "*.whl"):
        yield WheelTask(source, str(file), file.stat().st_size, max_bytes)


def plan_sdists(source: Source, folder: Path, max_bytes: int) -> Iterator[SdistTask | Refused]:
    """A task for each source distribution of a folder; see `plan_wheels`."""
    for file in _packages(source, folder, "sdist", "*.tar.gz", "*.zip"):
        yield SdistTask(source, str(file), file.stat().st_size, max_bytes)


def plan_zip(source: Source, file: Path, max_bytes: int) -> Iterator[ZipTask | Refused]:
    """Tasks of about 8 MiB of members, after all that are wanted were read once."""
    names, origin = Names.of(source), Origin.of(source, file, max_bytes)
    try:
        with _opened_zip(file) as archive:
            members = _members(archive)
            _prove_zip(archive, members, origin, names)
    except (Broken, *DAMAGE) as error:
        yield origin.refused_whole(error)
        return
    start = held = packed = 0
    for stop, info in enumerate(members, 1):
        held += min(info.file_size, max_bytes)
        packed += info.compress_size
        if held >= ZIP_TASK_BYTES or stop == len(members):
            yield ZipTask(source, str(file), start, stop, packed, max_bytes)
            start, held, packed = stop, 0, 0


def plan_tar(source: Source, file: Path, max_bytes: int) -> Iterator[TarTask | Refused]:
    """Tasks of about 4 MiB of members, after the whole archive was read once.

    Raises:
        UserError: when the file changes in between.
    """
    names, origin = Names.of(source), Origin.of(source, file, max_bytes)
    try:
        before = file.stat()
        with _opened_tar(file) as stream:
            for _ in _entries(stream):
                pass
    except (Broken, *DAMAGE) as error:
        yield origin.refused_whole(error)
        return
    batch: list[tuple[str, bytes]] = []
    held = last = 0
    with _unchanged(file, before), _opened_tar(file) as stream:
        for item in _tar_files(stream, origin, names):
            if isinstance(item, Refused):
                yield item
                continue
            if held >= TAR_TASK_BYTES:
                at = stream.raw.tell()
                yield TarTask(source, str(file), tuple(batch), at - last, max_bytes)
                batch, held, last = [], 0, at
            batch.append(item)
            held += len(item[1])
    if batch:
        yield TarTask(source, str(file), tuple(batch), before.st_size - last, max_bytes)


def _packages(source: Source, folder: Path, kind: str, *globs: str) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"ingest.sources: {source.path} is no folder; `kind: {kind}s` reads a folder of {kind}s")
    found = (file for glob in globs for file in folder.glob(glob))
    files = sorted((file for file in found if file.is_file()), key=os.fsencode)  # a FIFO would block for ever
    if not files:
        raise UserError(f"ingest.sources: {source.path} holds no {kind} ({', '.join(globs)})")
    return files


@contextmanager
def _unchanged(file: Path, before: os.stat_result | None = None) -> Iterator[None]:
    """What was proved a moment ago can fail only when somebody writes to the file."""
    before = before or file.stat()
    changed = UserError(f"{writable(str(file))} changed while it was read; stop what writes to it and run again")
    try:
        yield
        after = file.stat()
    except (Broken, *DAMAGE):
        raise changed from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise changed


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


# --- names and metadata


def _why_not(name: str, size: int, max_bytes: int, *, regular: bool, again: bool) -> tuple[str, bool] | None:
    """(reason, whether it counts as bad) why a member is not read, None when it is."""
    if "\0" in name or len(name) > LONGEST_NAME:
        return "a name with NUL, or longer than 4096 characters", True
    if "\\" in name:
        return "a name with a backslash", True
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "an absolute name", True
    if ".." in name.split("/"):
        return "a name that leads out of the archive", True
    if not regular:  # a link, a device, a FIFO, a file with holes
        return "not a regular file", False
    if again:
        return "a second member of this name", True
    return (f"longer than {max_bytes} bytes", False) if size > max_bytes else None


def _wanted(names: Names, name: str) -> bool:
    """Hostile names are compared as what they would be elsewhere, so that they are reported."""
    return names.wanted("/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")))


def _release(name: str, version: str) -> str:
    name = writable(name).lower().replace("_", "-")
    return f"{name}=={writable(version)}" if version else name


def _split(stem: str) -> tuple[str, str]:
    name, dash, version = stem.rpartition("-")
    return (name, version) if dash else (stem, "")


def _plain(value: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._+!-]{1,100}", value) is not None


def _headers(data: bytes) -> Message:
    return HeaderParser().parsestr(data.decode("utf-8", "replace"))


def _wheel_metadata(archive: zipfile.ZipFile) -> Message | None:
    found = _first(archive, r"[^/]+\.dist-info/METADATA")
    return None if found is None else _headers(_read_member(archive, found, METADATA_LIMIT))


def _first(archive: zipfile.ZipFile, pattern: str) -> zipfile.ZipInfo | None:
    """The first member of this name that can be read, in the order of the archive."""
    for info in archive.infolist():
        if re.fullmatch(pattern, info.filename) and info.file_size <= METADATA_LIMIT and _readable(info) is None:
            return info
    return None


# --- sdists

PKG_INFO = r"[^/\\]+/PKG-INFO"


def _proved_sdist(file: Path, names: Names, max_bytes: int) -> tuple[str, Message] | None:
    """(leading folder, PKG-INFO) of a source distribution that can be read to its end."""
    if file.suffix == ".zip":
        with _opened_zip(file) as archive:
            members = [info for info in _members(archive) if _wanted(names, info.filename.partition("/")[2])]
            for info in members:
                if _readable(info) is None and info.file_size <= max_bytes:
                    _read_member(archive, info, max_bytes)
            found = _first(archive, PKG_INFO)
            if found is None:
                return None
            return found.filename.partition("/")[0], _headers(_read_member(archive, found, METADATA_LIMIT))
    result = None
    with _opened_tar(file) as stream:
        for entry in _entries(stream):
            if result is None and entry.regular and entry.size <= METADATA_LIMIT and re.fullmatch(PKG_INFO, entry.name):
                result = entry.name.partition("/")[0], _headers(stream.read(entry.size))
    return result


def _sdist_files(file: Path, origin: Origin, names: Names, folder: str) -> Iterator[tuple[str, bytes] | Refused]:
    if file.suffix == ".zip":
        with _opened_zip(file) as archive:
            members = _members(archive)
            yield from _zip_files(archive, members, range(len(members)), origin, names, folder)
    else:
        with _opened_tar(file) as stream:
            yield from _tar_files(stream, origin, names, folder)


# --- zip


@contextmanager
def _opened_zip(file: Path) -> Iterator[zipfile.ZipFile]:
    """Raises Broken for a bomb, one of `DAMAGE` for what is no zip file."""
    with file.open("rb") as raw:
        if _records(raw) > MOST_MEMBERS:
            raise Broken(f"more than {MOST_MEMBERS:,} members")
        size = raw.seek(0, os.SEEK_END)
        with zipfile.ZipFile(raw) as archive:
            _refuse_bomb(sum(info.file_size for info in archive.infolist()), size)
            yield archive


def _refuse_bomb(total: int, size: int) -> None:
    if total > BOMB_BYTES and total > BOMB_RATIO * size:
        raise Broken(f"more than {BOMB_BYTES >> 30} GiB and {BOMB_RATIO} times its size: a decompression bomb")


def _records(raw: IO[bytes]) -> int:
    """At least the number of entries of the central directory, before zipfile makes an object of each (APPNOTE 4.3)."""
    size = raw.seek(0, os.SEEK_END)
    raw.seek(max(0, size - 22 - 0xFFFF))
    tail = raw.read(22 + 0xFFFF)
    whole = tail[-22:]
    at = len(tail) - 22 if whole[:4] == b"PK\5\6" and whole[-2:] == b"\0\0" else tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile("File is not a zip file")
    (length,) = struct.unpack_from("<L", tail, at + 12)
    end = size - len(tail) + at
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\6\7":  # zip64: its record stands before its locator
        (length,) = struct.unpack_from("<Q", tail, at - 76 + 40)
        end -= 76
    raw.seek(max(0, end - length))
    found = 0
    while (left := end - raw.tell()) > 0 and (data := raw.read(min(left, 4 << 20))):
        found += data.count(b"PK\1\2")
    return found


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Everything but folders by name; the order of equal names is that of the archive."""
    return sorted((info for info in archive.infolist() if not info.is_dir()), key=lambda info: info.filename)


def _readable(info: zipfile.ZipInfo) -> tuple[str, bool] | None:
    if info.flag_bits & ENCRYPTED:
        return "encrypted", True
    if info.compress_type not in METHODS:
        return f"compressed by method {info.compress_type}; only stored and deflated members are read", True
    return None


def _zip_files(
    archive: zipfile.ZipFile,
    members: Sequence[zipfile.ZipInfo],
    wanted: range,
    origin: Origin,
    names: Names,
    prefix: str = "",
) -> Iterator[tuple[str, bytes] | Refused]:
    """(name, content) of members."""
    for number in wanted:
        info = members[number]
        name = info.orig_filename.removeprefix(prefix)  # the other is cut at a NUL
        if not _wanted(names, name):
            continue
        kind = stat.S_IFMT(info.external_attr >> 16)
        again = number > 0 and members[number - 1].filename == info.filename
        why = _why_not(name, info.file_size, origin.max_bytes, regular=kind in (0, stat.S_IFREG), again=again)
        if why := why or _readable(info):
            yield origin.refused(name, why[0], bad=why[1])
        else:
            yield name, _read_member(archive, info, origin.max_bytes)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> bytes:
    with archive.open(info) as file:  # checks the CRC at the end, and reads no more than the directory says
        return file.read(max_bytes + 1)


def _prove_zip(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], origin: Origin, names: Names) -> None:
    for _ in _zip_files(archive, members, range(len(members)), origin, names):
        pass


# --- tar


class _Stream:
    """Decompressed bytes, forwards only.

    Raises:
        Broken: for a bomb.
        EOFError: when it ends too early.
    """

    def __init__(self, raw: IO[bytes], stream: Any, size: int) -> None:
        self.raw, self.stream, self.size, self.position = raw, stream, size, 0

    def read(self, count: int) -> bytes:
        """Exactly this many bytes."""
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
        """To the end, where the checksum of a compressed file stands."""
        while self._some(1 << 20):
            pass

    def _some(self, count: int) -> bytes:
        data: bytes = self.stream.read(count)
        self.position += len(data)
        _refuse_bomb(self.position, self.size)
        return data


@contextmanager
def _opened_tar(file: Path) -> Iterator[_Stream]:
    with file.open("rb") as raw:
        head = raw.read(6)
        raw.seek(0)
        ending = TAR_ENDINGS.get(file.suffix.lower(), file.suffix.lower())
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
    name: str
    size: int
    regular: bool


def _entries(stream: _Stream) -> Iterator[_Entry]:
    """Everything but folders (POSIX ustar and pax, GNU); at most `size` bytes may be read of each before the next."""
    members = 0
    extended: dict[str, bytes] = {}
    while any(block := stream.read(BLOCK)):  # a block of zeros ends the archive
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.size < 0:
            raise tarfile.ReadError("a negative size")
        if info.type in (b"x", b"X", b"g", b"L", b"K"):
            if info.size > METADATA_LIMIT:
                raise tarfile.ReadError(f"an extended header of {info.size} bytes")
            data = stream.read(info.size)
            stream.skip(-info.size % BLOCK)
            if info.type == b"L":
                extended["path"] = data.partition(b"\0")[0]
            elif info.type in (b"x", b"X"):
                extended |= _pax(data)
            continue
        members += 1
        if members > MOST_MEMBERS:
            raise Broken(f"more than {MOST_MEMBERS:,} members")
        entry = _entry(info, extended)
        more = info.type == tarfile.GNUTYPE_SPARSE and block[482]
        while more:  # blocks that go on with the map of the holes
            more = stream.read(BLOCK)[504]
        has_data = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
        end = stream.position + (entry.size + -entry.size % BLOCK if has_data else 0)
        if not info.isdir():
            yield entry
        stream.skip(end - stream.position)
        extended = {}
    stream.drain()


def _entry(info: tarfile.TarInfo, extended: dict[str, bytes]) -> _Entry:
    name = extended["path"].decode("utf-8", "surrogateescape") if "path" in extended else info.name
    while name.startswith("./"):
        name = name[2:]
    size = int(extended["size"]) if "size" in extended else info.size
    if size < 0:
        raise tarfile.ReadError("a negative size")
    holes = info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in extended)
    return _Entry(name, size, info.isreg() and not holes)


def _pax(data: bytes) -> dict[str, bytes]:
    """Records "length key=value\\n" of an extended header (POSIX pax, 4.1.3)."""
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


def _tar_files(
    stream: _Stream, origin: Origin, names: Names, prefix: str = ""
) -> Iterator[tuple[str, bytes] | Refused]:
    """(name, content) of members."""
    seen: set[str] = set()
    for entry in _entries(stream):
        name = entry.name.removeprefix(prefix)
        if not _wanted(names, name):
            continue
        why = _why_not(name, entry.size, origin.max_bytes, regular=entry.regular, again=name in seen)
        if why:
            yield origin.refused(name, why[0], bad=why[1])
        else:
            yield name, stream.read(entry.size)
        if len(name) <= LONGEST_NAME:
            seen.add(name)
