"""Read the members of zip files. Used by: ingest."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from posixpath import dirname, join
from typing import IO

from codex_ml.documents.document import Document, Refused
from codex_ml.ingest.readers import archives
from codex_ml.ingest.readers.compression import DAMAGE, Broken, refuse_bomb, refuse_pointer, unchanged
from codex_ml.ingest.readers.name_globs import NameGlobs
from codex_ml.ingest.readers.origin import LONGEST_NAME, Origin
from codex_ml.ingest.readers.tasks import Context, ReadTask

TASK_BYTES, TASK_FILES = 8 << 20, 4096
ENCRYPTED = 0x1 | 0x40 | 0x2000  # flag bits: encrypted, strongly encrypted, directory encrypted
Member = tuple[str, zipfile.ZipInfo]  # (plain name, entry)
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile inflates bzip2 and LZMA without a limit


@dataclass(frozen=True)
class ZipTask(ReadTask):
    """Members `start` to `stop - 1` of a zip file, in the order of their names."""

    start: int
    stop: int

    def read(self) -> Iterator[Document | Refused]:
        """Documents in the order of their names."""
        origin, file = archives.archive_origin(self.context), self.context.path
        with unchanged(Path(file)):
            archive, members = _opened_last(file)
            chosen = Members(archive, members, range(self.start, min(self.stop, len(members))))
            for item in zip_files(chosen, origin, NameGlobs.of(self.context.source)):
                yield item if isinstance(item, Refused) else origin.document(*item)
        if self.stop >= len(members):
            _close_last()


_last: dict[tuple[str, int, int, int], tuple[ExitStack, zipfile.ZipFile, list[Member]]] = {}


def _opened_last(file: str) -> tuple[zipfile.ZipFile, list[Member]]:
    """An archive that stays open for its next task, so a process reads its directory once, not once per task."""
    status = Path(file).stat()
    state = (file, status.st_ino, status.st_size, status.st_mtime_ns)
    if state not in _last:
        _close_last()
        with ExitStack() as stack:
            archive = stack.enter_context(opened_zip(Path(file)))
            _last[state] = stack.pop_all(), archive, members_of(archive)
    _, archive, members = _last[state]
    return archive, members


def _close_last() -> None:
    for stack, _, _ in _last.values():
        stack.close()
    _last.clear()


def plan_zip(context: Context) -> Iterator[ZipTask | Refused]:
    """Check the archive and all members that the globs choose, then cut its members into tasks of about 8 MiB."""
    names, origin = NameGlobs.of(context.source), archives.archive_origin(context)
    try:
        with opened_zip(Path(context.path)) as archive:
            members = members_of(archive)
            prove_layout(archive, members, context.max_bytes)
            for _ in zip_files(Members(archive, members, range(len(members))), origin, names):
                pass
    except (Broken, *DAMAGE) as error:
        yield archives.refused_whole(origin, error)
        return
    start = held = packed = 0
    for stop, (_, info) in enumerate(members, 1):
        held += min(info.file_size, context.max_bytes)
        packed += info.compress_size
        if held >= TASK_BYTES or stop - start >= TASK_FILES or stop == len(members):
            yield ZipTask(context, packed, start, stop)
            start, held, packed = stop, 0, 0


@contextmanager
def opened_zip(file: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file.

    Raises:
        Broken: for a decompression bomb, a pointer, or too many members; also the errors of `DAMAGE`.
    """
    with file.open("rb") as raw:
        refuse_pointer(raw)
        archives.refuse_crowd(_records(raw))
        size = raw.seek(0, os.SEEK_END)
        with zipfile.ZipFile(raw) as archive:
            refuse_bomb(sum(info.file_size for info in archive.infolist()), size, archives.BOMB_BYTES)
            yield archive


def _records(raw: IO[bytes]) -> int:
    """An upper bound for the entries of the directory (APPNOTE 4.3), before zipfile makes an object per entry."""
    size = raw.seek(0, os.SEEK_END)
    raw.seek(max(0, size - 22 - 0xFFFF))
    tail = raw.read(22 + 0xFFFF)
    whole = tail[-22:]
    at = len(tail) - 22 if whole[:4] == b"PK\5\6" and whole[-2:] == b"\0\0" else tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile("File is not a zip file")
    (length,) = struct.unpack_from("<L", tail, at + 12)
    end = size - len(tail) + at
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\6\7":  # zip64: its record comes before its locator
        (length,) = struct.unpack_from("<Q", tail, at - 76 + 40)
        end -= 76
    raw.seek(max(0, end - length))
    found = 0
    while (left := end - raw.tell()) > 0 and (data := raw.read(min(left, 4 << 20))):
        found += data.count(b"PK\1\2")
    return found


def members_of(archive: zipfile.ZipFile) -> list[Member]:
    """All members except folders, sorted by plain name; members of one name keep the order of the archive."""
    # orig_filename, because zipfile cuts info.filename at a NUL; is_dir() of an empty name raises IndexError
    files = (info for info in archive.infolist() if not info.filename.endswith("/"))
    members = ((archives.plain(info.orig_filename), info) for info in files)
    return sorted(members, key=lambda member: member[0])


def prove_layout(archive: zipfile.ZipFile, members: Sequence[Member], max_bytes: int) -> None:
    """Check an archive.

    Raises:
        Unsafe: for a hostile or ambiguous archive; see `archives`.
    """
    links = set()
    for info in archive.infolist():
        kind, link = _kind(info), None
        if kind == stat.S_IFLNK and readable(info) is None:
            target = os.fsdecode(read_member(archive, info, LONGEST_NAME))
            link = join(dirname(archives.plain(info.orig_filename)), target)
            links.add(archives.plain(info.orig_filename))
        archives.refuse_unsafe(info.orig_filename, device=kind in (stat.S_IFCHR, stat.S_IFBLK), link=link)
    if links:
        for info in archive.infolist():
            archives.refuse_through(info.orig_filename, links, is_link=_kind(info) == stat.S_IFLNK)
    for (before, one), (name, other) in pairwise(members):
        if before == name and not _equal(archive, one, other, max_bytes):
            raise archives.twice(name)


def _kind(info: zipfile.ZipInfo) -> int:
    return stat.S_IFMT(info.external_attr >> 16)


def _equal(archive: zipfile.ZipFile, one: zipfile.ZipInfo, other: zipfile.ZipInfo, max_bytes: int) -> bool:
    if (one.file_size, one.CRC, _kind(one)) != (other.file_size, other.CRC, _kind(other)):
        return False
    if one.file_size > max_bytes or readable(one) or readable(other):  # neither becomes a document
        return True
    return read_member(archive, one, max_bytes) == read_member(archive, other, max_bytes)


def readable(info: zipfile.ZipInfo) -> tuple[str, bool] | None:
    """(reason why a member cannot be opened, whether it is bad as in `Refused`); None when it can."""
    if info.flag_bits & ENCRYPTED:
        return "encrypted", True
    if info.compress_type not in METHODS:
        return f"compressed by method {info.compress_type}; only stored and deflated members are read", True
    return None


@dataclass(frozen=True)
class Members:
    """Some members of an open archive: those with the indices `chosen`."""

    archive: zipfile.ZipFile
    members: Sequence[Member]
    chosen: range


def zip_files(
    some: Members, origin: Origin, names: NameGlobs, prefix: str = ""
) -> Iterator[tuple[str, bytes] | Refused]:
    """(name, content) of the members that the globs choose, or their refusals.

    Of several members with one name it returns the first; `prove_layout` has checked that they are equal.
    """
    found: set[str] = set()
    for number in some.chosen:
        whole, info = some.members[number]
        name = whole.removeprefix(prefix)
        if not archives.is_wanted(names, name) or (number > 0 and some.members[number - 1][0] == whole):
            continue
        regular = _kind(info) in (0, stat.S_IFREG)
        why = archives.why_not(
            name, info.file_size, origin.max_bytes, regular=regular, again=bool(prefix) and name in found
        )
        if why := why or readable(info):
            yield origin.refused(name, why[0], bad=why[1])
        else:
            yield name, read_member(some.archive, info, origin.max_bytes)
        if prefix:
            found.add(name)


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> bytes:
    """Content of a member, at most `max_bytes` + 1 bytes.

    Raises:
        One of `compression.DAMAGE`.
    """
    with archive.open(info) as file:  # zipfile checks the CRC at the end, and never reads more than the directory says
        return file.read(max_bytes + 1)
