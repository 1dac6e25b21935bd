"""Read a foreign safetensors file: check that its header accounts for every byte, then that every number is finite.

The format is: 8 bytes with the length N of the header; N bytes of JSON, name to dtype, shape and offsets; the tensors.
The header is checked before a library opens the file.

Used by: foreign, local_model.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from codex_ml.core.errors import UserError, one_line
from codex_ml.core.strict_json import parse_json

if TYPE_CHECKING:
    from torch import Tensor

# Bytes per number. Float formats below 16 bits mean nothing without a scale from elsewhere, so they are not read. Of
# the other numbers only attention masks are accepted: transformers ignores these, but would make weights of others.
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
NOT_FLOAT = {"I64", "I32", "I16", "I8", "U8", "BOOL"}
MASK = re.compile(
    r"(?:\A|\.)(?:attn\.bias|attention\.bias|attn\.causal_mask)\Z"
)  # older GPT-2, GPT-NeoX and CodeGen store it
MAX_HEADER = 10 << 20  # bytes; enough for 100,000 tensors
MAX_METADATA = 64 << 10  # bytes
MAX_RANK = 8
NAME = re.compile(r"[A-Za-z0-9_.\-]{1,256}")
MAGIC = {
    b"PK": "a zip archive, as torch.save writes it",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"\x89HDF": "an HDF5 file",
    b"GGUF": "a GGUF file",
    b"\x93NUMPY": "a NumPy file",
    b"version https://git-lfs": "a Git LFS pointer: the weights were never fetched",
}
FIRST_OPCODE = 0x28  # of a pickle; no unpickler goes beyond a smaller third byte
ZIP_END, ZIP_ENTRY = b"PK\x05\x06", b"PK\x01\x02"


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int  # offsets into the bytes after the header
    end: int


def check_weights(file: Path) -> dict[str, TensorEntry]:
    """Check a safetensors file against its header.

    Returns:
        name to entry, in the order of the file.

    Raises:
        UserError: when the file is something else under this name, or its header is not exactly what the file holds.
    """
    try:
        with file.open("rb") as handle:
            return _check(handle, size=os.fstat(handle.fileno()).st_size)
    except ValueError as error:
        raise UserError(f"{file}: {error}; this file is not used") from None


def _check(handle: IO[bytes], *, size: int) -> dict[str, TensorEntry]:
    start = handle.read(32)
    header_like = size >= 10 and start[8:9] == b"{"
    if not (
        header_like and start[2] < FIRST_OPCODE
    ):  # else the first bytes are a length that looks like a magic number
        for magic, kind in MAGIC.items():
            if start.startswith(magic):
                raise ValueError(f"this is {kind}, not safetensors")
    if not header_like:
        raise ValueError("this is not safetensors: it does not begin with a header")
    (length,) = struct.unpack("<Q", start[:8])
    if length > MAX_HEADER:
        raise ValueError(f"its header claims {length:,} bytes; at most {MAX_HEADER:,} are read")
    if 8 + length > size:
        raise ValueError(f"its header claims {length:,} bytes of a file of {size:,}")
    handle.seek(8)
    header = parse_json(handle.read(length).decode("utf-8"))
    metadata = header.pop("__metadata__", {})
    if len(str(metadata)) > MAX_METADATA or not isinstance(metadata, dict):
        raise ValueError(f"its metadata is not a mapping of at most {MAX_METADATA:,} bytes")
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata holds a value that is not a text")
    entries = {name: _entry(name, value) for name, value in header.items()}
    _cover_exactly(entries, size - 8 - length)
    if _ends_as_zip(handle, size):
        raise ValueError("it is also a zip archive, if it is read from its end")
    return dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))


def _entry(name: str, value: Any) -> TensorEntry:
    if not NAME.fullmatch(name):
        raise ValueError(f"a tensor is named {name[:40]!r}; letters, digits and _.- are allowed")
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the header's {name} does not have the keys dtype, shape, data_offsets, and only these")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name} is of dtype {str(dtype)[:20]!r}; {', '.join(DTYPES)} are read")
    for key, numbers, most in (("shape", shape, MAX_RANK), ("data_offsets", offsets, 2)):
        if not isinstance(numbers, list) or len(numbers) > most or not all(_is_size(n) for n in numbers):
            raise ValueError(f"the {key} of {name} is not a list of at most {most} sizes")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * DTYPES[dtype]:
        raise ValueError(f"the offsets {offsets} of {name} do not fit its shape {shape} of {dtype}")
    if dtype in NOT_FLOAT and not (MASK.search(name) and len(shape) == 4):
        raise ValueError(f"{name} is of dtype {dtype}; weights must be floating-point numbers (F64, F32, F16, BF16)")
    return TensorEntry(dtype, tuple(shape), offsets[0], offsets[1])


def _is_size(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**48


def _cover_exactly(entries: dict[str, TensorEntry], size: int) -> None:
    """Check that the tensors follow each other without a gap, from the header to the end of the file."""
    if not entries:
        raise ValueError("it has no tensors")
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            raise ValueError(f"{name} begins at byte {entry.begin:,} of the data; expected byte {position:,}")
        position = entry.end
    if position != size:
        raise ValueError(f"its tensors take {position:,} bytes, and {size:,} follow the header")


def _ends_as_zip(handle: IO[bytes], size: int) -> bool:
    """Whether a zip reader, which starts at the end, finds an archive: an end record that points to an entry."""
    tail = min(size, 22 + 65535)  # the record and its longest comment (APPNOTE 4.3.16)
    handle.seek(size - tail)
    data = handle.read(tail)
    place = len(data)
    while (place := data.rfind(ZIP_END, 0, place)) >= 0:
        if place + 22 <= len(data):
            length = struct.unpack_from("<I", data, place + 12)[0]
            handle.seek(max(0, size - tail + place - length))
            if length == 0 or handle.read(4) == ZIP_ENTRY:
                return True
    return False


def read_tensors(file: Path, entries: dict[str, TensorEntry]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a checked file as copies: `safe_open` returns views, which change when the file does.

    Raises:
        UserError: for NaN or infinity in a tensor, or a header that the library does not accept.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        opened = safe_open(file, "pt")
    except SafetensorError as error:  # such as half a character in the metadata, which our parser of JSON accepts
        raise UserError(f"{file}: {one_line(error)}; this file is not used") from None
    with opened as handle:
        for name in entries:
            tensor = handle.get_tensor(name)
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise UserError(f"{file}: {name} holds numbers that are not finite; this file is not used")
            yield name, tensor.clone()
