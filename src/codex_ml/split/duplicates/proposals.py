"""Propose candidate pairs from the index: documents that share a posting. `pairs` verifies the candidates.

Used by: duplicates.dedup.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import naming
from codex_ml.core.sorted_arrays import begins_of, blocks_within, ranges
from codex_ml.split.duplicates.pairs import Pairs, distinct, named, rows_of
from codex_ml.split.duplicates.parities import possible, rows_in
from codex_ml.split.duplicates.prefixes import Postings, concatenated, read_postings
from codex_ml.split.duplicates.shingle_sets import RowNumbers, StoredSets, mapped

PAIRS_AT_ONCE = 1 << 20
RUN = 1 << 21  # pairs per run, before equal ones are removed
CROWDED = 2  # pairs per document above which the cheap parity test pays


@dataclass(frozen=True)
class JoinTask:
    """The lists of the shingles with low <= shingle < high.

    Attributes:
        files: number of files of postings.
        leaders: in a list with more than `leaders` pairs per document, only the first `leaders` documents, in the order
            of preference, are compared with those after them. The others wait.
        candidates: file to which the proposed pairs are written.
    """

    sets: StoredSets
    files: int
    low: int
    high: int
    threshold: float
    leaders: int
    candidates: Path


@dataclass(frozen=True)
class Order:
    """Rank and label of each row; arrays (n,), memory-mapped.

    Attributes:
        rank: int32, position in the order of preference; -1 for rows that are not compared.
        label: int8; two rows with the same label are not compared, unless the label is -1.
    """

    rank: NDArray[np.int32]
    label: NDArray[np.int8]


def order_of(folder: Path) -> Order:
    """Map the order that `dedup` has written to a folder; see `Order`."""
    return Order(mapped(folder / "rank", np.int32), mapped(folder / "label", np.int8))


@dataclass(frozen=True)
class Proposed:
    """Result of `propose`.

    Attributes:
        candidates: number of pairs that were written.
        proposed: number of pairs before the parities excluded some.
        waiting: rows that were not compared with all their possible partners.
    """

    candidates: int
    proposed: int
    waiting: RowNumbers


def propose(task: JoinTask) -> Proposed:
    """Write the candidates of the lists of a task. Runs in a worker."""
    folder, order = task.sets.folder, order_of(task.sets.folder)
    parts = [read_postings(folder, number, task.low, task.high) for number in range(task.files)]
    postings = concatenated(parts, lambda row: order.rank[row] >= 0)
    lists = _Lists.of(postings, task.sets.sizes)
    crowded = lists.crowded(task.leaders)
    candidates = _Candidates(task.sets, task.threshold)
    for pairs in _all_pairs(lists.at(~crowded), order):
        candidates.add(pairs)
    sublists = _Sublists.of(lists.at(crowded), order, task.threshold)
    for pairs in sublists.led_pairs(task.leaders):
        candidates.add(pairs)
    with naming(task.candidates):
        found = candidates.all()
        found.tofile(task.candidates)
    return Proposed(len(found), candidates.proposed, sublists.waiting(task.leaders))


class _Candidates:
    """Collects distinct pairs in runs. A pair that many lists propose is in memory at most once per finished run."""

    def __init__(self, sets: StoredSets, threshold: float) -> None:
        self.sets, self.threshold = sets, threshold
        self._fresh: list[Pairs] = []
        self._runs: list[Pairs] = []
        self._count = 0
        self.proposed = 0  # distinct pairs, summed over the runs

    def add(self, pairs: Pairs) -> None:
        self._fresh.append(pairs)
        self._count += len(pairs)
        if self._count >= RUN:
            self._end_run()

    def all(self) -> Pairs:
        """The pairs that the parities do not exclude, sorted."""
        self._end_run()
        return distinct(np.concatenate(self._runs))

    def _end_run(self) -> None:
        pairs = distinct(np.concatenate([*self._fresh, np.zeros(0, dtype=np.uint64)]))
        first, second = rows_of(pairs)
        self.proposed += len(pairs)
        if len(pairs) > CROWDED * len(rows_in(len(self.sets.sizes), first, second)):
            pairs = pairs[possible(self.sets, first, second, self.threshold)]
        self._runs.append(pairs)
        self._fresh.clear()
        self._count = 0


@dataclass(frozen=True)
class _Lists:
    """Postings grouped into one list per shingle; in each list the smallest documents come first. Arrays of one length.

    Attributes:
        number: int64, number of the list.
        row, cap: int32, as in `Postings`.
        size: int64, number of shingles of the document.
    """

    number: RowNumbers
    row: NDArray[np.int32]
    size: RowNumbers
    cap: NDArray[np.int32]

    @classmethod
    def of(cls, postings: Postings, sizes: NDArray[np.int32]) -> _Lists:
        number = np.cumsum(begins_of(postings.shingle)) - 1
        size = sizes[postings.row].astype(np.int64)
        order = np.argsort((number << 32) | size, kind="stable")
        return cls(number[order], postings.row[order], size[order], postings.cap[order])

    def at(self, chosen: NDArray[np.bool_]) -> _Lists:
        return _Lists(self.number[chosen], self.row[chosen], self.size[chosen], self.cap[chosen])

    def partners(self) -> RowNumbers:
        """For each posting, the number of postings after it in its list whose size is at most its cap.

        Lists are sorted by size, so these follow it directly.
        """
        reach = np.searchsorted((self.number << 32) | self.size, (self.number << 32) | self.cap, side="right")
        return np.maximum(reach - np.arange(len(reach)) - 1, 0)

    def crowded(self, leaders: int) -> NDArray[np.bool_]:
        """For each posting, whether its list has more than `leaders` pairs per document."""
        starts = np.flatnonzero(begins_of(self.number))
        if not len(starts):
            return np.zeros(0, dtype=bool)
        lengths = np.diff(np.append(starts, len(self.number)))
        return np.repeat(np.add.reduceat(self.partners(), starts) > leaders * lengths, lengths)


def _all_pairs(lists: _Lists, order: Order) -> Iterator[Pairs]:
    counts = lists.partners()
    places = np.flatnonzero(counts > 0)
    for block in blocks_within(np.cumsum(counts[places]), PAIRS_AT_ONCE):
        part = places[block]
        yield _allowed(lists, order, np.repeat(part, counts[part]), ranges(part + 1, counts[part]))


@dataclass(frozen=True)
class _Sublists:
    """Crowded lists, divided by size, each in the order of preference; arrays of one length.

    Two documents that can be similar are in the same size class or in neighbouring ones. So each sublist covers two
    neighbouring classes, and each posting is in two sublists. A run is a series of neighbours of a sublist with the
    same label; they are not compared with each other. A posting without a label is a run by itself.

    Attributes:
        lists, order: the postings, and the order.
        member: index of a posting in `lists`.
        begin, end: where its sublist begins and ends in these arrays.
        run_begin, run_end: where its run begins and ends in these arrays.
    """

    lists: _Lists
    order: Order
    member: RowNumbers
    begin: RowNumbers
    end: RowNumbers
    run_begin: RowNumbers
    run_end: RowNumbers

    @classmethod
    def of(cls, lists: _Lists, order: Order, threshold: float) -> _Sublists:
        width = max(log(1 / threshold), 1e-4) * (1 + 1e-9)
        classes = np.floor(np.log(np.maximum(lists.size, 1)) / width).astype(np.int64)
        sublist = np.concatenate([(lists.number << 24) | (classes + 1), (lists.number << 24) | classes])
        twice = np.tile(np.arange(len(lists.row)), 2)
        by_rank = np.lexsort((order.rank[lists.row[twice]], sublist))
        sublist, member = sublist[by_rank], twice[by_rank]
        label = order.label[lists.row[member]]
        begins = begins_of(sublist)
        begin, end = _edges(begins)
        run_begin, run_end = _edges(begins | (label < 0) | begins_of(label))
        return cls(lists, order, member, begin, end, run_begin, run_end)

    def led_pairs(self, leaders: int) -> Iterator[Pairs]:
        """Yield the pairs of the first `leaders` postings of each sublist with the postings after them."""
        leads = np.arange(len(self.member)) - self.begin < leaders
        counts = self.end - self.run_end
        places = np.flatnonzero(leads & (counts > 0))
        for block in blocks_within(np.cumsum(counts[places]), PAIRS_AT_ONCE):
            part = places[block]
            first = np.repeat(self.member[part], counts[part])
            yield _allowed(self.lists, self.order, first, self.member[ranges(self.run_end[part], counts[part])])

    def waiting(self, leaders: int) -> RowNumbers:
        """Rows that were not compared with all their possible partners."""
        leads = np.arange(len(self.member)) - self.begin < leaders
        knows_all_before = self.run_begin - self.begin <= leaders  # all others before it are in its own run
        waits = ~leads & ~(knows_all_before & (self.run_end == self.end))
        return np.unique(self.lists.row[self.member[waits]]).astype(np.int64)


def _edges(begins: NDArray[np.bool_]) -> tuple[RowNumbers, RowNumbers]:
    """(begin, end) of the group of each element, given a mask of the first elements of groups.

    For [True, False, True] they are [0, 0, 2] and [2, 2, 3].
    """
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, len(begins)))
    return np.repeat(starts, lengths), np.repeat(starts + lengths, lengths)


def _allowed(lists: _Lists, order: Order, first: RowNumbers, second: RowNumbers) -> Pairs:
    """The distinct row pairs of those pairs of postings that caps and labels allow."""
    fits = (lists.size[first] <= lists.cap[second]) & (lists.size[second] <= lists.cap[first])
    a, b = lists.row[first[fits]], lists.row[second[fits]]
    label = order.label[a]
    apart = (label < 0) | (label != order.label[b])
    a, b = a[apart], b[apart]
    return distinct(named(a, b))
