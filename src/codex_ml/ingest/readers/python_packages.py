"""Python packages: wheels and source distributions. Their metadata names source and licence. Used by: ingest."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from codex_ml.core.errors import UserError, one_line, raise_disk_error
from codex_ml.core.tree import only_hashed
from codex_ml.documents.document import Document, Refused, writable
from codex_ml.ingest.readers.archives import METADATA_LIMIT, Unsafe, is_wanted, plain, refused_whole, under
from codex_ml.ingest.readers.compression import DAMAGE, Broken, unchanged
from codex_ml.ingest.readers.name_globs import NameGlobs
from codex_ml.ingest.readers.origin import Origin
from codex_ml.ingest.readers.tars import opened_tar, proved, tar_files
from codex_ml.ingest.readers.tasks import Context, ReadTask
from codex_ml.ingest.readers.zips import Members, members_of, opened_zip, prove_layout, read_member, readable, zip_files

PKG_INFO = r"[^/\\]+/PKG-INFO"


@dataclass(frozen=True)
class WheelTask(ReadTask):
    """One wheel. The source of its documents is "name==version", and METADATA names their licence."""

    def read(self) -> Iterator[Document | Refused]:
        """Documents in the order of their names.

        Raises:
            UserError: for a wheel that is not complete.
        """
        source, wheel = self.context.source, Path(self.context.path)
        release = "==".join(wheel.name.removesuffix(".whl").split("-")[:2])
        names = NameGlobs.of(source)
        name, _, version = release.partition("==")
        origin = Origin(self.context, _release(name, version), source.licence)
        try:
            with opened_zip(wheel) as archive:
                origin = under(origin, _wheel_metadata(archive))
                members = members_of(archive)
                prove_layout(archive, members, self.context.max_bytes)
                members = [member for member in members if ".dist-info/" not in member[0]]
                for item in zip_files(Members(archive, members, range(len(members))), origin, names):
                    yield item if isinstance(item, Refused) else origin.document(*item)
        except Broken as error:
            yield refused_whole(origin, error)
        except DAMAGE as error:
            raise_disk_error(error)
            raise UserError(
                f"{self.file} is not a whole wheel ({one_line(error)}); replace it by a whole one"
            ) from None


@dataclass(frozen=True)
class SdistTask(ReadTask):
    """One source distribution. The source of its documents is "name==version", and PKG-INFO names their licence."""

    def read(self) -> Iterator[Document | Refused]:
        """Documents with their names below the leading folder, or one refusal of a damaged file."""
        source, file = self.context.source, Path(self.context.path)
        names = NameGlobs.of(source)
        stem = re.sub(r"\.(tar\.gz|zip)\Z", "", file.name)
        origin = Origin(self.context, _release(*_split(stem)), source.licence)
        try:
            found = _proved_sdist(file, names, self.context.max_bytes)
        except (Broken, *DAMAGE) as error:
            yield refused_whole(origin, error)
            return
        folder, headers = found or (stem, None)
        if headers is not None:
            name, version = str(headers.get("Name") or ""), str(headers.get("Version") or "")
            label = _release(name, version) if _plain(name) and _plain(version) else origin.label
            origin = under(replace(origin, label=label), headers)
        with unchanged(file):
            for item in _sdist_files(file, origin, names, folder + "/"):
                yield item if isinstance(item, Refused) else origin.document(*item)


def plan_wheels(context: Context) -> Iterator[WheelTask | Refused]:
    """One task per wheel of a folder, in the order of their names.

    Raises:
        UserError: when the path is not a folder, or has no wheel.
    """
    for file in _packages(context, "wheel", "*.whl"):
        yield WheelTask(replace(context, path=str(file)), file.stat().st_size)


def plan_sdists(context: Context) -> Iterator[SdistTask | Refused]:
    """One task per source distribution of a folder; raises as `plan_wheels`."""
    for file in _packages(context, "sdist", "*.tar.gz", "*.zip"):
        yield SdistTask(replace(context, path=str(file)), file.stat().st_size)


def _packages(context: Context, kind: str, *globs: str) -> list[Path]:
    source, folder = context.source, Path(context.path)
    if not folder.is_dir():
        raise UserError(f"ingest.sources: {source.path} is not a folder; `kind: {kind}s` reads a folder of {kind}s")
    found = only_hashed((file for glob in globs for file in folder.glob(glob)), folder)
    files = sorted((file for file in found if file.is_file()), key=os.fsencode)  # a FIFO would block
    if not files:
        raise UserError(f"ingest.sources: {source.path} has no {kind} ({', '.join(globs)})")
    return files


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


def two_of_them(name: str) -> Unsafe:
    """The error for a package with metadata in two folders."""
    return Unsafe(name, "metadata in a second folder")


def _wheel_metadata(archive: zipfile.ZipFile) -> Message | None:
    found = _first(archive, r"[^/]+\.dist-info/METADATA")
    return None if found is None else _headers(read_member(archive, found, METADATA_LIMIT))


def _first(archive: zipfile.ZipFile, pattern: str) -> zipfile.ZipInfo | None:
    """The member with such a name, if it can be read; else None.

    Raises:
        Unsafe: for two in different folders, because each could name another licence.
    """
    found = [info for info in archive.infolist() if re.fullmatch(pattern, plain(info.orig_filename))]
    for info in found[1:]:
        if plain(info.orig_filename) != plain(found[0].orig_filename):
            raise two_of_them(info.orig_filename)
    usable = (info for info in found if info.file_size <= METADATA_LIMIT and readable(info) is None)
    return next(usable, None)


def _proved_sdist(file: Path, names: NameGlobs, max_bytes: int) -> tuple[str, Message] | None:
    """Read a source distribution to its end: (leading folder, PKG-INFO), or None without PKG-INFO.

    Raises:
        Broken: for an unsafe archive; also the errors of `DAMAGE`.
    """
    if file.suffix == ".zip":
        with opened_zip(file) as archive:
            members = members_of(archive)
            prove_layout(archive, members, max_bytes)
            for name, info in members:
                if is_wanted(names, name.partition("/")[2]) and readable(info) is None and info.file_size <= max_bytes:
                    read_member(archive, info, max_bytes)
            found = _first(archive, PKG_INFO)
            if found is None:
                return None
            return plain(found.orig_filename).partition("/")[0], _headers(read_member(archive, found, METADATA_LIMIT))
    result: tuple[str, Message] | None = None
    for entry, data in proved(file, max(max_bytes, METADATA_LIMIT)):
        if entry.size > METADATA_LIMIT or not re.fullmatch(PKG_INFO, entry.name):
            continue
        folder = entry.name.partition("/")[0]
        if result is not None and result[0] != folder:
            raise two_of_them(entry.name)
        result = folder, _headers(data)
    return result


def _sdist_files(file: Path, origin: Origin, names: NameGlobs, folder: str) -> Iterator[tuple[str, bytes] | Refused]:
    if file.suffix == ".zip":
        with opened_zip(file) as archive:
            members = members_of(archive)
            yield from zip_files(Members(archive, members, range(len(members))), origin, names, folder)
    else:
        with opened_tar(file) as stream:
            yield from tar_files(stream, origin, names, folder)
