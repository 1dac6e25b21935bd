"""Read a GGUF file: check its header, then unpack it in a child process with limits.

Attacks on model files have used bugs in GGUF parsers (CVE-2025-53630, CVE-2026-27940, CVE-2026-7482). So only the
Python reader parses the file, in a process with limits on memory and time and without network and programs. The folder
that the child writes is then read like any foreign model folder.

A header of 200 bytes can ask for a million layers. So each count and length of the architecture must match the contents
of the file: no more layers than blocks, no more heads or features than the longest side of a tensor.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.

Used by: tokenizer and train, which each unpack their half.
"""

from __future__ import annotations

import re
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from codex_ml.core.child import Answer, LimitedChild
from codex_ml.core.errors import UserError
from codex_ml.core.io import atomic_folder
from codex_ml.core.packages import install_extra

MAGIC = b"GGUF"
# The reader holds the model about twice in float32; formats of 2 bits grow to 16 times their size.
GROWTH, HEADROOM = 40, 2 << 30  # times the size of the file, and bytes
CPU_SECONDS, CPU_SECONDS_PER_GIB = 300, 1200
LONGEST_CONTEXT = 1 << 27  # positions; the longest context of a published model is about 10 million
LONGEST_KEY, MOST_DIMENSIONS, DEEPEST = 65_535, 4, 4  # the format's own limits
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
KEPT = 10_000  # how many numbers of an array are kept; an array has one per layer
BLOCK = re.compile(r"(?:\A|\.)blk\.(\d{1,9})\.")


def unpack(path: Path, folder: Path, prepare: Callable[[], Answer]) -> None:
    """Unpack a GGUF file into a folder, in a child process.

    Args:
        folder: appears complete or not at all.
        prepare: see `LimitedChild`; what it returns reads `file` and writes into the folder `to`.

    Raises:
        UserError: when the file is not a GGUF file, the package `gguf` is missing, or the child could not read the file
            within its limits.
    """
    with path.open("rb") as handle:
        if handle.read(len(MAGIC)) != MAGIC:
            raise UserError(f"{path} is neither a folder nor a GGUF file; model.path names one of these")
    if find_spec("gguf") is None:
        raise UserError(f"{path} needs the package gguf; {install_extra('gguf')}")
    refuse_impossible(path)
    size = path.stat().st_size
    with tempfile.TemporaryDirectory(prefix="codex-ml-gguf-") as scratch:
        # an empty folder, so that the library finds nothing beside the file
        source, made = Path(scratch) / "model.gguf", Path(scratch) / "made"
        source.symlink_to(path.resolve())
        made.mkdir()
        memory, seconds = HEADROOM + GROWTH * size, CPU_SECONDS + CPU_SECONDS_PER_GIB * size // 2**30
        with LimitedChild(prepare, memory=memory, seconds=seconds, once=True, folder=Path(scratch)) as child:
            try:
                child.ask({"file": str(source), "to": str(made)})
            except UserError as error:
                raise UserError(f"{path} could not be read as GGUF: {error}") from None
        with atomic_folder(folder) as target:
            shutil.copytree(made, target, copy_function=shutil.copyfile, dirs_exist_ok=True)


def load_reader() -> None:
    """Import the libraries that read GGUF files, and silence their logs. Runs in the child."""
    import gguf  # noqa: F401
    import torch
    from transformers import modeling_gguf_pytorch_utils  # noqa: F401
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(1)


@dataclass
class Header:
    """The parts of a header that `_check` needs.

    Attributes:
        numbers: key -> its integers: one of a scalar, at most KEPT of an array, none of a text.
        blocks: numbers of the blocks (layers) that the names of the tensors hold.
        longest: the longest side of any tensor.
    """

    numbers: dict[str, list[int]] = field(default_factory=dict)
    blocks: set[int] = field(default_factory=set)
    longest: int = 0


class _File:
    """Reads little-endian values of a file, and refuses to read beyond its end."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def take(self, count: int) -> bytes:
        if count > self._left:
            raise ValueError(f"it asks for {count:,} bytes, but only {self._left:,} are left")
        self._left -= count
        return self._file.read(count)

    def skip(self, count: int) -> None:
        if count > self._left:
            raise ValueError(f"it asks for {count:,} bytes, but only {self._left:,} are left")
        self._left -= count
        self._file.seek(count, 1)

    def number(self, code: str) -> int:
        value = struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0]
        return int(value) if code not in "fd" else 0

    def count(self, least: int) -> int:
        """A count of items that take at least `least` bytes each."""
        count = self.number("Q")
        if count * least > self._left:
            raise ValueError(f"it asks for {count:,} entries, but only {self._left:,} bytes are left")
        return count

    def text(self) -> str:
        length = self.number("Q")
        if length > LONGEST_KEY:
            raise ValueError(f"a name has {length:,} bytes; at most {LONGEST_KEY:,} are allowed")
        return self.take(length).decode("utf-8", "replace")


def refuse_impossible(path: Path) -> None:
    """Check the header of a GGUF file.

    Raises:
        UserError: when it is cut, or asks for more than the file holds.
    """
    try:
        with path.open("rb") as file:
            header = _read(_File(file, path.stat().st_size))
        _check(header)
    except (ValueError, struct.error) as error:
        raise UserError(f"{path} could not be read as GGUF: {error}; fetch or convert it again") from None


def _read(file: _File) -> Header:
    file.take(4)  # GGUF
    version = file.number("I")
    if version not in (2, 3):
        raise ValueError(f"version {version} is not supported; versions 2 and 3 are")
    tensors, keys = file.number("Q"), file.count(13)
    header = Header()
    for _ in range(keys):
        key, kind = file.text(), file.number("I")
        header.numbers[key] = _value(file, kind, 0)
    for _ in range(tensors):
        name = file.text()
        dimensions = file.number("I")
        if dimensions > MOST_DIMENSIONS:
            raise ValueError(f"a tensor has {dimensions} dimensions; at most {MOST_DIMENSIONS} are allowed")
        header.longest = max([header.longest, *(file.number("Q") for _ in range(dimensions))])
        file.skip(12)  # type and offset
        if match := BLOCK.search(name):
            header.blocks.add(int(match[1]))
    return header


def _value(file: _File, kind: int, depth: int) -> list[int]:
    """The integers of a value; at most KEPT of an array."""
    if kind in SCALARS:
        number = file.number(SCALARS[kind])
        return [number] if SCALARS[kind] not in "fd?" else []
    if kind == TEXT:
        file.skip(file.number("Q"))
        return []
    if kind != ARRAY or depth > DEEPEST:
        raise ValueError(f"a value of type {kind} is unknown or nested too deeply")
    inner = file.number("I")
    if inner not in SCALARS:
        for _ in range(file.count(8)):
            _value(file, inner, depth + 1)
        return []
    size = struct.calcsize(SCALARS[inner])
    count = file.count(size)
    kept = [number for _ in range(min(count, KEPT)) for number in _value(file, inner, depth)]
    file.skip((count - min(count, KEPT)) * size)
    return kept


def _check(header: Header) -> None:
    blocks = max(header.blocks, default=-1) + 1
    for key, numbers in header.numbers.items():
        if key.startswith(("general.", "tokenizer.", "split.", "quantize.")) or not numbers:
            continue
        name, most = key.rpartition(".")[2], max(numbers)
        if name == "block_count" and most > blocks:
            raise ValueError(f"{key} is {most:,}, but the file holds {blocks:,} blocks")
        if "context_length" in name:
            limit, what = LONGEST_CONTEXT, "the longest supported context"
        elif name.endswith(("_count", "_count_kv", "_length", "_size")):
            limit, what = max(header.longest, 1), "the longest side of any tensor"
        else:
            continue
        if most > limit:
            raise ValueError(f"{key} is {most:,}, but {what} is {limit:,}")
