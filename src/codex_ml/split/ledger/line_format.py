"""The lines of the split ledger: 38 bytes each, a set that Git can merge line by line.

    # codex-ml/ledger/2 salt 5d41402abc4b2a76
    47DEQpj8HBSa-_TI AAAAAAAAAAE AAAAAg R

The first three fields are in base64url:

    content   the first 12 bytes of the SHA-256 of the canonical document
    unit      8 bytes of the keyed hash of its group, or of its content if it has no group
    place     the first 4 bytes of the hash of source, path and id

The letter is the split. T, V, R, P mean a kept document in test, val, train and pool (with folds: not test). t, v, r, p
mean a duplicate, which belongs to the split of its family.

A text means the set of its lines; order and repetition do not matter. Its canonical form has one header and then the
distinct lines, sorted by their bytes. Used by: the other modules of this package, `codex-ml ledger`, `codex-ml merge`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import UserError, safe_text

SCHEMA = "codex-ml/ledger/2"
HEADER = f"# {SCHEMA} salt "
LETTERS = b"TtVvRrPp"  # from the cleanest answer to the least clean one; an index in it is a `rank`
WIDTH = 38  # bytes of a line with its end
LINE_TYPE = f"S{WIDTH - 1}"
LINES_AT_ONCE = 1 << 16  # lines that are encoded together; each needs 90 bytes of memory
SIDES = ("test", "val", "train", "pool")  # `rank // 2` is an index in it

_HEADER = re.compile(rb"# codex-ml/ledger/2 salt ([0-9a-f]{16})")
# The last character of a number has unused bits. They must be zero, so that each number has only one spelling.
_LINE = re.compile(rb"[A-Za-z0-9_-]{16} [A-Za-z0-9_-]{10}[AEIMQUYcgkosw048] [A-Za-z0-9_-]{5}[AQgw] [TtVvRrPp]")
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
_RANK = np.full(256, 255, dtype=np.uint8)
_RANK[list(LETTERS)] = range(len(LETTERS))
FIELDS = {"high": np.uint64, "low": np.uint32, "unit": np.uint64, "place": np.uint32, "rank": np.uint8}
_FIELDS = ("high", "low", "unit", "place")
# A line as 36 base64 characters: each number is padded with A, which is zero, to a multiple of four characters.
_NUMBERS = np.dtype(
    [("high", ">u8"), ("low", ">u4"), ("unit", ">u8"), ("fill_1", "u1"), ("place", ">u4"), ("fill_2", "u2")]
)

Lines = NDArray[np.bytes_]  # (n,) S37
Contents = NDArray[np.bytes_]  # (n,) S12, the first 12 bytes of the SHA-256


@dataclass(frozen=True)
class Columns:
    """The fields of n lines; all arrays (n,).

    Attributes:
        high, low: uint64 and uint32, the first 8 and the next 4 bytes of `content`.
        unit: uint64.
        place: uint32.
        rank: uint8, index in LETTERS.
    """

    high: NDArray[np.uint64]
    low: NDArray[np.uint32]
    unit: NDArray[np.uint64]
    place: NDArray[np.uint32]
    rank: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.high)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Columns:
        """The fields of the chosen lines."""
        return Columns(self.high[rows], self.low[rows], self.unit[rows], self.place[rows], self.rank[rows])


def concatenate_columns(parts: Sequence[Columns]) -> Columns:
    """Join the fields of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    columns = {}
    for name, kind in FIELDS.items():
        columns[name] = np.concatenate([np.zeros(0, kind), *(getattr(part, name) for part in parts)])
    return Columns(**columns)


@dataclass(frozen=True)
class Text:
    """The contents of one file of the ledger.

    Attributes:
        salt: the salt mark in its header (see `salt_mark`); "" for an empty file.
        lines: (n,) S37, distinct and sorted.
    """

    salt: str
    lines: Lines


def salt_mark(salt: str) -> str:
    """The mark of the salt in the header. It shows whether two salts differ, but does not reveal the salt."""
    return hashlib.blake2b(salt.encode(), digest_size=8, person=b"ledger").hexdigest()


def no_lines() -> Lines:
    """An empty set of lines."""
    return np.zeros(0, dtype=LINE_TYPE)


def read_ledger_text(data: bytes, name: str) -> Text:
    """Read the text of one file of the ledger, in any state in which a merge by lines may leave it.

    Args:
        name: name of the file, for messages.

    Raises:
        UserError: for a malformed line, a missing header, headers of two salts, and conflict markers; the message names
            file and line.
    """
    return decoded(data, name)[0]


def decoded(data: bytes, name: str) -> tuple[Text, Columns]:
    """The text of one file, and the fields of its lines in the same order.

    Raises:
        UserError: see `read_ledger_text`.
    """
    text = _canonical_text(data)
    if text is not None and (columns := columns_of(text.lines)) is not None:
        return text, columns
    text = _any_text(data, name)
    columns = columns_of(text.lines)
    assert columns is not None, "the two readers of a ledger disagree"
    return text, columns


def _canonical_text(data: bytes) -> Text | None:
    """The text if all lines have the right width and are sorted; else None. Fast: no loop over lines."""
    if not data:
        return Text("", no_lines())
    head, _, body = data.partition(b"\n")
    found = _HEADER.fullmatch(head)
    if not found or len(body) % WIDTH:
        return None
    table = np.frombuffer(body, dtype=np.uint8).reshape(-1, WIDTH)
    if not (table[:, -1] == ord("\n")).all():
        return None
    lines = np.ascontiguousarray(table[:, :-1]).view(LINE_TYPE).reshape(-1)
    if not (lines[1:] > lines[:-1]).all():
        return None
    return Text(found[1].decode(), lines)


def _any_text(data: bytes, name: str) -> Text:
    """The text, read line by line. Blank lines are ignored."""
    salt, found = "", []
    for number, line in enumerate(data.split(b"\n"), start=1):
        line = line.removesuffix(b"\r")  # from a checkout on Windows
        header = _HEADER.fullmatch(line)
        if salt and _LINE.fullmatch(line):
            found.append(line)
        elif header and salt in ("", header[1].decode()):
            salt = header[1].decode()
        elif line:
            refuse_conflict(line, name, first_line=number)
            raise UserError(f"{name}:{number}: {_what_is_wrong(line, header is not None, salt)}")
    return Text(salt, np.unique(np.array(found, dtype=LINE_TYPE)) if found else no_lines())


def _what_is_wrong(line: bytes, is_header: bool, salt: str) -> str:
    if is_header:
        return f"this header has another split.salt than the first one; all headers must be: {HEADER}{salt}"
    if not salt:
        return f"the first line of a ledger must be `{HEADER}<16 digits>`; see `codex-ml ledger --help`"
    shown = safe_text(repr(line[:60])[2:-1]) + ("..." if len(line) > 60 else "")
    return (
        f"this is not a line of the ledger: {shown}; a line must be `<content> <unit> <place> <letter>` with 16, 11, 6 "
        "and 1 characters; take the file from another commit (`git log -- data/split_ledger`) or from DVC"
    )


def columns_of(lines: Lines) -> Columns | None:
    """Decode lines; None if one of them is malformed."""
    table = lines.view(np.uint8).reshape(-1, WIDTH - 1)
    rank = _RANK[table[:, 36]]
    if not ((table[:, [16, 28, 35]] == ord(" ")).all() and (rank < len(LETTERS)).all()):
        return None
    digits = np.full((len(lines), 36), ord("A"), dtype=np.uint8)
    digits[:, :16], digits[:, 16:27], digits[:, 28:34] = table[:, :16], table[:, 17:28], table[:, 29:35]
    try:
        raw = binascii.a2b_base64(digits.tobytes().translate(_TO_STANDARD), strict_mode=True)
    except binascii.Error:
        return None
    numbers = np.frombuffer(raw, dtype=_NUMBERS)
    if numbers["fill_1"].any() or numbers["fill_2"].any():
        return None
    high, low, unit, place = (numbers[name].astype(numbers[name].dtype.newbyteorder("=")) for name in _FIELDS)
    return Columns(high, low, unit, place, rank)


def lines_of(columns: Columns) -> Lines:
    """Encode fields as lines, distinct and sorted; the inverse of `columns_of`."""
    table = np.full((len(columns), WIDTH - 1), ord(" "), dtype=np.uint8)
    for start in range(0, len(columns), LINES_AT_ONCE):
        some = slice(start, start + LINES_AT_ONCE)
        numbers = np.zeros(len(columns.rank[some]), dtype=_NUMBERS)
        for name in _FIELDS:
            numbers[name] = getattr(columns, name)[some]
        digits = np.frombuffer(base64.urlsafe_b64encode(numbers.tobytes()), dtype=np.uint8).reshape(-1, 36)
        table[some, :16], table[some, 17:28], table[some, 29:35] = digits[:, :16], digits[:, 16:27], digits[:, 28:34]
        table[some, 36] = np.frombuffer(LETTERS, dtype=np.uint8)[columns.rank[some]]
    lines = table.view(LINE_TYPE).reshape(-1)
    lines.sort()  # in place: np.unique would need three times the memory
    again = lines[1:] == lines[:-1]
    return lines[np.append(True, ~again)] if again.any() else lines


def content_keys(high: NDArray[np.uint64], low: NDArray[np.uint32]) -> Contents:
    """Contents as bytes that can be sorted and looked up: (n,) S12."""
    keys = np.empty(len(high), dtype=[("high", ">u8"), ("low", ">u4")])
    keys["high"], keys["low"] = high, low
    return keys.view("S12").reshape(-1)


def content_text(high: int, low: int) -> str:
    """A content as it is in a line: 16 characters."""
    return base64.urlsafe_b64encode(high.to_bytes(8, "big") + low.to_bytes(4, "big")).decode()


def bytes_of(text: Text) -> bytes:
    """The canonical bytes of a text; b"" for a text without a header."""
    return b"".join([f"{HEADER}{text.salt}\n".encode(), *blocks_of(text.lines)]) if text.salt else b""


def blocks_of(lines: Lines) -> Iterator[bytes]:
    """Yield the bytes of the lines with their line ends, LINES_AT_ONCE lines at a time."""
    for start in range(0, len(lines), LINES_AT_ONCE):
        some = lines[start : start + LINES_AT_ONCE].astype(LINE_TYPE, copy=False)
        table = np.full((len(some), WIDTH), ord("\n"), dtype=np.uint8)
        table[:, :-1] = some.view(np.uint8).reshape(-1, WIDTH - 1)
        yield table.tobytes()


def unite_texts(texts: Iterable[Text]) -> Text:
    """The union of texts. Their order does not matter.

    Raises:
        UserError: when they have different salts.
    """
    parts = list(texts)
    salts = sorted({part.salt for part in parts} - {""})
    if len(salts) > 1:
        raise UserError(
            f"these ledgers were dealt with different values of split.salt (marks {salts[0]} and {salts[1]}) and "
            "cannot be united; keep the one whose salt is in params.yaml"
        )
    lines = [part.lines for part in parts if len(part.lines)]
    return Text(salts[0] if salts else "", np.unique(np.concatenate(lines)) if lines else no_lines())


def missing(expected: Lines, present: Lines) -> Lines:
    """The lines of `expected` that are not in `present`."""
    return np.setdiff1d(expected, present, assume_unique=True)
