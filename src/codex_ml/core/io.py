"""Every byte that codex-ml writes or hashes goes through this file.

Writes are atomic and durable: a temporary name in the same folder, fsync, rename, fsync of the folder. A reader
sees the old file or the new one, never half of one; a fault can be injected in one place. Files and folders get the
mode of the umask, whatever library wrote them: safetensors makes files of mode 0600 (safetensors 782).
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import shutil
import stat
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import Reason, UserError, writing
from codex_ml.core.tree import Entry, only_hashed, walk

NESTED = 200  # levels of arrays and objects that a JSON text may have (RFC 8259 section 9 allows such a limit)
TOO_DEEP = f"nested too deeply, more than {NESTED} levels"
CHUNK = 1 << 20
HASHED_AHEAD = 256  # files of a folder


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def _remove_leftovers(path: Path) -> None:
    """Delete what a killed process left behind for this name; DVC's lock keeps two writers apart."""
    for leftover in path.parent.glob(f".{escape(path.name)}.tmp-*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def fsync_folder(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _writing(path: Path, temporary: Path) -> Iterator[None]:
    """`errors.writing`, with the name that the user knows instead of the temporary one."""
    try:
        with writing(path):
            yield
    except OSError as error:
        if isinstance(error.filename, str | os.PathLike):
            error.filename = os.fspath(error.filename).replace(str(temporary), str(path))
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears under `path`, complete, when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = _temporary(path)
    try:
        with _writing(path, temporary):
            with temporary.open("wb") as handle:
                mode = os.fstat(handle.fileno()).st_mode
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            _settle(temporary, mode)  # a library that got the name may have put another file in its place
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path`, whole, when the block ends without an error; replaces an old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = _temporary(path)
    try:
        with _writing(path, temporary):
            temporary.mkdir()
            mode = temporary.stat().st_mode  # 0777 & ~umask, without asking for the umask, which all threads share
            yield temporary
            for inner in sorted(temporary.rglob("*"), reverse=True):  # what a folder holds before the folder
                if not inner.is_symlink() and (inner.is_file() or inner.is_dir()):
                    _settle(inner, mode)
            fsync_folder(temporary)
            _replace_folder(path, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_folder(path.parent)


def _replace_folder(path: Path, new: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    old = path.with_name(f".{path.name}.tmp-old")
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old)


def _settle(path: Path, mode: int) -> None:
    """Give a new file or folder the permissions of `mode` (a file without those to execute) and make it durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = os.fstat(descriptor).st_mode
        wanted = mode & (0o777 if stat.S_ISDIR(found) else 0o666)
        if found & 0o777 != wanted:
            os.fchmod(descriptor, wanted)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_file(path) as handle:
        handle.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file atomically; newlines stay as they are given, a lone surrogate becomes `\\udXXX`."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def dump_json(value: Any, *, indent: int | None = 2) -> str:
    """JSON by RFC 8259: sorted keys, a final newline, and a `ValueError` for NaN and Infinity (section 6)."""
    return json.dumps(value, indent=indent, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as deterministic JSON, atomically."""
    write_text(path, dump_json(value))


def write_ndjson(path: Path, rows: Iterable[Any]) -> None:
    """Write one compact JSON value a line, atomically and without holding all rows."""
    with atomic_file(path) as handle:
        handle.writelines(map(ndjson_line, rows))


def ndjson_line(value: Any) -> bytes:
    """`value` as one line of NDJSON; a lone surrogate becomes `\\udXXX`."""
    return dump_json(value, indent=None).encode("utf-8", "backslashreplace")


def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON.

    Raises:
        ValueError: for NaN, Infinity, a number that overflows, duplicate keys, or any other departure from RFC 8259.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    if text.startswith("\ufeff"):
        raise json.JSONDecodeError("unexpected byte order mark", text, 0)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _same_in_every_python(error) from None
    except RecursionError:
        raise ValueError(Reason(TOO_DEEP)) from None
    if text.count("[") + text.count("{") > NESTED and _is_too_deep(value):
        raise ValueError(Reason(TOO_DEEP))
    return value


def _is_too_deep(value: Any) -> bool:
    """Whether arrays and objects are nested deeper than NESTED. Python 3.11 parses 900 levels, 3.13 ten thousand."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(NESTED):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _same_in_every_python(error: json.JSONDecodeError) -> json.JSONDecodeError:
    """The error as Python 3.13 words it: older ones speak of the character after a trailing comma."""
    before = error.doc[: error.pos].rstrip(" \t\n\r")
    expected = {"]": ("array", "Expecting value"), "}": ("object", "Expecting property name enclosed in double quotes")}
    kind, message = expected.get(error.doc[error.pos : error.pos + 1], ("", ""))
    if before.endswith(",") and error.msg == message:
        return json.JSONDecodeError(f"Illegal trailing comma before end of {kind}", error.doc, len(before) - 1)
    return error


def _refuse_constant(name: str) -> Any:
    raise ValueError(Reason(f"{name} is not JSON (RFC 8259 section 6)"))


def _finite_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(Reason("the number {} is too large for a double", text))
    return number


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = next(key for key, count in counts.items() if count > 1)
        raise ValueError(Reason("the key {!r} stands twice in one object", repeated[:100]))
    return result


def read_json(path: Path) -> Any:
    """Read a strict JSON file.

    Raises:
        UserError: when the file is missing or is not strict JSON; the message names the file.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a regular file")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    return parse_json_file(data, str(path))


def parse_json_file(data: bytes | str, name: str, *, line: int | None = None) -> Any:
    """Parse what a file of ours holds, or a line of it.

    Args:
        name: the file, for messages.
        line: the number of the line in the file; None for a whole file.

    Raises:
        UserError: for conflict markers of a merge, or anything else that is not strict JSON.
    """
    try:
        return parse_json(data)
    except ValueError as error:
        refuse_conflict(data, name, first_line=line or 1)
        where = f"{name}:{line}" if line else name
        raise UserError(f"{where} is not valid JSON: {error}") from None


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite_float, object_pairs_hook=_unique_keys)


def expand_glob(pattern: str) -> Iterator[Path]:
    """Paths of the current folder that match and that DVC can see, sorted by their bytes; the same in every Python.

    `**` as a whole part of the path stands for any folders, at its end for everything below. Python 3.11 takes a final
    `**` for folders only, and 3.13 reads `a**` as `a*`.

    Raises:
        ValueError: for `**` inside a name, or another pattern that is none; at once.
    """
    parts = pattern.split("/")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError("** must be a whole part of the path, as in data/**/name; use * inside a name")
    fixed = Path(*takewhile(lambda part: not set(part) & set("*?["), parts))
    found = sorted(_expanded([part for part in parts if part not in ("", ".")] + ["*"] * (parts[-1] == "**")))
    return only_hashed((Path(os.fsdecode(path)) for path in found), fixed)


def _expanded(parts: list[str]) -> set[bytes]:
    """Paths that match part by part. Each folder is listed once per part; `Path.glob` does it once per way to it.

    A path is its bytes, with b"" for the current folder: an object of pathlib takes four times as much memory.
    """
    found = {b""}
    for part in parts:
        if part == "**":
            found |= {folder for start in found for folder in _folders_below(start, found)}
        elif set(part) & set("*?["):
            matches = re.compile(fnmatch.translate(part)).match
            folders = [folder for folder in found if Path(os.fsdecode(folder)).is_dir()]
            found = {
                _path(folder, inner.name)
                for folder in folders
                for inner in _entries(folder)
                if matches(os.fsdecode(inner.name))
            }
        else:
            below = {_path(folder, os.fsencode(part)) for folder in found}
            found = {path for path in below if Path(os.fsdecode(path)).exists()}
    return found


def _entries(folder: bytes) -> Iterator[os.DirEntry[bytes]]:
    """What a folder holds."""
    with os.scandir(folder or b".") as listing:
        yield from listing


def _path(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _folders_below(start: bytes, known: set[bytes]) -> Iterator[bytes]:
    """Folders in a folder, without links and without what lies below another known one."""
    stack = [start] if Path(os.fsdecode(start)).is_dir() else []
    while stack:
        folder = stack.pop()
        inner = [_path(folder, entry.name) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]
        yield from inner
        stack += [below for below in inner if below not in known]


@dataclass(frozen=True)
class Hashes:
    """Digests of one file or folder: `md5` as DVC writes it in dvc.lock, `sha256` for our own record."""

    md5: str
    sha256: str
    size: int  # bytes


def hash_file(path: Path) -> Hashes:
    """Hash a file in one pass."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with path.open("rb") as handle:
        piece = min(max(os.fstat(handle.fileno()).st_size + 1, 4096), CHUNK)  # a large buffer costs a small file 20 us
        while chunk := handle.read(piece):
            md5.update(chunk)
            sha256.update(chunk)
            size += len(chunk)
    return Hashes(md5.hexdigest(), sha256.hexdigest(), size)


def hash_path(path: Path) -> Hashes:
    """Hash a file, or a folder as DVC does: the MD5 of the JSON list of `{md5, relpath}` of its files, plus `.dir`.

    The SHA-256 of a folder also covers the links that lead from one place in it to another: DVC does not see that a
    link became a copy, or where a link to a folder leads.

    Raises:
        UserError: for what DVC cannot hash, such as a FIFO or a link that leads out (see `codex_ml.core.tree`).
    """
    if not path.is_dir():
        return hash_file(path)
    for _ in walk(path):  # what DVC cannot hash is named before hours of hashing; 1.5 us per file
        pass
    md5, sha256, size = hashlib.md5(b"[", usedforsecurity=False), hashlib.sha256(), 0
    separator = ""
    for entry, hashes in _hashed(path):
        if hashes is not None:
            listed = json.dumps({"md5": hashes.md5, "relpath": entry.name}, sort_keys=True)
            md5.update(f"{separator}{listed}".encode())
            sha256.update(f"{hashes.sha256}  {entry.name}\n".encode())
            size, separator = size + hashes.size, ", "
        if entry.target:
            sha256.update(f"link to {entry.target}  {entry.name}\n".encode("utf-8", "surrogateescape"))
    md5.update(b"]")
    return Hashes(md5=f"{md5.hexdigest()}.dir", sha256=sha256.hexdigest(), size=size)


def _hashed(folder: Path) -> Iterator[tuple[Entry, Hashes | None]]:
    """The entries of a folder by their whole names, as dvc_data's Tree.as_list sorts them, with the hashes of files.

    Threads hash large files, as hashing large pieces lets other threads run; small ones are hashed here meanwhile.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    waiting: deque[tuple[Entry, Hashes | Future[Hashes] | None]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for entry in walk(folder):
            file = folder / entry.name
            if not entry.is_file:
                waiting.append((entry, None))
            elif file.stat().st_size > CHUNK:
                waiting.append((entry, threads.submit(hash_file, file)))
            else:
                waiting.append((entry, hash_file(file)))
            if len(waiting) > HASHED_AHEAD:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())


def _result(entry: Entry, hashes: Any) -> tuple[Entry, Hashes | None]:
    return entry, hashes if hashes is None or isinstance(hashes, Hashes) else hashes.result()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. Takes a quarter of the time of `hash_file`."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
