"""What the readers of zip, tar and packages share. Nothing is unpacked to disk, and no member's name becomes a path.

A damaged archive is refused as a whole, so a reader checks all of it before it returns the first document. An archive
is also refused when it is ambiguous or when unpacking it would write outside its folder: `..`, absolute names, devices,
links that lead out, members below a link, two different members of one name. Names that differ in case or in Unicode
form are different names. Used by: ingest.
"""

from __future__ import annotations

import re
from dataclasses import replace
from email.message import Message
from pathlib import Path
from posixpath import normpath

from codex_ml.core.errors import Reason, one_line, raise_disk_error, reason_of
from codex_ml.documents.document import Refused, writable
from codex_ml.documents.licences import licence_of_metadata
from codex_ml.ingest.readers.compression import Broken
from codex_ml.ingest.readers.name_globs import NameGlobs
from codex_ml.ingest.readers.origin import LONGEST_NAME, Origin
from codex_ml.ingest.readers.tasks import Context

MOST_MEMBERS = 250_000  # zipfile keeps 500 bytes per member
BOMB_BYTES = 64 << 20  # bytes of all members that are allowed at any compression ratio
DEEPEST = 200  # nested folders
METADATA_LIMIT = 1 << 20  # bytes of METADATA, PKG-INFO or an extended header of tar


class Unsafe(Broken):
    """An unsafe member: the whole archive is refused."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(Reason(reason + "; nothing of this archive is read"))
        self.member = member


def archive_origin(context: Context) -> Origin:
    """What the documents of an archive have in common: its label "source/file name", and its licence."""
    source = context.source
    return Origin(context, f"{source.label}/{writable(Path(context.path).name)}", source.licence)


def under(origin: Origin, headers: Message | None) -> Origin:
    """The same origin with the licence that the package's metadata names, if it names one."""
    licence = None if headers is None else licence_of_metadata(headers)
    return replace(origin, licence=licence or origin.licence)


def refused_whole(origin: Origin, error: Exception) -> Refused:
    """The refusal of a whole archive for an error while reading it; raises an error of the disk again."""
    raise_disk_error(error)
    if isinstance(error, Unsafe):
        return origin.refused(error.member, reason_of(error), bad=True)
    reason = reason_of(error) if isinstance(error, Broken) else Reason("damaged ({})", one_line(error))
    return origin.context.refused(None, reason)


def why_not(name: str, size: int, max_bytes: int, *, regular: bool, again: bool) -> tuple[str, bool] | None:
    """(reason why a member is not read, whether it is bad as in `Refused`); None when it is read.

    Args:
        size: bytes of the member.
        regular: whether it is a regular file.
        again: whether a member of this name came before.
    """
    if "\0" in name or len(name) > LONGEST_NAME:
        return "a name with NUL, or longer than 4096 characters", True
    if "\\" in name:
        return "a name with a backslash", True
    if not regular:  # a link, a FIFO, a file with holes
        return "not a regular file", False
    if again:
        return "a second member of this name", True
    return (Reason("longer than {} bytes", max_bytes), False) if size > max_bytes else None


def plain(name: str) -> str:
    """The canonical spelling of a name: `./a//b` becomes a/b."""
    return "/".join(part for part in name.split("/") if part not in ("", ".")) if STRANGE.search(name) else name


STRANGE = re.compile(r"(?:\A|/)\.?(?:/|\Z)")  # empty parts and "."


def is_wanted(names: NameGlobs, name: str) -> bool:
    """Whether the globs choose a plain name. A backslash counts as "/", so that `why_not` can report it."""
    return names.accepts(plain(name.replace("\\", "/")) if "\\" in name else name)


def refuse_unsafe(name: str, *, device: bool = False, link: str | None = None) -> None:
    """Refuse a member that, once unpacked, would be outside, or would open a device or a file outside.

    Args:
        link: target of a link, relative to the top of the archive; None for other members.

    Raises:
        Unsafe: names the member.
    """
    elsewhere = name.replace("\\", "/")
    if elsewhere.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise Unsafe(name, "an absolute name")
    if ".." in elsewhere.split("/"):
        raise Unsafe(name, "a name that leads out of the archive")
    if name.count("/") > DEEPEST:
        raise Unsafe(name, f"a name with more than {DEEPEST} folders")
    if device:
        raise Unsafe(name, "a device")
    if link is not None and (link.startswith("/") or normpath(link).split("/")[0] == ".."):
        raise Unsafe(name, "a link that leads out of the archive")


def refuse_through(name: str, links: set[str], *, is_link: bool) -> None:
    """Refuse a member that would be written through a link.

    Args:
        links: plain names of all links of the archive.

    Raises:
        Unsafe: names the member.
    """
    parts = plain(name).split("/")
    if any("/".join(parts[:count]) in links for count in range(1, len(parts) + (not is_link))):
        raise Unsafe(name, "a member in the place of a link, or below one")


def twice(name: str) -> Unsafe:
    """The error for two different members of one name."""
    return Unsafe(name, "two different members of this name")


def refuse_crowd(members: int) -> None:
    """Raise Broken for more than MOST_MEMBERS members."""
    if members > MOST_MEMBERS:
        raise Broken(f"more than {MOST_MEMBERS:,} members")
