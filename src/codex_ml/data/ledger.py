"""The split ledger: which content was ever dealt to which split. It only grows, and what it lists never moves.

    {"schema": "codex-ml/ledger/1", "salt": "5d41402abc4b2a76"}
    {"content": "<32 hex>", "place": "<16 hex>", "unit": "<16 hex>", "split": "train", "kept": true}

`content` is the start of the SHA-256 of the canonical document, `place` a hash of source, path and id, `unit` the keyed
hash of its group or, without one, of its content; `kept` is false for a duplicate, which belongs to the split of its
family. Of two lines for one content the later counts. With folds, `split` is "pool" for what is not test.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.errors import UserError
from codex_ml.io import atomic_file, dump_json, parse_json

SCHEMA = "codex-ml/ledger/1"
SPLITS = ("train", "val", "test", "pool")
KEYS = ("content", "place", "unit", "split", "kept")
LINE_LIMIT = 1 << 12  # bytes
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True)
class Entry:
    """One line; hashes as numbers."""

    high: int
    low: int
    place: int
    unit: int
    split: int  # index in SPLITS
    kept: bool


@dataclass(frozen=True)
class Ledger:
    """The ledger in memory: 34 bytes an entry, all arrays (n,), each content once.

    Attributes:
        high, low: the two halves of `content`, uint64.
        place, unit: uint64.
        split: int8, index in SPLITS.
        kept: bool.
    """

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    place: NDArray[np.uint64]
    unit: NDArray[np.uint64]
    split: NDArray[np.int8]
    kept: NDArray[np.bool_]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Ledger:
        """Of several entries for one content the last counts."""
        kinds = [("high", "u8"), ("low", "u8"), ("place", "u8"), ("unit", "u8"), ("split", "i1"), ("kept", "?")]
        rows = np.fromiter(((e.high, e.low, e.place, e.unit, e.split, e.kept) for e in entries), dtype=kinds)
        order = np.lexsort((rows["low"], rows["high"]))  # stable: later lines stay behind earlier ones
        rows = rows[order]
        last = np.ones(len(rows), dtype=bool)
        last[:-1] = (rows["high"][1:] != rows["high"][:-1]) | (rows["low"][1:] != rows["low"][:-1])
        rows = rows[last]
        return cls(*(np.ascontiguousarray(rows[name]) for name, _ in kinds))

    def __len__(self) -> int:
        return len(self.high)


def accept(next_ledger: Path, ledger: Path) -> int:
    """Put the ledger that the last split wrote in the place of the one it read; returns the number of new lines.

    Raises:
        UserError: when there is none, or when it does not go on from the present one.
    """
    if not next_ledger.is_file():
        raise UserError(f"{next_ledger} is missing; `dvc repro split` makes it")
    size = ledger.stat().st_size if ledger.is_file() else 0
    with next_ledger.open("rb") as new:
        if size and new.read(size) != ledger.read_bytes():
            raise UserError(
                f"{next_ledger} does not begin with what {ledger} holds: it was made from another ledger; "
                "`dvc repro split`, then accept again"
            )
        rest = size > 0 and not ledger.read_bytes().endswith(b"\n")  # its last line was ended first
        added = sum(chunk.count(b"\n") for chunk in iter(lambda: new.read(1 << 20), b"")) - rest
    with atomic_file(ledger) as target, next_ledger.open("rb") as source:
        shutil.copyfileobj(source, target)
    return added


def salt_mark(salt: str) -> str:
    """What the header keeps of the salt: enough to notice another one, nothing to learn it from."""
    return hashlib.blake2b(salt.encode(), digest_size=8, person=b"ledger").hexdigest()


def read_ledger(path: Path, *, salt: str) -> Ledger:
    """Read a ledger; a file without a line is an empty one.

    Raises:
        UserError: for a missing file, a malformed line (named) or a ledger that was dealt with another salt.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; make an empty file to start a new ledger, or set split.ledger: false")
    return Ledger.of(_entries(path, salt))


def _entries(path: Path, salt: str) -> Iterator[Entry]:
    with path.open("rb") as lines:
        number = 0
        while line := lines.readline(LINE_LIMIT):
            number += 1
            where = f"{path}:{number}"
            try:
                value = parse_json(line)
            except ValueError as error:
                raise UserError(f"{where} is not JSON ({error}); restore the file from Git or DVC") from None
            if number == 1:
                _check_header(value, where, salt)
            else:
                yield _entry(value, where)


def _check_header(value: Any, where: str, salt: str) -> None:
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise UserError(f'{where}: the first line of a ledger is {{"schema": "{SCHEMA}", ...}}')
    if value.get("salt") != salt_mark(salt):
        raise UserError(
            f"{where}: this ledger was dealt with another split.salt; give that one back, or start an empty ledger "
            "to deal all documents anew (then no earlier test result can be compared)"
        )


def _entry(value: Any, where: str) -> Entry:
    if not isinstance(value, dict) or sorted(value) != sorted(KEYS):
        raise UserError(f"{where}: a ledger line has the keys {', '.join(KEYS)}")
    for key, length in (("content", 32), ("place", 16), ("unit", 16)):
        text = value[key]
        if not isinstance(text, str) or len(text) != length or not _HEX.fullmatch(text):
            raise UserError(f"{where}: {key} must be {length} hexadecimal digits")
    if value["split"] not in SPLITS or not isinstance(value["kept"], bool):
        raise UserError(f"{where}: split is one of {', '.join(SPLITS)}, kept true or false")
    high, low = int(value["content"][:16], 16), int(value["content"][16:], 16)
    split = SPLITS.index(value["split"])
    return Entry(high, low, int(value["place"], 16), int(value["unit"], 16), split, value["kept"])


def write_ledger(path: Path, old: Path | None, new: Iterable[Entry], *, salt: str) -> int:
    """Write the next ledger into a folder that is not published yet: the old lines as they are, then the new ones.

    Returns:
        the number of new lines.
    """
    count = 0
    with path.open("wb") as handle:
        head = b""
        if old is not None:
            with old.open("rb") as source:
                while chunk := source.read(1 << 20):
                    head = chunk[-1:]
                    handle.write(chunk)
        if not head:
            handle.write(dump_json({"schema": SCHEMA, "salt": salt_mark(salt)}, indent=None).encode())
        elif head != b"\n":
            handle.write(b"\n")
        for entry in new:
            line = {
                "content": f"{entry.high:016x}{entry.low:016x}",
                "place": f"{entry.place:016x}",
                "unit": f"{entry.unit:016x}",
                "split": SPLITS[entry.split],
                "kept": entry.kept,
            }
            handle.write(json.dumps(line).encode() + b"\n")
            count += 1
    return count
