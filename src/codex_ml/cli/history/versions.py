"""The split ledger in commits, in the index and in the folder.

A version may hold the ledger in Git (`data/split_ledger/*.txt`), in DVC (the pointer `data/split_ledger.dvc`, whose
files lie in DVC's cache) or in its old format. The lines are the same, so versions of different forms can be compared.
Used by: `codex-ml merge`, `check`, `verify`, the commit hook.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from codex_ml.cli.history.git_commands import Files, files_of_commit, parents
from codex_ml.cli.history.listing import listing_of
from codex_ml.core.conflicts import without_markers
from codex_ml.core.errors import UserError
from codex_ml.core.hashing import hash_file, hash_path
from codex_ml.core.paths import FORGOTTEN, FORMER_LEDGER, SPLIT_LEDGER
from codex_ml.core.tree import cache_folder
from codex_ml.core.yaml import parse_yaml

if TYPE_CHECKING:
    from codex_ml.split.ledger.line_format import Text

FOLDER = str(SPLIT_LEDGER)
POINTER = f"{FOLDER}.dvc"
FORMER = str(FORMER_LEDGER)
PATHS = (FOLDER, POINTER, FORMER, f"{FORMER}.dvc")


@dataclass(frozen=True)
class Part:
    """One file of a version of the ledger.

    Attributes:
        name: in the folder.
        place: for messages.
        blob: in Git; None where the file is not read from Git.
        md5: in DVC's cache; "" where it is not read from there.
    """

    name: str
    place: str
    blob: tuple[Files, str] | None = None
    md5: str = ""

    @property
    def key(self) -> str:
        """The hash that Git or DVC has of the bytes, so that equal files need not be read; "" where there is none."""
        return self.md5 or (self.blob[0].blobs[self.blob[1]] if self.blob else "")

    def read(self) -> bytes:
        """The bytes of the file."""
        if self.blob:
            files, path = self.blob
            data = files.read(path)
            assert data is not None, "a part of a version is one of its files"
            return data
        return (_cached(self.md5) if self.md5 else Path(self.place)).read_bytes()

    def equals(self, other: Part) -> bool:
        """Whether two files have the same bytes; they are read only where hashes cannot tell."""
        if self.blob and other.blob:
            return self.key == other.key
        if self.md5 or other.md5:
            return self._md5() == other._md5()
        return self.read() == other.read()

    def _md5(self) -> str:
        if self.md5 or self.blob:
            return self.md5 or hashlib.md5(self.read(), usedforsecurity=False).hexdigest()
        return hash_file(Path(self.place)).md5


@dataclass(frozen=True)
class Version:
    """The ledger of a commit, of the index or of the folder.

    Attributes:
        name: for messages.
        parts: its files.
        unreadable: "" or why not all of its lines can be read, with what to do.
        md5: of the folder, where DVC keeps it; else "".
        is_past: whether a later commit replaced it; such a version is skipped if it is damaged.
    """

    name: str
    parts: tuple[Part, ...]
    unreadable: str = ""
    md5: str = ""
    is_past: bool = False

    def is_same_folder(self, other: Version) -> bool:
        """Whether both have the same hash in DVC, so that no file must be read."""
        return bool(self.md5) and self.md5 == other.folder_md5

    @cached_property
    def folder_md5(self) -> str:
        """MD5 of the folder as DVC computes it."""
        here = self.name == FOLDER and Path(FOLDER).is_dir()
        return hash_path(Path(FOLDER)).md5 if here else self.md5

    def texts(self) -> Iterator[tuple[Part, Text]]:
        """The lines of each file, without tombstones."""
        for part in self.parts:
            if part.name != FORGOTTEN:
                yield part, text_of(part)

    def tombstones(self) -> set[tuple[str, str]]:
        """(content, reason) of what was forgotten."""
        from codex_ml.split.ledger.forgotten import read_tombstones

        return {
            entry
            for part in self.parts
            if part.name == FORGOTTEN
            for entry in read_tombstones(without_markers(part.read()), part.place)
        }


def version_in_folder() -> Version:
    """The split ledger as it is in data/split_ledger now, whether Git or DVC tracks that folder."""
    files = sorted(Path(FOLDER).glob("*.txt")) if Path(FOLDER).is_dir() else []
    former = [Path(FORMER)] if Path(FORMER).is_file() else []
    return Version(FOLDER, tuple(Part(file.name, file.as_posix()) for file in [*files, *former] if file.is_file()))


def version_of(files: Files) -> Version:
    """The ledger among the tracked files of a commit, or of a stage of the index."""
    parts, problems, folder = [], [], ""
    for path in files.blobs:
        name = PurePosixPath(path).name
        if path in (POINTER, f"{FORMER}.dvc"):
            md5, found, problem = _of_pointer(files, path)
            parts += found
            problems += [problem] * bool(problem)
            folder = md5 if path == POINTER else folder
        elif path == FORMER or name.endswith(".txt"):
            parts.append(Part(name, f"{files.name}:{path}", blob=(files, path)))
    return Version(files.name, tuple(parts), "; ".join(problems), folder)


def before_head() -> list[Version]:
    """The ledger of the parent of HEAD, which a revert may have undone; empty for a merge, or if it cannot be read.

    A clone has only the current version, and a commit must not require a fetch of earlier ones.
    """
    commits = parents()
    files = [files_of_commit(commit, *PATHS) for commit in commits] if len(commits) == 1 else []
    head = files_of_commit("HEAD", *PATHS) if files else None
    found = [version_of(each) for each in files if head and each.blobs != head.blobs]
    return past(found)


def past(versions: Iterable[Version]) -> list[Version]:
    """The versions that can be read, marked as past."""
    return [replace(version, is_past=True) for version in versions if not version.unreadable]


def _of_pointer(files: Files, path: str) -> tuple[str, list[Part], str]:
    """(MD5, the files that a pointer of `dvc add` names, "" or why they cannot be read)."""
    place = f"{files.name}:{path}"
    data = files.read(path)
    assert data is not None
    try:
        document = parse_yaml(data.decode("utf-8", "replace"), place)
        [out] = document["outs"]
        md5 = str(out["md5"])
    except (UserError, TypeError, KeyError, ValueError) as error:
        return "", [], str(error) if isinstance(error, UserError) else f"{place} is not what `dvc add` writes"
    away = f"the ledger of {files.name} is not in DVC's cache; `dvc fetch --all-commits {path}` brings it there"
    if not md5.endswith(".dir"):
        file = _cached(md5)
        there = file.is_file()
        return md5, [Part(PurePosixPath(FORMER).name, place, md5=md5)] * there, "" if there else away
    listing = listing_of(md5)
    if listing is None or not all(_cached(inner).is_file() for inner in listing.values()):
        return md5, [], away
    return md5, [Part(name, f"{place}: {name}", md5=d) for name, d in listing.items() if name.endswith(".txt")], ""


def _cached(md5: str) -> Path:
    return Path(cache_folder() or "") / "files/md5" / md5[:2] / md5[2:]


def text_of(part: Part) -> Text:
    """The lines of a file in either format, even if it holds conflict markers."""
    from codex_ml.split.ledger.former import read_former
    from codex_ml.split.ledger.line_format import read_ledger_text

    data = without_markers(part.read())
    if part.name != PurePosixPath(FORMER).name:
        return read_ledger_text(data, part.place)
    with tempfile.TemporaryDirectory(prefix="codex-ml-ledger-") as folder:  # its reader takes a file
        copy = Path(folder) / part.name
        copy.write_bytes(data)
        try:
            return read_former(copy)
        except UserError as error:
            raise UserError(str(error).replace(str(copy), part.place)) from None
