"""Documents in archives: what zip, tar and packages share. Nothing is unpacked to disk, no name becomes a path.

A damaged archive is refused whole, so it is proved before the first of its documents.
"""

from __future__ import annotations

import os
import re
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path

from codex_ml.config import Source
from codex_ml.data.documents import Document, Refused, writable
from codex_ml.data.licences import licence_of_metadata
from codex_ml.data.readers import compression
from codex_ml.data.readers.compression import Broken
from codex_ml.data.readers.files import Names, file_document, group_of
from codex_ml.errors import Reason, UserError, reason_of

MOST_MEMBERS = 1_000_000
LONGEST_NAME = 4096  # characters; PATH_MAX of Linux
BOMB_BYTES, BOMB_RATIO = 64 << 20, 200  # sources compress 3 to 20 times
METADATA_LIMIT = 1 << 20  # bytes of METADATA, PKG-INFO or an extended header of tar
DAMAGE = (
    *compression.DAMAGE, zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError, NotImplementedError, RuntimeError,
    struct.error, OverflowError,
)  # fmt: skip
STRANGE = re.compile(r"\\|(?:\A|/)(?:\.{0,2}/|\.{0,2}\Z)")  # backslashes, and parts that are no name


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
        return replace(self, licence=licence or self.licence)

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
        name = writable(name[:LONGEST_NAME])
        return Refused(self.label, name, None, reason, bad, place=f"{writable(self.file)}/{name}")

    def refused_whole(self, error: Exception) -> Refused:
        reason = reason_of(error) if isinstance(error, Broken) else Reason("damaged ({})", _short(error))
        return Refused(self.source.label, writable(self.file), None, reason)


def why_not(name: str, size: int, max_bytes: int, *, regular: bool, again: bool) -> tuple[str, bool] | None:
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
    return (Reason("longer than {} bytes", max_bytes), False) if size > max_bytes else None


def wanted(names: Names, name: str) -> bool:
    """Hostile names are compared as what they would be elsewhere, so that they are reported."""
    if not STRANGE.search(name):
        return names.wanted(name)
    return names.wanted("/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")))


def refuse_bomb(total: int, size: int) -> None:
    """Raises Broken when so many bytes come out of a file of this size."""
    if total > BOMB_BYTES and total > BOMB_RATIO * size:
        raise Broken(f"more than {BOMB_BYTES >> 20} MiB and {BOMB_RATIO} times its size: a decompression bomb")


def refuse_crowd(members: int) -> None:
    """Raises Broken for more members than anybody wants to read."""
    if members > MOST_MEMBERS:
        raise Broken(f"more than {MOST_MEMBERS:,} members")


@contextmanager
def unchanged(file: Path, before: os.stat_result | None = None) -> Iterator[None]:
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
