"""The two forms of the ledger folder: one file, or 256 shards by the first byte of the content.

Both forms mean the same ledger. Used by: split, and the commands `codex-ml ledger` and `codex-ml merge`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from codex_ml.split.ledger.line_format import Columns, Contents, Lines, Text, columns_of, concatenate_columns, lines_of

ALL = "all.txt"
SHARDS = tuple(f"{number:02x}.txt" for number in range(256))


def disjoint(texts: dict[str, tuple[Text, Columns]]) -> list[tuple[Lines, Columns]]:
    """The lines in batches that share no content, whatever file a line is in."""
    files = [(name, text.lines, columns) for name, (text, columns) in texts.items() if len(columns)]
    if len(files) <= 1 or all(in_own_shard(name, columns) for name, _, columns in files):
        return [(lines, columns) for _, lines, columns in files]
    lines = lines_of(concatenate_columns([columns for _, _, columns in files]))
    columns = columns_of(lines)
    assert columns is not None
    return [(lines, columns)]


def in_own_shard(name: str, columns: Columns) -> bool:
    """Whether a file is a shard that holds only lines of that shard."""
    return name in SHARDS and bool((shards_of(columns) == SHARDS.index(name)).all())


def shards_of(columns: Columns) -> NDArray[np.uint8]:
    """(n,) index in SHARDS: the first byte of the content."""
    return (columns.high >> np.uint64(56)).astype(np.uint8)


class LedgerHash:
    """The mark of a ledger: a hash of its lines, the same for both forms of the folder.

    >>> ledger_hash = LedgerHash()
    >>> for lines, columns in disjoint(texts):
    ...     ledger_hash.add(lines, columns)
    >>> ledger_hash.mark(forgotten)
    """

    def __init__(self) -> None:
        self._of_shard: dict[int, bytes] = {}

    def add(self, lines: Lines, columns: Columns) -> None:
        """Add a batch of lines. No other batch may hold lines of the same shards."""
        shard = shards_of(columns)
        for number in np.unique(shard).tolist():
            self._of_shard[number] = hashlib.blake2b(lines[shard == number].tobytes()).digest()

    def mark(self, forgotten: Contents) -> str:
        """The hash of all added lines and of the forgotten contents: 16 hexadecimal digits."""
        whole = hashlib.blake2b(forgotten.tobytes(), digest_size=8)
        for number in sorted(self._of_shard):
            whole.update(bytes([number]) + self._of_shard[number])
        return whole.hexdigest()


def mark_of(batches: Iterable[tuple[Lines, Columns]], forgotten: Contents) -> str:
    """The mark of a ledger in one call; `batches` as `disjoint` returns them."""
    ledger_hash = LedgerHash()
    for lines, columns in batches:
        ledger_hash.add(lines, columns)
    return ledger_hash.mark(forgotten)
