"""The meaning of the lines of a split ledger: the answer for each content and for each unit.

If histories disagree, the cleanest answer wins, whatever the order of merging: test before val before train before
pool. The answer for a content is its cleanest line. Of equally clean lines, a kept document counts before a duplicate,
and then the smallest line counts. A unit belongs to the cleanest split of its kept lines, or of its duplicates if no
line is kept.

For example, two people dealt the same document A, and one of them has a near-duplicate B of it in the same group u:

    content A  unit u  R    kept in train, in one history
    content A  unit u  T    kept in test, in the other history
    content B  unit u  r    a duplicate of a document in train

The answer for A is its line T: test. The answer for B is its only line: a duplicate in train. The kept lines of u name
train and test, so u belongs to test, and every new document of that group goes there.
Used by: split, check, and the commands `codex-ml ledger`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.sorted_arrays import begins_of, find
from codex_ml.split.ledger.line_format import Columns, Contents, concatenate_columns, content_keys
from codex_ml.split.ledger.shards import mark_of

SPLITS = ("train", "val", "test", "pool")
SPLIT_OF_RANK = np.array([2, 2, 1, 1, 0, 0, 3, 3], dtype=np.int8)  # TtVvRrPp as indices in SPLITS
RANKS = np.array([4, 2, 0, 6], dtype=np.uint8)  # rank of a kept document, by index in SPLITS; a duplicate has one more
# The cleanest of a set of splits with bit i for SPLITS[i]: test (4), val (2), train (1), pool (8).
CLEANEST = np.array([2 if bits & 4 else 1 if bits & 2 else 0 if bits & 1 else 3 for bits in range(16)], dtype=np.int8)
DISAGREE = np.array([bits & 7 not in (0, 1, 2, 4) or bits & 12 == 12 for bits in range(16)])


@dataclass(frozen=True)
class Ledger:
    """The ledger in memory: 26 bytes per content, 10 per unit, and 20 per line that repeats a content.

    Attributes:
        high, low, place, unit: (n,) as in `Columns`, the line that counts for each content; sorted by (high, low).
        rank: (n,) uint8, index in LETTERS of that line.
        answers: (n,) uint8, the splits in all lines of the content: bit i for SPLITS[i].
        units: (u,) uint64, sorted.
        unit_split: (u,) int8, index in SPLITS.
        unit_answers: (u,) uint8, the splits in the unit's kept lines: bit i for SPLITS[i].
        also_row, also_unit, also_place: (k,) int64, uint64, uint32, further lines of kept documents with the same split
            as the line that counts for that row.
        forgotten: sorted contents whose lines do not count.
        size: number of lines.
        mark: hash of the lines and of the forgotten contents; the same for both forms of the folder.
    """

    high: NDArray[np.uint64]
    low: NDArray[np.uint32]
    place: NDArray[np.uint32]
    unit: NDArray[np.uint64]
    rank: NDArray[np.uint8]
    answers: NDArray[np.uint8]
    units: NDArray[np.uint64]
    unit_split: NDArray[np.int8]
    unit_answers: NDArray[np.uint8]
    also_row: NDArray[np.int64]
    also_unit: NDArray[np.uint64]
    also_place: NDArray[np.uint32]
    forgotten: Contents
    size: int
    mark: str

    def __len__(self) -> int:
        """Number of contents."""
        return len(self.high)

    @property
    def split(self) -> NDArray[np.int8]:
        """(n,) index in SPLITS."""
        return SPLIT_OF_RANK[self.rank]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(n,) bool, whether the line lists a kept document, not a duplicate."""
        return self.rank % 2 == 0

    def rows_of(self, high: NDArray[np.uint64], low: NDArray[np.uint32]) -> NDArray[np.int64]:
        """(m,) int64: row of each of m contents, or -1."""
        first = np.searchsorted(self.high, high)
        count = np.searchsorted(self.high, high, side="right") - first
        for number in np.flatnonzero(count > 1).tolist():  # contents with the same first 8 bytes
            same = self.low[first[number] : first[number] + count[number]]
            first[number] += min(int(np.searchsorted(same, low[number])), len(same) - 1)
        found = count > 0
        found[found] = self.low[first[found]] == low[found]
        return np.where(found, first, -1)

    def units_of(self, unit: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(m,) int64: index in `units` of each of m units, or -1."""
        return find(self.units, unit)

    def records(
        self, rows: NDArray[np.int32], unit: NDArray[np.uint64], place: NDArray[np.uint32]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Look up the place and the unit of m documents in the lines of their contents.

        Args:
            rows: (m,) row of each document's content, or -1.
            unit, place: (m,) of each document.

        Returns:
            (at_place, in_unit): both (m,) bool, whether the line that counts, or one of the `also` lines, has this
            place, and this unit.
        """
        listed = np.flatnonzero(rows >= 0)
        at_place, in_unit = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
        at_place[listed] = self.place[rows[listed]] == place[listed]
        in_unit[listed] = self.unit[rows[listed]] == unit[listed]
        several = np.flatnonzero(np.isin(rows, self.also_row))
        for result, ours, theirs in ((at_place, place, self.also_place), (in_unit, unit, self.also_unit)):
            lines = _pairs(self.also_row, theirs)
            result[several] |= np.isin(_pairs(rows[several], ours[several]), lines)
        return at_place, in_unit

    @classmethod
    def empty(cls) -> Ledger:
        """A ledger without lines."""
        forgotten = content_keys(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint32))
        return cls.of([], forgotten, mark_of([], forgotten))

    @classmethod
    def of(cls, batches: Iterable[Columns], forgotten: Contents, mark: str = "") -> Ledger:
        """Build a ledger from lines.

        Args:
            batches: distinct lines, in each batch sorted by their bytes. No content is in two batches.
            forgotten: sorted contents whose lines do not count.
        """
        answers, unit_parts, rank_parts, repeated, size = [], [], [], [], 0
        for batch in batches:
            size += len(batch)
            live = batch.take(~is_among(batch, forgotten)) if len(forgotten) else batch
            if len(live):
                answers.append(_answers(live))
                unit_parts.append(live.unit)
                rank_parts.append(live.rank)
                repeated.append(live.take(_repeated(live)))
        chosen = concatenate_columns([columns for columns, _ in answers])
        masks = np.concatenate([np.zeros(0, dtype=np.uint8), *(mask for _, mask in answers)])
        answers.clear()
        if not _ascending(chosen.high, chosen.low):
            order = np.lexsort((chosen.low, chosen.high))
            chosen, masks = chosen.take(order), masks[order]
        unit = np.concatenate([np.zeros(0, dtype=np.uint64), *unit_parts])
        rank = np.concatenate([np.zeros(0, dtype=np.uint8), *rank_parts])
        unit_parts.clear()
        units, unit_split, unit_answers = _units(unit, rank)
        del unit, rank
        nothing = np.zeros(0, dtype=np.int64)
        ledger = cls(
            high=chosen.high, low=chosen.low, place=chosen.place, unit=chosen.unit, rank=chosen.rank, answers=masks,
            units=units, unit_split=unit_split, unit_answers=unit_answers,
            also_row=nothing, also_unit=nothing.astype(np.uint64), also_place=nothing.astype(np.uint32),
            forgotten=forgotten, size=size, mark=mark,
        )  # fmt: skip
        lines = concatenate_columns(repeated)
        rows = ledger.rows_of(lines.high, lines.low)
        also = (lines.rank % 2 == 0) & (lines.rank // 2 == ledger.rank[rows] // 2)
        also &= (lines.unit != ledger.unit[rows]) | (lines.place != ledger.place[rows])
        return replace(ledger, also_row=rows[also], also_unit=lines.unit[also], also_place=lines.place[also])


def disagree(answers: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each set of splits is contradictory. pool agrees with train and with val, and no other pair agrees."""
    return DISAGREE[answers]


def _pairs(
    rows: NDArray[np.int64] | NDArray[np.int32], values: NDArray[np.uint64] | NDArray[np.uint32]
) -> NDArray[np.bytes_]:
    """(n,) S16: each row with its value, as bytes that can be looked up."""
    pairs = np.empty(len(rows), dtype=[("row", ">u8"), ("value", ">u8")])
    pairs["row"], pairs["value"] = rows, values
    return pairs.view("S16").reshape(-1)


def is_among(columns: Columns, contents: Contents) -> NDArray[np.bool_]:
    """(n,) bool, whether the content of each line is one of `contents`."""
    return np.isin(content_keys(columns.high, columns.low), contents)


def _ascending(high: NDArray[np.uint64], low: NDArray[np.uint32]) -> bool:
    return bool(((high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))).all())


def _answers(lines: Columns) -> tuple[Columns, NDArray[np.uint8]]:
    """(the line that counts for each content, the splits in all its lines), sorted by (high, low).

    `lines` are sorted by their bytes, so the lines of a content are neighbours.
    """
    content = begins_of(lines.high, lines.low)
    starts = np.flatnonzero(content)
    masks = np.bitwise_or.reduceat(_bits(lines.rank), starts)
    number = np.cumsum(content) - 1
    best = np.flatnonzero(lines.rank == np.minimum.reduceat(lines.rank, starts)[number])
    chosen = best[begins_of(number[best])]
    order = np.lexsort((lines.low[chosen], lines.high[chosen]))
    return lines.take(chosen[order]), masks[order]


def _repeated(lines: Columns) -> NDArray[np.bool_]:
    """(n,) bool, whether a line has the same content as a neighbour."""
    begins = begins_of(lines.high, lines.low)
    return ~begins | np.append(~begins[1:], False)


def _bits(rank: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The split of each line as a set: bit i for SPLITS[i]."""
    return (np.uint8(1) << SPLIT_OF_RANK[rank].astype(np.uint8)).astype(np.uint8)


def _units(
    unit: NDArray[np.uint64], rank: NDArray[np.uint8]
) -> tuple[NDArray[np.uint64], NDArray[np.int8], NDArray[np.uint8]]:
    """(distinct units, split of each unit, splits in its kept lines), from unit and rank of all lines."""
    if not len(unit):
        return unit, np.zeros(0, dtype=np.int8), np.zeros(0, dtype=np.uint8)
    order = np.argsort(unit)
    unit, bits, kept = unit[order], _bits(rank)[order], (rank % 2 == 0)[order]
    starts = np.flatnonzero(begins_of(unit))
    of_kept = np.bitwise_or.reduceat(np.where(kept, bits, 0).astype(np.uint8), starts)
    split = CLEANEST[np.where(of_kept > 0, of_kept, np.bitwise_or.reduceat(bits, starts))]
    return unit[starts], split, of_kept
