"""Find near-duplicates exactly, and decide which documents are kept.

Documents are taken in a given order. A document is kept if and only if it is not a near-duplicate of a document that is
kept before it. So every dropped document has a kept near-duplicate, and chains (a ~ b ~ c) do not join a corpus into
one family. Every pair at or above the threshold is found (`prefixes` proves it), in time near-linear in the text.
Used by: split.deal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.parallel import ordered_map
from codex_ml.core.sorted_arrays import begins_of, blocks_within
from codex_ml.split.crew import Crew
from codex_ml.split.duplicates.pairs import Pairs, Verified, VerifyTask, rows_of, verify_pairs
from codex_ml.split.duplicates.prefixes import IndexTask, index
from codex_ml.split.duplicates.proposals import JoinTask, Proposed, propose
from codex_ml.split.duplicates.shingle_sets import RowNumbers, ShingleSets, mapped
from codex_ml.split.duplicates.tiles import Compared, compare_tile

LEADERS = 4  # in a crowded list, only the first so many documents are compared with those after them; the others wait
MORE_LEADERS = 4  # factor from one round to the next
SHINGLES_PER_TASK = 1 << 21
POSTINGS_PER_TASK = 1 << 18
POSTINGS_AT_MOST = 1 << 21  # per task; limits the memory
PAIRS_PER_TASK = 1 << 13
PAIRS_AT_MOST = 1 << 20
MANY_TASKS = 256  # above it, tasks grow in size, not in number: each task opens all files of the previous step
PROPOSAL, CANDIDATE = 100, 1000  # cost per pair of a round, in comparisons of coarse parities (4 to 10 ns each)


@dataclass(frozen=True)
class Families:
    """Result of `keep_first` and `crossing`; n rows, m verified pairs.

    Attributes:
        kept_by: (n,) int32, for a dropped row the kept row of which it is a near-duplicate; else -1.
        first, second: (m,) int32, rows of the verified pairs: all pairs of a small family, some per document of a
            crowded one.
        similarity: (m,) float32.
    """

    kept_by: NDArray[np.int32]
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    similarity: NDArray[np.float32]


class ShingleIndex:
    """The index of some rows of the sets, for any number of searches at one threshold."""

    def __init__(self, sets: ShingleSets, rows: RowNumbers, *, threshold: float, crew: Crew) -> None:
        self.sets, self.threshold, self.crew = sets, threshold, crew
        members = np.zeros(len(sets.sizes), dtype=bool)
        members[rows] = True
        members.tofile(sets.folder / "members")
        tasks = list(self._tasks())
        self.files, self.postings = len(tasks), 0
        total = int(sets.sizes.sum(dtype=np.int64))
        with crew.watch("split: index", total, "shingles") as advance:
            for task, count in ordered_map(index, tasks, workers=crew.for_tasks(len(tasks)), folder=sets.folder):
                self.postings += count
                advance(int(sets.sizes[task.start : task.stop].sum(dtype=np.int64)))

    def _tasks(self) -> Iterator[IndexTask]:
        ends = np.cumsum(self.sets.sizes, dtype=np.int64)
        for number, rows in enumerate(blocks_within(ends, SHINGLES_PER_TASK)):
            offset = int(ends[rows.start - 1]) if rows.start else 0
            yield IndexTask(self.sets.stored, self.threshold, rows.start, rows.stop, offset, number)

    def join_tasks(self) -> list[JoinTask]:
        """The lists, divided by the first bits of the shingles into parts that fit in memory.

        Shingles are hashes, so the parts are about equally large.
        """
        if not self.postings:
            return []
        count, folder = join_parts(self.postings), self.sets.folder
        edges = [(1 << 64) * part // count for part in range(count + 1)]
        return [
            JoinTask(self.sets.stored, self.files, low, high, self.threshold, LEADERS, folder / f"pairs-{part}")
            for part, (low, high) in enumerate(pairwise(edges))
        ]


def join_parts(postings: int) -> int:
    """Number of parts for the join of `postings` postings: a power of 2."""
    per_task = min(max(POSTINGS_PER_TASK, postings // MANY_TASKS), POSTINGS_AT_MOST)
    return 1 << (postings // per_task).bit_length()


def keep_first(index: ShingleIndex, rows: RowNumbers, pinned: NDArray[np.bool_]) -> Families:
    """Keep each of `rows`, in this order, that is not a near-duplicate of a row kept before it.

    For example, if rows 7 and 2 are near-duplicates, keep_first(index, [7, 2, 5], ...) keeps 7 and 5, and
    kept_by[2] is 7.

    Args:
        rows: row numbers in the index, in order of preference.
        pinned: (len(rows),) bool, rows that are always kept. Two pinned rows are not compared.
    """
    return _greedy(index, rows, np.where(pinned, 0, -1).astype(np.int8), pinned)


def crossing(
    index: ShingleIndex, rows: RowNumbers, part: NDArray[np.int8], pinned: NDArray[np.bool_] | None = None
) -> Families:
    """Keep each of `rows`, in this order, that is not a near-duplicate of a row of another split kept before it.

    Args:
        rows: row numbers in the index, in order of preference.
        part: (len(rows),) int8, the split of each row.
        pinned: (len(rows),) bool, rows that are always kept; None for none.
    """
    return _greedy(index, rows, part, np.zeros(len(rows), dtype=bool) if pinned is None else pinned)


@dataclass
class _VerifiedPairs:
    """Verified pairs of rows, sorted and distinct."""

    pairs: Pairs
    similarity: NDArray[np.float32]

    @classmethod
    def none(cls) -> _VerifiedPairs:
        return cls(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.float32))

    def and_also(self, fresh: Verified) -> _VerifiedPairs:
        both = np.concatenate([self.pairs, fresh.pairs])
        similarities = np.concatenate([self.similarity, fresh.similarity.astype(np.float32)])
        order = np.argsort(both, kind="stable")
        distinct = begins_of(both[order])
        return _VerifiedPairs(both[order][distinct], similarities[order][distinct])

    def among(self, rank: NDArray[np.int32]) -> _VerifiedPairs:
        """The pairs of which both rows still have a rank."""
        first, second = rows_of(self.pairs)
        both = (rank[first] >= 0) & (rank[second] >= 0)
        return _VerifiedPairs(self.pairs[both], self.similarity[both])


def _greedy(index: ShingleIndex, rows: RowNumbers, label: NDArray[np.int8], pinned: NDArray[np.bool_]) -> Families:
    """Decide every row, in rounds.

    A crowded list of m documents gives at most `leaders` * m pairs. A dropped document is not in the next round, so a
    large family costs about m comparisons instead of m^2. A document that was not compared with all documents before it
    waits for a round with more leaders. So the result is the same as with all pairs at once.
    """
    size = len(index.sets.sizes)
    kept_by = np.full(size, -1, dtype=np.int32)
    rank, labels = np.full(size, -1, dtype=np.int32), np.full(size, -1, dtype=np.int8)
    rank[rows], labels[rows] = np.arange(len(rows)), label
    labels.tofile(index.sets.folder / "label")
    tasks, leaders, seen = index.join_tasks(), LEADERS, _Seen()
    found, open_pairs = _VerifiedPairs.none(), _VerifiedPairs.none()
    while tasks:
        rank.tofile(index.sets.folder / "rank")
        left = seen.cheaper(index, rank, labels)
        if left:
            waiting, tasks, fresh = np.zeros(size, dtype=bool), [], _all_with_all(index, left)
        else:
            waiting, tasks, fresh, seen = _round(index, [replace(task, leaders=leaders) for task in tasks])
        found, open_pairs = found.and_also(fresh), open_pairs.and_also(fresh)
        stays_open = _decide(rows, rank, pinned, waiting, open_pairs.pairs, kept_by)
        rank[~stays_open] = -1
        open_pairs = open_pairs.among(rank)
        leaders *= MORE_LEADERS
    first, second = rows_of(found.pairs)
    return Families(kept_by, first.astype(np.int32), second.astype(np.int32), found.similarity)


@dataclass(frozen=True)
class _Seen:
    """Numbers of pairs of the last round, as in `Proposed`. They predict the cost of the next round."""

    proposed: int = 0
    candidates: int = 0

    def and_also(self, part: Proposed) -> _Seen:
        return _Seen(self.proposed + part.proposed, self.candidates + part.candidates)

    def cheaper(self, index: ShingleIndex, rank: NDArray[np.int32], label: NDArray[np.int8]) -> Compared | None:
        """The rows that have a rank, if comparing all pairs costs less than a round with more leaders; else None."""
        if not self.proposed:
            return None
        left = Compared.of(np.flatnonzero(rank >= 0), index.sets.sizes, label, index.threshold)
        next_round = MORE_LEADERS * (PROPOSAL * self.proposed + CANDIDATE * self.candidates)
        per_pair = 1 + CANDIDATE * self.candidates / self.proposed  # an upper bound: other pairs pass less often
        return left if left.pairs() * per_pair < next_round else None


def _all_with_all(index: ShingleIndex, left: Compared) -> Verified:
    """Verify all pairs of some rows."""
    tasks, crew = left.tasks(index.sets.stored), index.crew
    parts = []
    with crew.watch("split: compare all", len(tasks), "parts") as advance:
        for _, part in ordered_map(compare_tile, tasks, workers=crew.for_tasks(len(tasks)), folder=index.sets.folder):
            parts.append(part)
            advance(1)
    return Verified.of_parts(parts)


def _round(index: ShingleIndex, tasks: list[JoinTask]) -> tuple[NDArray[np.bool_], list[JoinTask], Verified, _Seen]:
    """Propose and verify once.

    Returns:
        (waiting: (n,) bool, the tasks with a waiting row, the verified pairs, the numbers of pairs)
    """
    folder, crew = index.sets.folder, index.crew
    waiting, again, seen = np.zeros(len(index.sets.sizes), dtype=bool), [], _Seen()
    with crew.watch("split: propose", len(tasks), "parts") as advance:
        for task, part in ordered_map(propose, tasks, workers=crew.for_tasks(len(tasks)), folder=folder):
            waiting[part.waiting] = True
            seen = seen.and_also(part)
            if len(part.waiting):
                again.append(task)
            advance(1)
    parts = []
    checks = list(_verify_tasks(index, [task.candidates for task in tasks], seen.candidates))
    with crew.watch("split: compare", seen.candidates, "pairs") as advance:
        for _, verified in ordered_map(verify_pairs, checks, workers=crew.for_tasks(len(checks)), folder=folder):
            parts.append(verified)
            advance(verified.looked_at)
    return waiting, again, Verified.of_parts(parts), seen


def _verify_tasks(index: ShingleIndex, files: list[Path], total: int) -> Iterator[VerifyTask]:
    """Divide the candidates of all files into ranges of about equal length, so that equal pairs are in one task."""
    count = total // min(max(PAIRS_PER_TASK, total // MANY_TASKS), PAIRS_AT_MOST) + 1
    step = PAIRS_PER_TASK // 64
    sample = np.sort(np.concatenate([mapped(file, np.uint64)[::step] for file in files]))
    inner = sample[np.arange(1, count) * len(sample) // count].tolist() if count > 1 else []
    for low, high in pairwise([0, *inner, 1 << 64]):
        yield VerifyTask(index.sets.stored, tuple(files), low, high, index.threshold)


def _decide(
    rows: RowNumbers,
    rank: NDArray[np.int32],
    pinned: NDArray[np.bool_],
    waiting: NDArray[np.bool_],
    pairs: Pairs,
    kept_by: NDArray[np.int32],
) -> NDArray[np.bool_]:
    """Keep, drop (set `kept_by`) or leave open every row that has a rank.

    A row is kept if it is pinned, or if it does not wait and is not a near-duplicate of a row kept before it. It stays
    open if it waits, or if it is a near-duplicate of an open row before it.

    Returns:
        (n,) bool, the rows that stay open for the next round.
    """
    a, b = rows_of(pairs)
    early, late = np.minimum(rank[a], rank[b]), np.maximum(rank[a], rank[b])
    order = np.lexsort((early, late))
    early, late = early[order], late[order]
    free = ~pinned[late]
    open_, kept = waiting[rows].tolist(), (pinned | ~waiting[rows]).tolist()
    dropped = {}
    for first, second in zip(early[free].tolist(), late[free].tolist(), strict=True):
        if second in dropped:
            continue
        if kept[first]:
            dropped[second] = first
            kept[second] = open_[second] = False
        elif open_[first]:
            kept[second], open_[second] = False, True
    gone = np.fromiter(dropped, dtype=np.int64, count=len(dropped))
    kept_by[rows[gone]] = rows[np.fromiter(dropped.values(), dtype=np.int64, count=len(dropped))]
    left = np.zeros(len(rank), dtype=bool)
    left[rows] = open_
    return left
