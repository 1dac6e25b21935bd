"""Train, validation and test: who goes where.

Of exact copies and of near-duplicates one is kept. It is dealt by a keyed hash of its group, or of its content where it
has none, so that neither row order nor shards nor other documents have a say, and so that a family counts once whatever
its size. What the ledger lists keeps its split; where that and a group or a near-duplicate disagree, the newer document
goes into quarantine. Where the ledger unites histories that disagree, what one of them held out stays out of train: of
two near-copies that it lists, the less clean one goes (train before val before test), and a document whose group was
held out elsewhere is used for neither side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError
from codex_ml.core.sorted_arrays import begins_of, find
from codex_ml.split.config import Split
from codex_ml.split.crew import Crew
from codex_ml.split.duplicates.dedup import ShingleIndex, crossing, keep_first
from codex_ml.split.duplicates.shingle_sets import RowNumbers, ShingleSets
from codex_ml.split.ledger.answers import RANKS, Ledger
from codex_ml.split.ledger.line_format import Columns, Lines, content_keys, lines_of
from codex_ml.split.shares import by_hash_without_test, deal_new
from codex_ml.split.verdicts import (
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

CLEANEST_FIRST = np.array([2, 1, 0, 3, 4], dtype=np.int8)  # of train, val, test, pool and, as -1, unknown


@dataclass(frozen=True)
class _Listing:
    """What the ledger says of each document, duplicates included; all arrays (n,).

    Attributes:
        part: int8, split of its group or content, -1 where the ledger knows neither.
        side: int8, the split that binds it, which is that of a kept document; -1 for others.
        conflict: whether its group and its content belong to different splits; then only a held-out one has a side.
        pinned: whether the ledger knows it as kept.
    """

    part: NDArray[np.int8]
    side: NDArray[np.int8]
    conflict: Bools
    pinned: Bools

    @property
    def held_out(self) -> Bools:
        return self.conflict & (self.side > TRAIN)


def deal(documents: DocumentKeys, sets: ShingleSets, ledger: Ledger, params: Split, crew: Crew) -> Dealt:
    """Deal every candidate; row i of `sets` belongs to candidate i.

    Args:
        ledger: an empty one for the stateless mode, in which an added document can take the place of a near-duplicate,
            and the family then goes to the split of that document.
        crew: worker processes and progress of the search for near-duplicates.

    Raises:
        UserError: when val or test (or train) would be empty.
    """
    size = len(documents.high)
    # What the ledger lists, and one of each family of exact copies.
    old = ledger.rows_of(documents.high, documents.ledger_low).astype(np.int32)
    at_place, in_unit = ledger.records(old, documents.unit, documents.ledger_place)
    copies = _first_copies(documents, np.where(at_place, 0, np.where(in_unit, 1, 2)).astype(np.int8))
    is_first = copies == np.arange(size)
    listing = _listing(documents, np.flatnonzero(is_first), old, ledger, params)
    held_out, pinned = listing.held_out, listing.pinned
    # One of each family of near-duplicates; what binds in a cleaner split evicts.
    with_words = is_first & (sets.sizes > 0)  # a text of fewer than 5 words resembles none
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
    # Deal the rest. Of a near pair across splits the newer document goes; of two of the ledger, the one in train.
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
    """For each document the exact copy that stands for it: the one with the least choice, the first by place."""
    order = np.lexsort((documents.place, choice, documents.low, documents.high))
    begins = begins_of(documents.high[order], documents.low[order])
    first = np.empty(len(order), dtype=np.int32)
    first[order] = order[begins][np.cumsum(begins) - 1]
    return first


def _tier(listing: _Listing, old: NDArray[np.int32]) -> NDArray[np.int8]:
    """(n,) which of several near-duplicates stands for them: the least.

    It comes neither from the split nor from the salted hash that deals: families would crowd into test. One in
    quarantine comes last, so that it stands for none, but keeps out what resembles it if it is held out.
    """
    tier = np.where(old >= 0, 2, 3)
    tier = np.where(listing.pinned, 0, tier)
    return np.where(listing.held_out, 1, np.where(listing.conflict, 4, tier)).astype(np.int8)


def _evicted_by(
    index: ShingleIndex, documents: DocumentKeys, with_words: Bools, listing: _Listing
) -> NDArray[np.int32]:
    """For each document that the ledger binds, a cleaner one that it binds too and that it resembles, or -1: (n,).

    There is one only where histories were united, or the threshold was lowered.
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
        rows: the first of each family of exact copies.
        old: (n,) row of each content in the ledger, or -1.
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
    pooled = (in_content == POOL) | (params.folds > 0)  # then train and val count as one side
    conflict = (in_content >= 0) & (part >= 0) & (held_out_apart | ((in_content != part) & ~pooled))
    side = np.where(conflict, in_content, part)
    if params.folds:
        side = np.where(side == TEST, TEST, TRAIN)
    binds = pinned & ~(conflict & ((side == TRAIN) | (side == POOL)))
    return _Listing(part, np.where(binds, side, -1).astype(np.int8), conflict, pinned)


def _follow_listed_content(
    documents: DocumentKeys, rows: RowNumbers, part: NDArray[np.int8], in_content: NDArray[np.int8]
) -> None:
    """A unit that the ledger does not list, with a content that it does, goes where that content is.

    With contents of several splits it goes to the cleanest. Only the first of equal copies counts: an empty __init__.py
    must not draw every repository after it.
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
                "documents, and a group is never cut; map a finer group field, set group: none, or add other sources"
            )
        raise UserError(
            f"the {name} split is empty ({len(kept)} of {len(part)} documents passed duplicates); "
            "add documents, raise split.val and split.test, or change split.salt or split.licences"
        )


def new_lines(documents: DocumentKeys, dealt: Dealt, ledger: Ledger, params: Split) -> Lines:
    """Lines that this split adds to the ledger, distinct and sorted; the ledger has none of them.

    They are those of contents that it does not know yet, or knows as duplicates and that are kept now; of known
    contents in another unit; and of known contents that a document of a cleaner split evicts.
    """
    before = np.where(dealt.old >= 0, ledger.split[dealt.old] if len(ledger) else -1, -1)
    kept = dealt.part >= 0
    split = np.where(kept, dealt.part, dealt.part[dealt.kept_by])
    if params.folds:
        split = np.where(split == TEST, TEST, POOL)
    split = np.where(kept & (before >= 0), before, split).astype(np.int8)  # a listed one stays what it is
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
