"""Read a folder of code or text: one document per file. Used by: ingest."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from codex_ml.core.dvcignore import DvcIgnore
from codex_ml.core.errors import Reason, naming
from codex_ml.core.tree import rules_for, stands_for
from codex_ml.documents.document import Document, Refused
from codex_ml.ingest.readers.compression import changed_while_read, state_of
from codex_ml.ingest.readers.gitignore import Pattern, parse
from codex_ml.ingest.readers.name_globs import NameGlobs
from codex_ml.ingest.readers.origin import Origin
from codex_ml.ingest.readers.tasks import Context, ReadTask

BATCH_BYTES, BATCH_FILES = 4 << 20, 4096
GITIGNORE_LIMIT = 1 << 20  # bytes
NO_FILE = (errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ENOENT)  # a link, a socket, a device without a driver, deleted

Patterns = tuple[tuple[str, list[Pattern]], ...]  # (folder with "/" at its end, patterns of its .gitignore), top first


@dataclass(frozen=True)
class FilesTask(ReadTask):
    """Some files below the folder of the context.

    Attributes:
        names: relative to the folder.
        follow: whether a name may be a symbolic link.
    """

    names: tuple[str, ...]
    follow: bool = False

    def read(self) -> Iterator[Document | Refused]:
        """One document per file, in the order of the names."""
        source = self.context.source
        origin = Origin(self.context, source.label, source.licence)
        for name in self.names:
            yield _read_file(origin, name, follow=self.follow)


def plan_files(context: Context) -> Iterator[FilesTask | Refused]:
    """Cut the files below a folder into tasks; the path of the context may also be one file."""
    source, path = context.source, Path(context.path)
    if path.is_file():
        # the source itself may be a link, because DVC makes such links; a file below a folder must not be one
        yield FilesTask(replace(context, path=str(path.parent)), path.stat().st_size, (path.name,), follow=True)
        return
    names = NameGlobs.of(source)
    batch: list[str] = []
    held = found = 0
    for name, size in _walk(path, ignore=source.gitignore):
        if not names.accepts(name):
            continue
        found += 1
        batch.append(name)
        held += min(size, context.max_bytes)
        if held >= BATCH_BYTES or len(batch) >= BATCH_FILES:
            yield FilesTask(context, held, tuple(batch))
            batch, held = [], 0
    if batch:
        yield FilesTask(context, held, tuple(batch))
    if not found:
        reason = Reason("has no file that matches {}", source.glob)
        yield Refused(source.label, "", None, reason, bad=False, place=context.file)


def _walk(folder: Path, *, ignore: bool) -> Iterator[tuple[str, int]]:
    """(relative name, size) of everything below a folder except folders, sorted.

    It leaves out `.git` and what .dvcignore excludes. It does not follow links, except links into DVC's cache, because
    DVC can store a file as such a link.
    """
    rules, prefix = rules_for(folder)

    def listed(below: str, patterns: Patterns) -> tuple[str, Patterns, Iterator[bytes]]:
        names = _listed(folder, below, prefix, rules)
        return below, (*patterns, *_own_patterns(folder / below, below, names)) if ignore else (), iter(names)

    stack = [listed("", ())]  # not recursive: a path can have more folders than Python allows nested calls
    while stack:
        below, patterns, names = stack[-1]
        entry = next(names, None)
        if entry is None:
            stack.pop()
            continue
        own, _, mark = os.fsdecode(entry).partition("\0")
        name = below + own
        if own == ".git" or _ignored(patterns, name, is_folder=mark == FOLDER):
            continue
        if mark == FOLDER:
            stack.append(listed(name + "/", patterns))
        else:
            path = folder / name
            yield name, (stands_for(path) if mark == LINK else path).lstat().st_size


FOLDER, LINK = "f", "l"  # marks of folders and links; NUL separates them from the name, because no name holds NUL


def _listed(folder: Path, below: str, prefix: str, rules: DvcIgnore) -> list[bytes]:
    """Names in one folder, sorted, each with the mark of its kind. Entries of os.scandir take ten times the memory."""
    names = []
    with os.scandir(folder / below) as listing:
        for entry in listing:
            is_folder = entry.is_dir(follow_symlinks=False)
            if not rules.matches(prefix + below + entry.name, is_folder=is_folder):
                mark = f"\0{FOLDER}" if is_folder else f"\0{LINK}" if entry.is_symlink() else ""
                names.append(os.fsencode(entry.name + mark))
    names.sort()
    return names


def _own_patterns(folder: Path, below: str, names: list[bytes]) -> Patterns:
    """The patterns of a folder's .gitignore, without the lines of `dvc add`: the user did not choose those."""
    own = folder / ".gitignore"
    if not {b".gitignore", b".gitignore\0" + LINK.encode()}.intersection(names):
        return ()
    if not stat.S_ISREG((file := stands_for(own)).lstat().st_mode):
        return ()
    with file.open("rb") as opened:
        lines = opened.read(GITIGNORE_LIMIT).decode("utf-8", "surrogateescape").split("\n")
    present = (os.fsdecode(name.partition(b"\0")[0]) for name in names)
    added = {f"/{name.removesuffix('.dvc')}" for name in present if name.endswith(".dvc")}
    return ((below, parse("\n".join(line for line in lines if re.sub(r"\\(.)", r"\1", line) not in added))),)


def _ignored(patterns: Patterns, name: str, *, is_folder: bool) -> bool:
    """The last pattern of the innermost .gitignore that matches decides (gitignore(5))."""
    for below, own in reversed(patterns):
        for pattern in reversed(own):
            if pattern.matches(name[len(below) :], is_folder=is_folder):
                return not pattern.negated
    return False


def _read_file(origin: Origin, name: str, *, follow: bool) -> Document | Refused:
    place, max_bytes = Path(origin.context.path, name), origin.max_bytes
    path = place if follow else stands_for(place)
    try:
        mode = path.stat(follow_symlinks=follow).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):  # opening it can block or have side effects
            return origin.refused(name, "not a regular file", bad=False)
        # do not follow a link out of the folder, and do not block if the file has just become a FIFO
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno in NO_FILE:
            return origin.refused(name, "not a regular file, or not readable", bad=False)
        if error.errno in (errno.EACCES, errno.EPERM):
            return origin.refused(name, "permission denied; check its owner and mode", bad=True)
        raise
    try:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            return origin.refused(name, "not a regular file", bad=False)
        if before.st_size > max_bytes:
            return origin.refused(name, Reason("longer than {} bytes", max_bytes), bad=False)
        with naming(place), os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(before.st_size + 1)  # a buffer of max_bytes takes 20 us, too much for a small file
        after = os.fstat(handle)
    finally:
        os.close(handle)
    if len(data) != before.st_size or state_of(before) != state_of(after) or _is_another(path, before, follow=follow):
        raise changed_while_read(place)
    return origin.document(name, data)


def _is_another(path: Path, before: os.stat_result, *, follow: bool) -> bool:
    """Whether the name belongs to another file than before, so that lineage has hashed other bytes than were read."""
    try:
        return path.stat(follow_symlinks=follow).st_ino != before.st_ino
    except OSError:
        return True
