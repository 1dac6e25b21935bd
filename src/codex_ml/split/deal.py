"""Deal documents into train, validation and test.

One document is kept of each family of exact copies or near-duplicates. A keyed hash of its group, or of its content if
it has no group, decides its split. So row order, shards and other documents have no influence, and a family counts once
whatever its size. A document that the ledger lists keeps its split. If that split contradicts the split of its group or
of a near-duplicate, the newer document is quarantined.

The ledger may unite histories that disagree. Then a document that one history held out stays out of train. Of two
near-copies that the ledger lists, the one in the less clean split is evicted (train before val before test). A document
whose group another history held out is used for neither split.

Used by: stages/split.py. `candidates.Dealt` shows a worked example.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError
from codex_ml.core.sorted_arrays import begins_of, find
from codex_ml.split.candidates import (
    DROPPED,
    EVICTED,
    EXACT,
    KEPT,
    NEAR,
    PARTS,
    POOL,
    QUARANTINED,
    TEST,
    TRAIN,
    Bools,
    Dealt,
    DocumentKeys,
)  # fmt: skip
from codex_ml.split.config import Split
from codex_ml.split.crew import Crew
from codex_ml.split.duplicates.dedup import ShingleIndex, crossing, keep_first
from codex_ml.split.duplicates.shingle_sets import RowNumbers, ShingleSets
from codex_ml.split.ledger.answers import RANKS, Ledger
from codex_ml.split.ledger.line_format import Columns, Lines, content_keys, lines_of
from codex_ml.split.shares import by_hash_without_test, deal_new

CLEANEST_FIRST = np.array([2, 1, 0, 3, 4], dtype=np.int8)  # sort key of train, val, test, pool, and of unknown (-1)


@dataclass(frozen=True)
class _Listing:
    """What the ledger lists for each document, duplicates included; all arrays (n,).

    Attributes:
        part: int8, split of its group or content; -1 if the ledger lists neither.
        side: int8, the split that the document must not leave, because the ledger lists it as kept; -1 for others.
        conflict: whether its group and its content belong to different splits. Then only a held-out one has a side.
        pinned: whether the ledger lists it as kept.
    """

    part: NDArray[np.int8]
    side: NDArray[np.int8]
    conflict: Bools
    pinned: Bools

    @property
    def held_out(self) -> Bools:
        return self.conflict & (self.side > TRAIN)


def deal(documents: DocumentKeys, sets: ShingleSets, ledger: Ledger, params: Split, crew: Crew) -> Dealt:
    """Deal every candidate.

    Args:
        sets: shingle sets; row i belongs to candidate i.
        ledger: an empty ledger for the stateless mode. In that mode an added document can replace a near-duplicate,
            and the family then moves to the split of the added document.
        crew: worker processes and progress of the search for near-duplicates.

    Raises:
        UserError: when train, val or test would be empty.
    """
    size = len(documents.high)
    # Look up the ledger, and choose one of each family of exact copies.
    old = ledger.rows_of(documents.high, documents.ledger_low).astype(np.int32)
    at_place, in_unit = ledger.records(old, documents.unit, documents.ledger_place)
    copies = _first_copies(documents, np.where(at_place, 0, np.where(in_unit, 1, 2)).astype(np.int8))
    is_first = copies == np.arange(size)
    listing = _listing(documents, np.flatnonzero(is_first), old, ledger, params)
    held_out, pinned = listing.held_out, listing.pinned
    # Choose one of each family of near-duplicates. A document bound to a cleaner side evicts its near-duplicates.
    with_words = is_first & (sets.sizes > 0)  # a text of fewer than 5 words has no near-duplicates
    index = ShingleIndex(sets, np.flatnonzero(with_words), threshold=params.near_duplicate, crew=crew)
    evicted_by = _evicted_by(index, documents, with_words, listing)
    rows = np.flatnonzero(with_words & (evicted_by < 0))
    rows = rows[np.lexsort((documents.low[rows], documents.high[rows], _tier(listing, old)[rows]))]
    families = keep_first(index, rows, (listing.side >= 0)[rows])
    keeper = np.where(evicted_by >= 0, evicted_by, families.kept_by)
    by_held_out = (keeper >= 0) & held_out[keeper]
    reason = np.full(size, KEPT, dtype=np.int8)
    reason[~is_first] = EXACT
    reason[families.kept_by >= 0] = NEAR
    reason[by_held_out | (evicted_by >= 0)] = EVICTED
    reason[listing.conflict & (reason == KEPT)] = QUARANTINED
    # Deal the rest. Of a near pair across splits, drop the newer document; if the ledger lists both, the one in train.
    part, kept_by = listing.part.copy(), np.where(is_first, keeper, copies)
    left = np.flatnonzero(reason == KEPT)
    deal_new(documents, left, part, params)
    left = left[sets.sizes[left] > 0]
    left = left[np.lexsort((documents.low[left], documents.high[left], -part[left], ~pinned[left]))]
    across = crossing(index, left, part[left])
    gone = np.flatnonzero(across.kept_by >= 0)
    kept_by[gone] = across.kept_by[gone]
    reason[gone] = np.where(pinned[kept_by[gone]] & ~pinned[gone], QUARANTINED, EVICTED)
    part[reason != KEPT] = DROPPED
    _refuse_empty(documents, part)
    return Dealt(
        part=part, reason=reason, kept_by=kept_by, copies=copies, families=families, crossing=across, old=old,
        pinned=pinned, recorded=in_unit, moved=(evicted_by >= 0) & ~by_held_out,
    )  # fmt: skip


def _first_copies(documents: DocumentKeys, choice: NDArray[np.int8]) -> NDArray[np.int32]:
    """(n,) int32: for each document the exact copy that represents it: least choice first, then least place."""
    order = np.lexsort((documents.place, choice, documents.low, documents.high))
    begins = begins_of(documents.high[order], documents.low[order])
    first = np.empty(len(order), dtype=np.int32)
    first[order] = order[begins][np.cumsum(begins) - 1]
    return first


def _tier(listing: _Listing, old: NDArray[np.int32]) -> NDArray[np.int8]:
    """(n,) int8 rank. Of several near-duplicates, the one with the least rank represents them.

    The rank does not depend on the split or on the salted hash that deals; else families would accumulate in test. A
    quarantined document has the last rank, so it represents no other. If it is held out, it still evicts its
    near-duplicates.
    """
    tier = np.where(old >= 0, 2, 3)
    tier = np.where(listing.pinned, 0, tier)
    return np.where(listing.held_out, 1, np.where(listing.conflict, 4, tier)).astype(np.int8)


def _evicted_by(
    index: ShingleIndex, documents: DocumentKeys, with_words: Bools, listing: _Listing
) -> NDArray[np.int32]:
    """(n,) int32: for each document that the ledger binds to a side, such a near-duplicate in a cleaner split, or -1.

    One exists only if histories were united, or the threshold was lowered.
    """
    side = listing.side
    rows = np.flatnonzero(with_words & (side >= 0))
    if len(np.unique(side[rows])) < 2:
        return np.full(len(side), -1, dtype=np.int32)
    rows = rows[np.lexsort((documents.low[rows], documents.high[rows], CLEANEST_FIRST[side[rows]]))]
    return crossing(index, rows, side[rows], listing.held_out[rows]).kept_by


def _listing(
    documents: DocumentKeys, rows: RowNumbers, old: NDArray[np.int32], ledger: Ledger, params: Split
) -> _Listing:
    """Look the documents up in the ledger.

    Args:
        rows: the representative of each family of exact copies.
        old: (n,) int32, row of each content in the ledger, or -1.
    """
    if not len(ledger):
        unlisted, no = np.full(len(old), -1, dtype=np.int8), np.zeros(len(old), dtype=bool)
        return _Listing(unlisted, unlisted, no, no)
    unit = ledger.units_of(documents.unit)
    part = np.where(unit >= 0, ledger.unit_split[unit], -1).astype(np.int8)
    in_content = np.where(old >= 0, ledger.split[old], -1).astype(np.int8)
    pinned = (old >= 0) & ledger.kept[old]
    _follow_listed_content(documents, rows, part, in_content)
    held_out_apart = (in_content == TEST) != (part == TEST)
    if not params.folds:  # the ledger may have been written with folds
        part = np.where(part == POOL, by_hash_without_test(documents.unit, params), part).astype(np.int8)
    pooled = (in_content == POOL) | (params.folds > 0)  # then a difference between train and val is not a conflict
    conflict = (in_content >= 0) & (part >= 0) & (held_out_apart | ((in_content != part) & ~pooled))
    side = np.where(conflict, in_content, part)
    if params.folds:
        side = np.where(side == TEST, TEST, TRAIN)
    binds = pinned & ~(conflict & ((side == TRAIN) | (side == POOL)))
    return _Listing(part, np.where(binds, side, -1).astype(np.int8), conflict, pinned)


def _follow_listed_content(
    documents: DocumentKeys, rows: RowNumbers, part: NDArray[np.int8], in_content: NDArray[np.int8]
) -> None:
    """Put a unit that the ledger does not list into the split of a listed content in it.

    If its contents are in several splits, the cleanest one counts. Only the representative of exact copies counts;
    else one empty __init__.py would pull every repository into its split.
    """
    rows = rows[(part[rows] < 0) & (in_content[rows] >= 0)]
    rows = rows[np.lexsort((CLEANEST_FIRST[in_content[rows]], documents.unit[rows]))]
    units, first = np.unique(documents.unit[rows], return_index=True)
    index = find(units, documents.unit)
    follows = (part < 0) & (index >= 0)
    part[follows] = in_content[rows[first[index[follows]]]]


def _refuse_empty(documents: DocumentKeys, part: NDArray[np.int8]) -> None:
    kept = np.flatnonzero(part >= 0)
    for number, name in enumerate(PARTS):
        if (part[kept] == number).any():
            continue
        _, counts = np.unique(documents.unit[kept], return_counts=True)
        largest = int(counts.max()) if len(counts) else 0
        if len(kept) and largest > 1 and largest >= 0.5 * len(kept):
            raise UserError(
                f"the {name} split is empty: one group holds {100 * largest / len(kept):.0f} % of the {len(kept)} "
                "documents, and a group is never divided; map a finer group field, set group: none, or add sources"
            )
        raise UserError(
            f"the {name} split is empty ({len(kept)} of {len(part)} documents are left after deduplication); "
            "add documents, raise split.val and split.test, or change split.salt or split.licences"
        )


def new_lines(documents: DocumentKeys, dealt: Dealt, ledger: Ledger, params: Split) -> Lines:
    """Lines that this split adds to the ledger, distinct and sorted. The ledger holds none of them.

    They are the lines of contents that the ledger does not list, or lists as duplicates although they are kept; of
    listed contents in another unit; and of listed contents that a document of a cleaner split evicts.
    """
    before = np.where(dealt.old >= 0, ledger.split[dealt.old] if len(ledger) else -1, -1)
    kept = dealt.part >= 0
    split = np.where(kept, dealt.part, dealt.part[dealt.kept_by])
    if params.folds:
        split = np.where(split == TEST, TEST, POOL)
    split = np.where(kept & (before >= 0), before, split).astype(np.int8)  # a listed document keeps its listed split
    follows = (dealt.reason == NEAR) & (before < 0) | dealt.moved
    follows &= (dealt.kept_by >= 0) & kept[dealt.kept_by]  # else its representative was evicted
    chosen = (kept & ~(dealt.pinned & dealt.recorded)) | follows
    chosen &= dealt.copies == np.arange(len(kept))
    rows = np.flatnonzero(chosen)
    if len(ledger.forgotten):
        rows = rows[~np.isin(content_keys(documents.high[rows], documents.ledger_low[rows]), ledger.forgotten)]
    rank = RANKS[split[rows]] + (~kept[rows]).astype(np.uint8)
    low, place = documents.ledger_low[rows], documents.ledger_place[rows]
    return lines_of(Columns(documents.high[rows], low, documents.unit[rows], place, rank))
