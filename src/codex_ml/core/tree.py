"""The files of a folder that DVC hashes, and what DVC cannot hash. A stage must read exactly what DVC hashes.

DVC skips what `.dvcignore` names, does not look into linked folders, follows links to files, waits forever for a FIFO
and fails at a broken link. This module reports each of these cases with advice, before DVC starts.

Used by: every stage at its start (`hashing.hash_path`), `codex-ml check`, the readers of ingest, the loaders of
models/base.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from codex_ml.core.dvcignore import FILE as IGNORE_FILE
from codex_ml.core.dvcignore import DvcIgnore, patterns_for
from codex_ml.core.errors import UserError

SPECIAL = {
    stat.S_ISFIFO: "a FIFO, for which DVC would wait forever",
    stat.S_ISSOCK: "a socket, which DVC cannot hash",
    stat.S_ISCHR: "a device, which DVC cannot hash",
    stat.S_ISBLK: "a device, which DVC cannot hash",
}
FOLDER, SPECIAL_ENTRY = "/", "\0"  # end a name in a sorted list: of a folder, and of what is not a plain file
OR_IGNORE = f"or list it in the {IGNORE_FILE} of the top folder"


@dataclass(frozen=True)
class TreeEntry:
    """An entry of a folder.

    Attributes:
        name: relative to the folder, with `/` between its parts.
        is_file: a file, or a link to a file in the folder or in DVC's cache (where DVC stores it with cache.type
            symlink).
        target: "", or for a link to another place inside the folder, that place. DVC hashes the contents of a linked
            file, and does not see a linked folder.
        problem: "", or why DVC cannot hash the folder, with the path and advice.
    """

    name: str
    is_file: bool = True
    target: str = ""
    problem: str = ""


def scan(folder: Path) -> Iterator[TreeEntry]:
    """All entries below a folder in the order of their names, without folders and without what DVC ignores.

    Memory holds only the names in the current folder and in the folders above it: 20 MB for 200,000 files in a folder.

    Raises:
        UserError: for a `.dvcignore` that cannot be read.
    """
    rules, prefix = rules_for(folder)
    if prefix and rules.ignores(prefix.rstrip("/"), is_folder=True):
        return
    check_mode = os.geteuid() != 0
    stack = [("", iter([FOLDER]))]
    while stack:
        inside, keys = stack[-1]
        key = next(keys, None)
        if key is None:
            stack.pop()
            continue
        name = inside + key.rstrip(SPECIAL_ENTRY + FOLDER)
        if key.endswith(FOLDER):
            below = name + FOLDER if name else ""
            try:
                stack.append((below, iter(_sorted_keys(folder, below, prefix, rules))))
            except OSError as error:
                yield TreeEntry(below, problem=f"{folder / below} cannot be listed ({error.strerror}); change its mode")
        elif key.endswith(SPECIAL_ENTRY):
            yield _special(folder, name)
        elif check_mode and not os.access(f"{folder}/{name}", os.R_OK):
            yield TreeEntry(name, problem=f"{folder / name} cannot be read; change its mode, {OR_IGNORE}")
        else:
            yield TreeEntry(name)


def _sorted_keys(folder: Path, below: str, prefix: str, rules: DvcIgnore) -> list[str]:
    """Names in one folder, each with a mark of its kind at the end, in the order of the full paths.

    A folder `a` sorts as `a/`, after `a.txt`, like the paths of the files in it.
    """
    keys = []
    with os.scandir(folder / below) as listing:
        for entry in listing:
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.name != ".dvc" and rules.matches(prefix + below + entry.name, is_folder=is_folder):
                continue
            if entry.name in (".dvc", IGNORE_FILE) or not _is_utf8(entry.name):
                keys.append(entry.name + SPECIAL_ENTRY)
            elif is_folder:
                keys.append(entry.name + FOLDER)
            else:
                keys.append(entry.name if entry.is_file(follow_symlinks=False) else entry.name + SPECIAL_ENTRY)
    keys.sort()
    return keys


def walk(folder: Path) -> Iterator[TreeEntry]:
    """The same entries as `scan`.

    Raises:
        UserError: at the first entry that DVC cannot hash.
    """
    for entry in scan(folder):
        if entry.problem:
            raise UserError(entry.problem)
        yield entry


def files_of(folder: Path) -> Iterator[Path]:
    """The files of a folder that are in its hash, including linked files, in the order of their bytes."""
    return (folder / entry.name for entry in scan(folder) if entry.is_file and not entry.problem)


def only_hashed(paths: Iterable[Path], folder: Path) -> Iterator[Path]:
    """The paths below a folder that are in its hash: no rule leaves them out, and no linked folder leads to them."""
    rules, prefix = rules_for(folder)
    count = len(folder.parts)
    for path in paths:
        parts = path.parts[count:]
        above = [Path(*path.parts[: count + number]) for number in range(1, len(parts))]
        if any(place.is_symlink() for place in above) or (path.is_symlink() and path.is_dir()):
            continue
        if not rules.ignores(prefix + "/".join(parts), is_folder=path.is_dir()):
            yield path


def is_left_out(path: Path) -> bool:
    """Whether DVC leaves a file out of every hash."""
    rules, prefix = rules_for(path.parent)
    return rules.ignores(prefix + path.name, is_folder=False)


def rules_for(folder: Path) -> tuple[DvcIgnore, str]:
    """(what DVC ignores in a folder, the folder relative to the repository with "/" at its end, "" for the top)."""
    here = os.getcwd()  # noqa: PTH109 - pathlib knows no lexical normalisation
    path = os.path.normpath(os.path.join(here, folder))  # noqa: PTH118
    if path != here and not _inside(path, here):
        return DvcIgnore(), ""  # outside of the repository, .dvcignore files do not count
    below = PurePosixPath(path).relative_to(here)
    return patterns_for(below), "" if below == PurePosixPath() else f"{below}/"


def _is_utf8(name: str) -> bool:
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _repository(folder: Path) -> str:
    return (
        f"{folder / '.dvc'}: DVC takes {folder} for another repository and leaves it out of the hash; remove "
        f"{folder / '.dvc'}, or list {folder} in the {IGNORE_FILE} of the top folder"
    )


def _misplaced(folder: Path, name: str) -> str:
    return f"{folder / name}: DVC refuses it in {folder}; move its lines to the {IGNORE_FILE} of the top folder"


def _special(folder: Path, name: str) -> TreeEntry:
    """The entry for what is not a plain file or folder: a link, a FIFO or a device, or a name that DVC refuses."""
    path = folder / name
    if path.name == ".dvc":  # before the patterns: none can hide it from DVC
        return TreeEntry(name, problem=_repository(path.parent))
    if path.name == IGNORE_FILE:
        return TreeEntry(name, problem=_misplaced(folder, name))
    if not _is_utf8(name):
        return TreeEntry(name, problem=f"{path}: the name is not UTF-8, so DVC cannot record it; rename it")
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            return TreeEntry(name, problem=_not_a_file(path, mode))
        target = os.path.realpath(path, strict=True)
        mode = Path(target).stat().st_mode
    except OSError as error:
        return TreeEntry(name, problem=f"{path} is a broken link ({error.strerror}); remove it, {OR_IGNORE}")
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return TreeEntry(name, problem=_not_a_file(path, mode))
    if stat.S_ISREG(mode) and _inside(target, cache_folder()):
        return TreeEntry(name)
    top = os.path.realpath(folder)
    if target == top or _inside(target, top):
        return TreeEntry(name, is_file=stat.S_ISREG(mode), target=os.path.relpath(target, top))
    return TreeEntry(name, problem=_leads_out(path, folder, is_folder=stat.S_ISDIR(mode)))


def _not_a_file(path: Path, mode: int) -> str:
    what = next((text for test, text in SPECIAL.items() if test(mode)), "neither a file nor a folder")
    return f"{path} is {what}; remove it, {OR_IGNORE}"


def _leads_out(path: Path, folder: Path, *, is_folder: bool) -> str:
    what, why = ("file", "DVC traces only what lies inside")
    if is_folder:
        what, why = ("folder", "DVC does not look into it, so a change would go unnoticed")
    return (
        f"{path} is a link to a {what} outside {folder}: {why}; copy the {what} to its place (cp -rL), or let DVC keep "
        f"it on the other disk (`dvc cache dir`, `dvc config cache.type symlink`, then `dvc add`), {OR_IGNORE}"
    )


def _inside(path: str, folder: str | None) -> bool:
    return folder is not None and path.startswith(folder.rstrip("/") + "/")


def cache_folder() -> str | None:
    """The real path of this repository's DVC cache, as DVC's configuration sets it; None without DVC.

    Raises:
        UserError: when DVC's configuration cannot be read.
    """
    settings = Path.cwd() / ".dvc"
    if not settings.is_dir():
        return None
    files = (settings / "config", settings / "config.local")
    return _cache_folder(settings, *(file.stat().st_mtime_ns if file.is_file() else 0 for file in files))


@lru_cache(maxsize=1)
def _cache_folder(settings: Path, *written: int) -> str:
    """See `cache_folder`; `written` are the times of the files, so that an edit is noticed."""
    from dvc.config import Config, ConfigError

    try:
        folder = Config(str(settings))["cache"].get("dir")
    except (ConfigError, UnicodeDecodeError) as error:
        raise UserError(f"DVC's configuration cannot be read: {error}") from None
    return os.path.realpath(folder or settings / "cache")


def stands_for(path: Path) -> Path:
    """The file in DVC's cache that `path` links to, or `path` itself."""
    if not path.is_symlink():
        return path
    target = os.path.realpath(path)
    return Path(target) if _inside(target, cache_folder()) else path


def why_not_traced(path: str, deps: Iterable[str]) -> str:
    """Why DVC would not notice a change at the path of a parameter; "" if DVC hashes it as part of a dependency.

    Args:
        path: relative to the repository; of a glob, the folders before the first wildcard count.
        deps: the dependencies of the stage that reads it.
    """
    parts = Path(path).parts
    dep = next((dep for dep in deps if Path(path).is_relative_to(dep)), None)
    if dep is None or ".." in parts:
        return f"{path} is not inside a dependency"
    top = len(Path(dep).parts)
    rules = patterns_for(PurePosixPath(dep))
    for count in range(top, len(parts) + 1):
        place = Path(*parts[:count])
        if set(place.name) & set("*?[") and not place.exists():
            return ""
        if rules.ignores(place.as_posix(), is_folder=place.is_dir()):
            return f"{place} is in no hash: DVC leaves it out ({IGNORE_FILE}, or a rule of its own); use another path"
        if count > top and place.is_symlink():
            found = _special(Path(dep), "/".join(parts[top:count]))
            if found.problem or not found.is_file:
                inside = f"{place} is a link to a folder, and DVC does not look into it; use {dep}/{found.target}"
                return found.problem or inside
    return ""
