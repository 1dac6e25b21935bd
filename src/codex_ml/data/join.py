"""Similar pairs out of the index: lists of one shingle propose pairs, and the sets decide.

A pair is named by one number, the smaller row in the upper 32 bits and the larger one in the lower, so that sorting
brings the pairs of a document together. Candidates are written to files and verified afterwards: a pair that many
shingles propose is looked at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codex_ml.data.prefixes import Postings, concatenated, read_postings
from codex_ml.data.shingle_sets import Rows, StoredSets, mapped, spans
from codex_ml.errors import naming

PAIRS_AT_ONCE = 1 << 20
SHINGLES_AT_ONCE = 1 << 21  # of both sides of the pairs that are verified together

Pairs = NDArray[np.uint64]


@dataclass(frozen=True)
class JoinTask:
    """The lists of the shingles from `low` to below `high`.

    Attributes:
        files: how many files of postings there are.
        leaders: in a list with more than this many pairs per document, only the first `leaders` of it, in the order of
            preference, are compared with those after them; the others wait.
        candidates: file for what is proposed.
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
    """What the join knows of each row; arrays (n,), mapped.

    Attributes:
        rank: int32, place in the order of preference; -1 for rows that are not compared.
        label: int8; two rows with the same label are not compared, unless it is -1.
    """

    rank: NDArray[np.int32]
    label: NDArray[np.int8]


def order_of(folder: Path) -> Order:
    return Order(mapped(folder / "rank", np.int32), mapped(folder / "label", np.int8))


def propose(task: JoinTask) -> tuple[int, Rows]:
    """Write the candidates of some lists; returns how many, and the rows that wait. Runs in a worker."""
    folder, order = task.sets.folder, order_of(task.sets.folder)
    parts = [read_postings(folder, number, task.low, task.high) for number in range(task.files)]
    ranked = concatenated(parts, lambda row: order.rank[row] >= 0)
    pairs, waiting = proposals(ranked, task.sets.sizes, order, task.threshold, task.leaders)
    with naming(task.candidates):
        pairs.tofile(task.candidates)
    return len(pairs), waiting


def proposals(
    postings: Postings, sizes: NDArray[np.int32], order: Order, threshold: float, leaders: int
) -> tuple[Pairs, Rows]:
    """Distinct pairs that share a shingle of the index and whose caps allow each other, and the rows that wait."""
    lists = np.cumsum(np.concatenate([[True], postings.shingle[1:] != postings.shingle[:-1]])) - 1
    lists = lists[: len(postings.row)]
    size = sizes[postings.row].astype(np.int64)
    keys = (lists << 32) | size
    by_size = np.argsort(keys, kind="stable")
    keys, row, size, cap = keys[by_size], postings.row[by_size], size[by_size], postings.cap[by_size]
    lists = lists[by_size]
    # The partners that are as large as x or larger are the run after it, up to its cap.
    reach = np.searchsorted(keys, (lists << 32) | cap, side="right")
    counts = np.maximum(reach - np.arange(len(row)) - 1, 0)
    starts = np.flatnonzero(np.concatenate([[True], lists[1:] != lists[:-1]])) if len(lists) else lists
    lengths = np.diff(np.append(starts, len(lists)))
    totals = np.add.reduceat(counts, starts) if len(starts) else counts
    crowded = np.repeat(totals > leaders * lengths, lengths)
    plain = np.flatnonzero(~crowded & (counts > 0))
    found = [
        _allowed(row, size, cap, order, np.repeat(part, counts[part]), spans(part + 1, counts[part]))
        for part in _blocks(plain, counts)
    ]
    dense = np.flatnonzero(crowded)
    led, waiting = _led(lists[dense], row[dense], size[dense], cap[dense], order, threshold, leaders)
    return distinct(np.concatenate([*found, *led, np.zeros(0, dtype=np.uint64)])), waiting


def _led(
    lists: Rows,
    row: NDArray[np.int32],
    size: Rows,
    cap: NDArray[np.int32],
    order: Order,
    threshold: float,
    leaders: int,
) -> tuple[list[Pairs], Rows]:
    """Pairs of the first of each crowded list with those after them, and the rows that have more before them.

    A list is cut by size first: two that can be similar are in the same class of sizes or in neighbouring ones, so each
    sublist has two neighbouring classes, and each row is in two sublists.
    """
    width = max(log(1 / threshold), 1e-4) * (1 + 1e-9)
    classes = np.floor(np.log(np.maximum(size, 1)) / width).astype(np.int64)
    sublist = np.concatenate([(lists << 24) | (classes + 1), (lists << 24) | classes])
    twice = np.tile(np.arange(len(row)), 2)
    rank = order.rank[row].astype(np.int64)
    by_rank = np.lexsort((rank[twice], sublist))
    sublist, member = sublist[by_rank], twice[by_rank]
    place = np.arange(len(member))
    begins = np.concatenate([[True], sublist[1:] != sublist[:-1]])[: len(member)]
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, len(member)))
    begin, end = np.repeat(starts, lengths), np.repeat(starts + lengths, lengths)
    # A run of one label, whose rows are not compared with each other; a row without a label is a run of its own.
    label = order.label[row[member]]
    new_run = begins | (label < 0)
    new_run[1:] |= label[1:] != label[:-1]
    runs = np.flatnonzero(new_run)
    run_lengths = np.diff(np.append(runs, len(member)))
    run_begin, run_end = np.repeat(runs, run_lengths), np.repeat(runs + run_lengths, run_lengths)
    counts = end - run_end
    leading = place - begin < leaders
    knows_all = run_begin - begin <= leaders  # of those before it, the ones that are no leaders have its label
    waits = ~leading & ~(knows_all & (counts == 0))
    chosen = np.flatnonzero(leading & (counts > 0))
    found = [
        _allowed(
            row, size, cap, order, np.repeat(member[part], counts[part]), member[spans(run_end[part], counts[part])]
        )
        for part in _blocks(chosen, counts)
    ]
    return found, np.unique(row[member[waits]]).astype(np.int64)


def _allowed(
    row: NDArray[np.int32], size: Rows, cap: NDArray[np.int32], order: Order, first: Rows, second: Rows
) -> Pairs:
    """Those of the pairs of places whose caps and labels allow each other, named and distinct."""
    fits = (size[first] <= cap[second]) & (size[second] <= cap[first])
    a, b = row[first[fits]], row[second[fits]]
    label = order.label[a]
    apart = (label < 0) | (label != order.label[b])
    a, b = a[apart], b[apart]
    return distinct((np.minimum(a, b).astype(np.uint64) << np.uint64(32)) | np.maximum(a, b).astype(np.uint64))


def _blocks(places: Rows, counts: Rows) -> Iterator[Rows]:
    """Runs of places with about PAIRS_AT_ONCE pairs together."""
    total = np.cumsum(counts[places])
    start = 0
    while start < len(places):
        done = int(total[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + PAIRS_AT_ONCE, side="right")))
        yield places[start:stop]
        start = stop


def distinct(pairs: Pairs) -> Pairs:
    """Sorted, each once; np.unique hashes first and takes longer."""
    pairs = np.sort(pairs)
    return pairs[np.concatenate([[True], pairs[1:] != pairs[:-1]])[: len(pairs)]]


@dataclass(frozen=True)
class VerifyTask:
    """The candidates whose number is at least `low` and below `high`."""

    sets: StoredSets
    files: tuple[Path, ...]
    low: int
    high: int
    threshold: float


@dataclass(frozen=True)
class Verified:
    """What the sets say of some candidates.

    Attributes:
        looked_at: how many candidates there were, the same pair in two files counted twice.
        pairs: uint64, those that reach the threshold.
        similarity: float64, of each of these.
    """

    looked_at: int
    pairs: Pairs
    similarity: NDArray[np.float64]


def verify(task: VerifyTask) -> Verified:
    """Keep the candidates whose Jaccard similarity reaches the threshold. Runs in a worker."""
    parts = []
    for file in task.files:
        pairs = mapped(file, np.uint64)
        start = int(np.searchsorted(pairs, np.uint64(task.low)))
        stop = int(np.searchsorted(pairs, np.uint64(task.high))) if task.high < 1 << 64 else len(pairs)
        parts.append(np.array(pairs[start:stop]))
    looked_at = sum(map(len, parts))
    pairs = distinct(np.concatenate([*parts, np.zeros(0, dtype=np.uint64)]))
    sizes = task.sets.sizes
    first, second = rows_of(pairs)
    total = np.cumsum(sizes[first].astype(np.int64) + sizes[second])
    similarity = np.zeros(len(pairs))
    start = 0
    while start < len(pairs):
        done = int(total[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + SHINGLES_AT_ONCE, side="right")))
        similarity[start:stop] = similarities(task.sets, first[start:stop], second[start:stop])
        start = stop
    reached = similarity >= task.threshold  # both sides round the same quotient, so a pair on the threshold is one
    return Verified(looked_at, pairs[reached], similarity[reached])


def rows_of(pairs: Pairs) -> tuple[Rows, Rows]:
    """(smaller row, larger row) of each pair."""
    return (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)


def similarities(sets: StoredSets, first: Rows, second: Rows) -> NDArray[np.float64]:
    """Exact Jaccard similarity of each pair (first[i], second[i]), for all at once.

    The shingles of all these documents get numbers in the order of their hashes; (pair, number) then names a shingle of
    one side of one pair. Both sides are sorted, so that one merge brings what they share together.
    """
    rows = np.unique(np.concatenate([first, second]))
    sizes = sets.sizes
    lengths = sizes[rows]
    values = sets.gather(sets.starts[rows], lengths)
    order = np.argsort(values)
    ordered = values[order]
    new = np.concatenate([[False], ordered[1:] != ordered[:-1]])[: len(order)]
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(new)
    begins = np.cumsum(lengths, dtype=np.int64) - lengths
    keys = []
    for side in (first, second):
        place = np.searchsorted(rows, side)
        pair = np.repeat(np.arange(len(side)) * len(order), lengths[place])
        keys.append(pair + numbers[spans(begins[place], lengths[place])])
    merged = np.sort(np.concatenate(keys), kind="stable")
    shared = merged[1:][merged[1:] == merged[:-1]] // max(len(order), 1)
    common = np.bincount(shared, minlength=len(first))
    return common / np.maximum(sizes[first].astype(np.int64) + sizes[second] - common, 1)
