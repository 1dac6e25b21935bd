"""A folder of code or text: one document a file. What makes a document of a file's bytes is used by archives too."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from posixpath import splitext

from codex_ml.core.dvcignore import DvcIgnore
from codex_ml.core.errors import Reason, UserError, naming, reason_of
from codex_ml.core.tree import rules_for, stands_for
from codex_ml.documents.document import Document, Refused, derived_id, writable
from codex_ml.documents.licences import UNKNOWN, both, licence_of_text
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers import named
from codex_ml.ingest.readers.gitignore import Pattern, parse, translate
from codex_ml.ingest.readers.notebooks import code_of_notebook
from codex_ml.ingest.readers.texts import PYTHON, UTF_16, WrongEncoding, decode, missing_content, python_source

BATCH_BYTES, BATCH_FILES = 4 << 20, 4096
GITIGNORE_LIMIT = 1 << 20  # bytes
NO_FILE = (errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ENOENT)  # a link, a socket, a device without a driver, gone
_LANGUAGES = {
    "python": ".py .pyi .pyw .ipynb", "javascript": ".js .mjs .cjs", "jsx": ".jsx", "typescript": ".ts .mts",
    "tsx": ".tsx", "c": ".c .h", "c++": ".cc .cpp .cxx .hpp .hh .hxx", "c#": ".cs", "java": ".java",
    "kotlin": ".kt .kts", "scala": ".scala", "go": ".go", "rust": ".rs", "swift": ".swift", "objective-c": ".m .mm",
    "zig": ".zig", "d": ".d", "dart": ".dart", "ruby": ".rb", "perl": ".pl .pm", "php": ".php", "lua": ".lua",
    "r": ".r", "julia": ".jl", "elixir": ".ex .exs", "erlang": ".erl", "haskell": ".hs", "clojure": ".clj",
    "lisp": ".el .lisp", "scheme": ".scm", "prolog": ".pro", "shell": ".sh .bash .zsh", "powershell": ".ps1",
    "sql": ".sql", "html": ".html .htm", "css": ".css", "scss": ".scss", "xml": ".xml", "vue": ".vue",
    "json": ".json", "yaml": ".yaml .yml", "toml": ".toml", "ini": ".ini .cfg", "tex": ".tex", "markdown": ".md",
    "restructuredtext": ".rst", "text": ".txt", "fortran": ".f .f90", "verilog": ".v .sv", "vhdl": ".vhd .vhdl",
    "cuda": ".cu", "protobuf": ".proto", "nix": ".nix", "terraform": ".tf", "groovy": ".groovy", "solidity": ".sol",
    "assembly": ".s .asm", "cmake": ".cmake",
}  # fmt: skip
LANGUAGES = {ending: name for name, endings in _LANGUAGES.items() for ending in endings.split()}
BY_NAME = {"makefile": "makefile", "dockerfile": "dockerfile", "cmakelists.txt": "cmake"}


Patterns = tuple[tuple[str, list[Pattern]], ...]  # (folder with "/", what its .gitignore says), outermost first


@dataclass(frozen=True)
class Names:
    """Which names of a folder or an archive are documents: glob and include, without exclude.

    Globs are Git's: `**/` stands for any folders, also none. An excluded folder goes with all that is in it.

    Attributes:
        matched: gets the globs that match a name; see readers.named.
    """

    wanted_globs: tuple[str, ...]
    unwanted_globs: tuple[str, ...]
    matched: set[str] = field(default_factory=set, compare=False)

    @classmethod
    def of(cls, source: Source) -> Names:
        """The names that a source asks for.

        Raises:
            UserError: for a glob that is none.
        """
        for glob in (source.glob, *source.include, *source.exclude):
            if _expression(glob) is None:
                raise UserError(f"ingest.sources: {glob!r} is no glob")
        return cls((source.glob, *source.include), source.exclude, named.here.globs)

    def wanted(self, name: str) -> bool:
        """Whether a relative name, with `/` between its parts, is a document."""
        wanted = False
        for glob in self.wanted_globs:
            if (not wanted or glob not in self.matched) and _matches(glob, name):
                wanted = True
                self.matched.add(glob)
        if not self.unwanted_globs:
            return wanted
        parts = name.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        for glob in self.unwanted_globs:
            if (wanted or glob not in self.matched) and any(_matches(glob, part) for part in above):
                wanted = False
                self.matched.add(glob)
        return wanted


@lru_cache(maxsize=64)
def _expression(glob: str) -> re.Pattern[str] | None:
    """For a whole name; a glob begins at the top, unlike a pattern of .gitignore."""
    glob = glob.rstrip("/")
    return translate(glob if glob.startswith("**/") or glob == "**" else f"/{glob.lstrip('/')}")


def _matches(glob: str, name: str) -> bool:
    expression = _expression(glob)
    return expression is not None and expression.fullmatch(name) is not None


@dataclass(frozen=True)
class FilesTask:
    """Some files of a folder: (name below the folder, bytes of the file as listed)."""

    source: Source
    folder: str
    names: tuple[str, ...]
    bytes: int
    max_bytes: int
    follow: bool = False

    @property
    def file(self) -> str:
        return self.folder

    def read(self) -> Iterator[Document | Refused]:
        """One document a file, in the order of the names."""
        for name in self.names:
            yield _read_file(self.source, Path(self.folder), name, self.max_bytes, follow=self.follow)


def plan_files(source: Source, path: Path, max_bytes: int) -> Iterator[FilesTask | Refused]:
    """Batches of the files below a folder; `path` may also be one file."""
    if path.is_file():
        # the source itself may be a link, as DVC makes them; what is below a folder may not
        yield FilesTask(source, str(path.parent), (path.name,), path.stat().st_size, max_bytes, follow=True)
        return
    names = Names.of(source)
    batch: list[str] = []
    held = found = 0
    for name, size in _walk(path, ignore=source.gitignore):
        if not names.wanted(name):
            continue
        found += 1
        batch.append(name)
        held += min(size, max_bytes)
        if held >= BATCH_BYTES or len(batch) >= BATCH_FILES:
            yield FilesTask(source, str(path), tuple(batch), held, max_bytes)
            batch, held = [], 0
    if batch:
        yield FilesTask(source, str(path), tuple(batch), held, max_bytes)
    if not found:
        reason = Reason("holds no file that matches {}", source.glob)
        yield Refused(source.label, "", None, reason, bad=False, place=writable(str(path)))


def _walk(folder: Path, *, ignore: bool) -> Iterator[tuple[str, int]]:
    """(name, size) of everything but folders, sorted; nothing that DVC leaves out, and `.git` is not entered.

    Links are not followed, but those into DVC's cache, which are how DVC may store a file.
    """
    rules, prefix = rules_for(folder)

    def listed(below: str, patterns: Patterns) -> tuple[str, Patterns, Iterator[bytes]]:
        names = _listed(folder, below, prefix, rules)
        return below, (*patterns, *_own_patterns(folder / below, below, names)) if ignore else (), iter(names)

    stack = [listed("", ())]  # a path has room for more folders than Python can nest calls
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


FOLDER, LINK = "f", "l"  # marks of what is no plain file, after NUL, which is in no name


def _listed(folder: Path, below: str, prefix: str, rules: DvcIgnore) -> list[bytes]:
    """Names in one folder, sorted, each with the mark of its kind; an object of the listing takes ten times as much."""
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
    """What the .gitignore of a folder says, but for the lines of `dvc add`, which are no opinion on what data is."""
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


def _read_file(source: Source, folder: Path, name: str, max_bytes: int, *, follow: bool) -> Document | Refused:
    place, label = folder / name, writable(name)
    path = place if follow else stands_for(place)

    def refused(reason: str, *, bad: bool) -> Refused:
        return Refused(source.label, label, None, reason, bad, writable(str(place)))

    try:
        mode = path.stat(follow_symlinks=follow).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):  # opening one can already do something
            return refused("not a regular file", bad=False)
        # a link leads out; what became a FIFO just now would block for ever
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno in NO_FILE:
            return refused("not a regular file, or not readable", bad=False)
        if error.errno in (errno.EACCES, errno.EPERM):
            return refused("permission denied; check its owner and mode", bad=True)
        raise
    try:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            return refused("not a regular file", bad=False)
        if before.st_size > max_bytes:
            return refused(Reason("longer than {} bytes", max_bytes), bad=False)
        with naming(place), os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(before.st_size + 1)  # a buffer of max_bytes would cost a small file 20 us
        after = os.fstat(handle)
    finally:
        os.close(handle)
    if len(data) != before.st_size or _state(before) != _state(after) or _is_another(path, before, follow=follow):
        raise UserError(f"{writable(str(place))} changed while it was read; stop what writes to it and run again")
    return file_document(
        data,
        source=source.label,
        path=label,
        licence=source.licence,
        group=group_of(source, source.label, label),
        place=writable(str(place)),
        max_bytes=max_bytes,
    )


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _is_another(path: Path, before: os.stat_result, *, follow: bool) -> bool:
    """Whether the name stands for another file by now; what was read is then not what lineage has hashed."""
    try:
        return path.stat(follow_symlinks=follow).st_ino != before.st_ino
    except OSError:
        return True


def group_of(source: Source, label: str, name: str) -> str:
    """The unit that stays in one split: nothing, the whole archive or repository, or its top folder."""
    if source.group == "none":
        return ""
    folder = name.partition("/")[0] if "/" in name else ""
    return label if source.group == "source" else f"{label}/{folder}" if folder else ""


def file_document(
    data: bytes, *, source: str, path: str, licence: str, group: str, place: str, max_bytes: int
) -> Document | Refused:
    """The document of a file's bytes, or why there is none.

    Args:
        licence: of what the file is part of; an SPDX header of its own counts beside it.
    """
    path, place = writable(path), writable(place)

    def refused(line: int | None, reason: str, *, bad: bool = True) -> Refused:
        return Refused(source, path, line, reason, bad, place)

    if len(data) > max_bytes:
        return refused(None, Reason("longer than {} bytes", max_bytes), bad=False)
    if reason := missing_content(data):
        return refused(None, reason, bad=False)
    try:
        text = _text(data, path)
    except UnicodeDecodeError as error:
        start = error.start + len(data) - len(error.object)  # a byte order mark is not part of the object
        return refused(data.count(b"\n", 0, start) + 1, _not_text(data, start, error.encoding.lower()))
    except ValueError as error:
        return refused(_line(error), reason_of(error))
    if "\0" in text:
        return refused(text.count("\n", 0, text.index("\0")) + 1, "NUL bytes, not text")
    if not text.strip():
        return refused(None, "empty", bad=False)
    own = licence_of_text(text)  # a vendored file can be under another licence than the package around it
    return Document(
        source=source,
        path=path,
        id=derived_id(source, path, text),
        group=group,
        licence=both(licence, own) if own else licence or UNKNOWN,
        language=language_of(path),
        text=text,
        place=place,
    )


def _text(data: bytes, path: str) -> str:
    name = path.lower()
    if name.endswith(".ipynb"):
        return code_of_notebook(data)
    return python_source(data) if name.endswith(PYTHON) else decode(data)


def _line(error: ValueError) -> int:
    """The line that an error names, which is the second of a Python file or the first of any."""
    return error.line if isinstance(error, WrongEncoding) else 1


def _not_text(data: bytes, start: int, encoding: str) -> Reason:
    if encoding.startswith("utf-16") and data.startswith(UTF_16):
        return Reason("begins as UTF-16, but is none at byte {}", start)
    if b"\0" in data[:1024]:
        return Reason("NUL bytes, not UTF-8 text (UTF-16 without a byte order mark, or binary)")
    name = Reason("UTF-8") if encoding == "utf-8" else encoding
    return Reason("byte 0x{:02X} at offset {} is not {}", data[start], start, name)


def language_of(path: str) -> str:
    """Language by the name of a file, "other" where the name says nothing."""
    name = path.rpartition("/")[2].lower()
    return BY_NAME.get(name) or LANGUAGES.get(splitext(name)[1], "other")
