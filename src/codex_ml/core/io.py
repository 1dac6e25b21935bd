"""Every byte that codex-ml writes goes through this file.

Writes are atomic and durable: a temporary name in the same folder, fsync, rename, fsync of the folder. A reader
sees the old file or the new one, never half of one; a fault can be injected in one place. Files and folders get the
mode of the umask, whatever library wrote them: safetensors makes files of mode 0600 (safetensors 782).
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import IO, Any

from codex_ml.core.errors import UserError, writing
from codex_ml.core.publication import published
from codex_ml.core.strict_json import dump_json, ndjson_line, parse_json_file

LARGEST_JSON = 256 << 20  # bytes; a tokenizer.json with line breaks and a large vocabulary has 50 million


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def _remove_leftovers(path: Path) -> None:
    """Delete the temporary files that a killed process left for this name; DVC's lock keeps two writers apart."""
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
    """Like `errors.writing`, but an error names the file that the user knows instead of the temporary one."""
    try:
        with writing(path):
            yield
    except OSError as error:
        if isinstance(error.filename, str | os.PathLike):
            error.filename = os.fspath(error.filename).replace(str(temporary), str(path))
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears under `path`, complete, when the block ends without an error.

    Raises:
        UserError: when a device, a pipe or a folder has this name; a rename would put a file in its place.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a regular file, so no file is put in its place; name another one")
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
def atomic_folder(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends without an error; it replaces an old folder.

    Args:
        private: whether only its owner may read it and what is in it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = _temporary(path)
    try:
        with _writing(path, temporary):
            temporary.mkdir(mode=0o700 if private else 0o777)
            mode = temporary.stat().st_mode  # 0777 & ~umask; os.umask itself would change it for all threads
            yield temporary
            for inner in sorted(temporary.rglob("*"), reverse=True):  # the contents of a folder before the folder
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
    """Give a new file or folder the permissions of `mode` (a file: without the execute bits) and make it durable."""
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


def write_json(path: Path, value: Any) -> None:
    """Write `value` as deterministic JSON, atomically, through the gate of `core.publication`."""
    write_text(path, dump_json(published(value)))


def write_ndjson(path: Path, rows: Iterable[Any]) -> None:
    """Write one compact JSON value per line as `write_json` does, without holding all rows in memory."""
    with atomic_file(path) as handle:
        handle.writelines(ndjson_line(published(row)) for row in rows)


def read_json(path: Path, *, most: int = LARGEST_JSON) -> Any:
    """Read a strict JSON file of at most `most` bytes.

    Raises:
        UserError: when the file is missing, is larger, or is not strict JSON; the message names the file.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a regular file")
    try:
        if (size := path.stat().st_size) > most:
            raise UserError(f"{path} has {size:,} bytes; at most {most:,} are read")
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    return parse_json_file(data, str(path))
