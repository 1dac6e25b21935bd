"""Byte code in src that Python would run instead of the source that DVC hashes.

Python keeps compiled modules in `__pycache__` and takes them without a look at the source where they say so (PEP 552),
or where size and whole second of the source agree: an edit within one second that keeps the size goes unnoticed. It
also imports a `.pyc` that lies where a module could lie. DVC leaves all of these out of its hashes.

Used by: core.planted_files.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER, cache_from_source

HEADER = 16  # bytes: magic number, flags, then a hash of the source, or its time and its size (PEP 552)
HASHED, CHECKED = 1, 2  # flags
CACHE = "__pycache__"


def other_byte_code(top: str = "src") -> Iterator[str]:
    """One message per file of byte code that is not that of a source; takes 20 ms for the library."""
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if name != CACHE)
        for name in sorted(files):
            path = f"{folder}/{name}"
            if name.endswith(".pyc"):
                yield f"{path}: Python could import this byte code, and DVC leaves it out of its hashes; remove it"
            elif name.endswith(".py") and _is_other(path, cached := cache_from_source(path)):
                yield f"{cached}: Python would run this byte code, and it is not that of {path}; remove it"


def _is_other(path: str, cached: str) -> bool:
    """Whether Python would take the byte code of a source, and it is that of another source."""
    try:
        with open(cached, "rb") as handle:  # noqa: PTH123 - of 600 files
            header, byte_code = handle.read(HEADER), os.fstat(handle.fileno())
            if header[:4] != MAGIC_NUMBER or not _may_differ(header, os.stat(path), byte_code):  # noqa: PTH116
                return False
            with open(path, "rb") as source:  # noqa: PTH123
                expected = compile(source.read(), path, "exec", dont_inherit=True)
            return bool(marshal.loads(handle.read()) != expected)  # noqa: S302 - Python has loaded it, or would
    except OSError:  # there is none, or it was removed meanwhile
        return False
    except (EOFError, ValueError, TypeError, SyntaxError):  # damaged
        return True


def _may_differ(header: bytes, source: os.stat_result, byte_code: os.stat_result) -> bool:
    """Whether Python would take byte code that may be older than its source."""
    flags, time, size = (int.from_bytes(header[start : start + 4], "little") for start in (4, 8, 12))
    if flags & HASHED:
        return not flags & CHECKED
    is_taken = time == int(source.st_mtime) & 0xFFFFFFFF and size == source.st_size & 0xFFFFFFFF
    return is_taken and byte_code.st_mtime_ns < source.st_mtime_ns
