"""Train, validation and test: who goes where.

Of exact copies and of near-duplicates one is kept. It is dealt by a keyed hash of its group, or of its content where it
has none, so that neither row order nor shards nor other documents have a say, and so that a family counts once whatever
its size. What the ledger lists keeps its split; where that and a group or a near-duplicate disagree, the newer document
goes into quarantine. Where the ledger unites histories that disagree, what one of them held out stays out of train: of
two near-copies that it lists, the less clean one goes (train before val before test), and a document whose group was
held out elsewhere is used for neither side.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError
from codex_ml.split.config import Split
from codex_ml.split.duplicates.dedup import Crew, Families, Index, crossing, keep_first
from codex_ml.split.duplicates.shingle_sets import Rows, ShingleSets
from codex_ml.split.ledger.folder import RANKS, SPLITS, Ledger, content_keys
from codex_ml.split.ledger.line_format import Columns, Lines, lines_of

PARTS = ("train", "val", "test")
TRAIN, VAL, TEST, POOL = range(4)
DROPPED = -1
REASONS = ("", "exact duplicate", "near-duplicate", "near-duplicate of held-out", "quarantined")
KEPT, EXACT, NEAR, EVICTED, QUARANTINED = range(len(REASONS))

CLEANEST_FIRST = np.array([2, 1, 0, 3, 4], dtype=np.int8)  # of train, val, test, pool and, as -1, unknown

Bools = NDArray[np.bool_]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Candidates:
    """What dealing needs to know of the documents that licences, quality and policy let through; all arrays (n,).

    Attributes:
        high, low: uint64, the first 128 bits of the SHA-256 of the canonical content.
        place: uint64, hash of source, path and id.
        unit: uint64, `position` of the group, or of the content.
        grouped: bool, whether unit is that of a group.
        stratum: int32, number of the value of split.stratify; zeros without it.
    """

    high: Hashes
    low: Hashes
    place: Hashes
    unit: Hashes
    grouped: Bools
    stratum: NDArray[np.int32]


@dataclass
class Dealt:
    """Where the candidates went: 17 bytes each, beside the pairs.

    Attributes:
        part: (n,) int8, index in PARTS or DROPPED.
        reason: (n,) int8, why it was dropped: index in REASONS.
        kept_by: (n,) int32, the candidate that stands for a dropped one, or -1.
        copies: (n,) int32, the first of its exact copies.
        families: verified near pairs among the first copies.
        crossing: verified near pairs across splits among what was kept, before anything was evicted.
        old: (n,) int32, row of the content in the ledger, or -1.
        pinned: (n,) bool, whether the ledger knew it as kept.
        recorded: (n,) bool, whether the ledger knew it in its unit.
        moved: (n,) bool, whether a document of a cleaner split, which the ledger lists too, evicted it.
    """

    part: NDArray[np.int8]
    reason: NDArray[np.int8]
    kept_by: NDArray[np.int32]
    copies: NDArray[np.int32]
    families: Families
    crossing: Families
    old: NDArray[np.int32]
    pinned: Bools
    recorded: Bools
    moved: Bools


def position(key: bytes, salt: str) -> int:
    """A number in [0, 2^64) from a keyed hash (BLAKE2b, RFC 7693): the same for the same key, always."""
    digest = hashlib.blake2b(key, key=hashlib.sha256(salt.encode()).digest(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def deal(documents: Candidates, sets: ShingleSets, ledger: Ledger, params: Split, crew: Crew) -> Dealt:
    """Deal every candidate; row i of `sets` belongs to candidate i.

    Args:
        ledger: an empty one for the stateless mode, in which an added document can take the place of a near-duplicate,
            and the family then goes to the split of that document.
        crew: worker processes and progress of the search for near-duplicates.

    Raises:
        UserError: when val or test (or train) would be empty.
    """
    size = len(documents.high)
    old = ledger.rows_of(documents.high, _low(documents)).astype(np.int32)
    at_place, in_unit = ledger.records(old, documents.unit, _place(documents))
    copies = _first_copies(documents, np.where(at_place, 0, np.where(in_unit, 1, 2)).astype(np.int8))
    is_first = copies == np.arange(size)
    part, side, conflict, pinned = _listed(documents, np.flatnonzero(is_first), old, ledger, params)
    with_words = is_first & (sets.sizes > 0)  # a text of fewer than 5 words resembles none
    index = Index(sets, np.flatnonzero(with_words), threshold=params.near_duplicate, crew=crew)
    held_out = conflict & (side > TRAIN)
    evicted_by = _evicted_by(index, documents, with_words, side, held_out)
    # The rank comes neither from the split nor from the salted hash that deals: families would crowd into test.
    # One in quarantine comes last, so that it stands for nobody, but keeps what resembles it out when it is held out.
    tier = np.where(held_out, 1, np.where(conflict, 4, np.where(pinned, 0, np.where(old >= 0, 2, 3)))).astype(np.int8)
    rows = np.flatnonzero(with_words & (evicted_by < 0))
    rows = rows[np.lexsort((documents.low[rows], documents.high[rows], tier[rows]))]
    families = keep_first(index, rows, (side >= 0)[rows])
    keeper = np.where(evicted_by >= 0, evicted_by, families.kept_by)
    by_held_out = (keeper >= 0) & held_out[keeper]
    reason = np.full(size, KEPT, dtype=np.int8)
    reason[~is_first] = EXACT
    reason[families.kept_by >= 0] = NEAR
    reason[by_held_out | (evicted_by >= 0)] = EVICTED
    reason[conflict & (reason == KEPT)] = QUARANTINED
    left = np.flatnonzero(reason == KEPT)
    _deal_new(documents, left, part, params)
    left = left[sets.sizes[left] > 0]
    left = left[np.lexsort((documents.low[left], documents.high[left], -part[left], ~pinned[left]))]
    across = crossing(index, left, part[left])
    dealt = Dealt(
        part, reason, np.where(is_first, keeper, copies), copies, families, across, old, pinned,
        recorded=in_unit, moved=(evicted_by >= 0) & ~by_held_out,
    )  # fmt: skip
    _evict(dealt)
    part[reason != KEPT] = DROPPED
    _refuse_empty(documents, part)
    return dealt


def _low(documents: Candidates) -> NDArray[np.uint32]:
    """What the ledger keeps of `low`."""
    return (documents.low >> np.uint64(32)).astype(np.uint32)


def _place(documents: Candidates) -> NDArray[np.uint32]:
    """What the ledger keeps of `place`."""
    return (documents.place >> np.uint64(32)).astype(np.uint32)


def _first_copies(documents: Candidates, choice: NDArray[np.int8]) -> NDArray[np.int32]:
    """For each document the exact copy that stands for it: the one with the least choice, the first by place."""
    order = np.lexsort((documents.place, choice, documents.low, documents.high))
    high, low = documents.high[order], documents.low[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    first = np.empty(len(order), dtype=np.int32)
    first[order] = order[new][np.cumsum(new) - 1]
    return first


def _evicted_by(
    index: Index, documents: Candidates, with_words: Bools, side: NDArray[np.int8], held_out: Bools
) -> NDArray[np.int32]:
    """For each document that the ledger binds, a cleaner one that it binds too and that it resembles, or -1: (n,).

    There is one only where histories were united, or the threshold was lowered.
    """
    rows = np.flatnonzero(with_words & (side >= 0))
    if len(np.unique(side[rows])) < 2:
        return np.full(len(side), -1, dtype=np.int32)
    rows = rows[np.lexsort((documents.low[rows], documents.high[rows], CLEANEST_FIRST[side[rows]]))]
    return crossing(index, rows, side[rows], held_out[rows]).kept_by


def _listed(
    documents: Candidates, rows: Rows, old: NDArray[np.int32], ledger: Ledger, params: Split
) -> tuple[NDArray[np.int8], NDArray[np.int8], Bools, Bools]:
    """What the ledger says of each document, duplicates included: four arrays (n,).

    Returns:
        split of its group or content, -1 where the ledger knows neither; the split that binds it, which is that of a
        kept document and is -1 for others; whether its group and its content belong to different splits, and then only
        one that is held out has a side; whether the ledger knows it as kept.
    """
    if not len(ledger):
        nothing = np.full(len(old), -1, dtype=np.int8)
        return nothing, nothing.copy(), nothing > 0, nothing > 0
    unit = ledger.units_of(documents.unit)
    part = np.where(unit >= 0, ledger.unit_split[unit], -1).astype(np.int8)
    pinned = np.where(old >= 0, ledger.split[old], -1).astype(np.int8)
    kept = (old >= 0) & ledger.kept[old]
    _follow_pinned(documents, rows, part, pinned)
    held_out_apart = (pinned == TEST) != (part == TEST)
    if not params.folds:  # the ledger may have been written with folds
        part = np.where(part == POOL, _by_hash_without_test(documents.unit, params), part).astype(np.int8)
    pooled = (pinned == POOL) | (params.folds > 0)  # then train and val count as one side
    conflict = (pinned >= 0) & (part >= 0) & (held_out_apart | ((pinned != part) & ~pooled))
    side = np.where(conflict, pinned, part)
    if params.folds:
        side = np.where(side == TEST, TEST, TRAIN)
    binds = kept & ~(conflict & ((side == TRAIN) | (side == POOL)))
    return part, np.where(binds, side, -1).astype(np.int8), conflict, kept


def _deal_new(documents: Candidates, rows: Rows, part: NDArray[np.int8], params: Split) -> None:
    """Deal those of `rows`, the documents that are kept, whose `part` is still -1; with folds, place train and val."""
    new = rows[part[rows] < 0]
    part[new] = (_by_rank(documents, rows, part, params) if params.stratify else _by_hash(documents, params))[new]
    if params.folds:
        part[rows] = np.where(part[rows] == TEST, TEST, _fold(documents.unit[rows], params))


def _follow_pinned(documents: Candidates, rows: Rows, part: NDArray[np.int8], pinned: NDArray[np.int8]) -> None:
    """A unit that the ledger does not list, with a content that it does, goes where that content is.

    With contents of several splits it goes to the cleanest. Only the first of equal copies counts: an empty __init__.py
    must not draw every repository after it.
    """
    rows = rows[(part[rows] < 0) & (pinned[rows] >= 0)]
    rows = rows[np.lexsort((CLEANEST_FIRST[pinned[rows]], documents.unit[rows]))]
    units, first = np.unique(documents.unit[rows], return_index=True)
    if len(units):
        place = np.minimum(np.searchsorted(units, documents.unit), len(units) - 1)
        follows = (part < 0) & (units[place] == documents.unit)
        part[follows] = pinned[rows[first[place[follows]]]]


def _by_hash(documents: Candidates, params: Split) -> NDArray[np.int8]:
    share = documents.unit / 2.0**64
    return np.where(share < params.test, TEST, np.where(share < params.test + params.val, VAL, TRAIN)).astype(np.int8)


def _by_hash_without_test(unit: Hashes, params: Split) -> NDArray[np.int8]:
    share = (unit / 2.0**64 - params.test) / (1 - params.test)
    return np.where(share < params.val / (1 - params.test), VAL, TRAIN).astype(np.int8)


def _fold(unit: Hashes, params: Split) -> NDArray[np.int8]:
    """Folds come from other bits of the same hash than test, which takes the smallest values."""
    fold = (unit * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) * np.uint64(params.folds) >> np.uint64(32)
    return np.where(fold == params.fold, VAL, TRAIN).astype(np.int8)


def _by_rank(documents: Candidates, rows: Rows, part: NDArray[np.int8], params: Split) -> NDArray[np.int8]:
    """In each stratum, new units fill test and then val up to their shares, in the order of their hash.

    A unit with several values belongs to that of its document with the smallest content hash.
    """
    result = np.full(len(part), TRAIN, dtype=np.int8)
    rows = rows[np.lexsort((documents.high[rows], documents.unit[rows]))]
    units, first = np.unique(documents.unit[rows], return_index=True)
    stratum, old = documents.stratum[rows[first]], part[rows[first]]
    dealt = np.full(len(units), TRAIN, dtype=np.int8)
    for value in np.unique(stratum).tolist():
        members = np.flatnonzero(stratum == value)
        fresh = members[old[members] < 0]  # sorted by unit, that is by the hash
        begin = 0
        for target, share in ((TEST, params.test), (VAL, params.val)):
            wanted = round(share * len(members)) - int((old[members] == target).sum())
            dealt[fresh[begin : begin + max(0, wanted)]] = target
            begin += max(0, wanted)
    place = np.searchsorted(units, documents.unit)
    there = place < len(units)
    there[there] = units[place[there]] == documents.unit[there]
    result[there] = dealt[place[there]]
    return result


def _evict(dealt: Dealt) -> None:
    """Of a near pair across splits the newer document goes; of two of the ledger the one on the train side."""
    gone = np.flatnonzero(dealt.crossing.kept_by >= 0)
    keepers = dealt.crossing.kept_by[gone]
    dealt.kept_by[gone] = keepers
    dealt.reason[gone] = np.where(dealt.pinned[keepers] & ~dealt.pinned[gone], QUARANTINED, EVICTED)


def _refuse_empty(documents: Candidates, part: NDArray[np.int8]) -> None:
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


def new_lines(documents: Candidates, dealt: Dealt, ledger: Ledger, params: Split) -> Lines:
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
        rows = rows[~np.isin(content_keys(documents.high[rows], _low(documents)[rows]), ledger.forgotten)]
    rank = RANKS[split[rows]] + (~kept[rows]).astype(np.uint8)
    low, place = _low(documents)[rows], _place(documents)[rows]
    return lines_of(Columns(documents.high[rows], low, documents.unit[rows], place, rank))


assert SPLITS[:3] == PARTS
