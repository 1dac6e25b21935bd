"""Train, validation and test: who goes where.

Of exact copies and of near-duplicates one is kept. It is dealt by a keyed hash of its group, or of its content where it
has none, so that neither row order nor shards nor other documents have a say, and so that a family counts once whatever
its size. What the ledger lists keeps its split; where that and a group or a near-duplicate disagree, the newer document
goes into quarantine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codex_ml.config import Split
from codex_ml.data.dedup import Crew, Families, Index, crossing, keep_first
from codex_ml.data.ledger import SPLITS, Entry, Ledger
from codex_ml.data.shingle_sets import Rows, ShingleSets
from codex_ml.errors import UserError

PARTS = ("train", "val", "test")
TRAIN, VAL, TEST, POOL = range(4)
DROPPED = -1
EXACT, NEAR, EVICTED, QUARANTINED = (
    "exact duplicate",
    "near-duplicate",
    "near-duplicate of held-out",
    "quarantined",
)
DEALT_REASONS = (EXACT, NEAR, EVICTED, QUARANTINED)

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
    """Where the candidates went.

    Attributes:
        part: (n,) int8, index in PARTS or DROPPED.
        reason: (n,) object, "" or why it was dropped.
        kept_by: (n,) int64, the candidate that stands for a dropped one, or -1.
        copies: (n,) int64, the first of its exact copies.
        families: verified near pairs among the first copies.
        crossing: verified near pairs across splits among what was kept, before anything was evicted.
        pinned: (n,) bool, whether the ledger knew it as kept.
    """

    part: NDArray[np.int8]
    reason: NDArray[np.object_]
    kept_by: Rows
    copies: Rows
    families: Families
    crossing: Families
    pinned: Bools
    known: Bools


def position(key: bytes, salt: str) -> int:
    """A number in [0, 2^64) from a keyed hash (BLAKE2b, RFC 7693): the same for the same key, always."""
    digest = hashlib.blake2b(key, key=hashlib.sha256(salt.encode()).digest(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def deal(documents: Candidates, sets: ShingleSets, ledger: Ledger | None, params: Split, crew: Crew) -> Dealt:
    """Deal every candidate; row i of `sets` belongs to candidate i.

    Args:
        ledger: None for the stateless mode, in which an added document can take the place of a near-duplicate, and the
            family then goes to the split of that document.
        crew: worker processes and progress of the search for near-duplicates.

    Raises:
        UserError: when val or test (or train) would be empty.
    """
    size = len(documents.high)
    content, old = _numbered(documents, ledger)
    copies = _first_copies(documents, content, ledger, old)
    rows = np.flatnonzero(copies == np.arange(size))
    known = old >= 0
    pinned = known & ledger.kept[old] if ledger is not None and len(ledger) else np.zeros(size, dtype=bool)
    part, conflict = _listed(documents, rows, old, ledger, params)
    # The rank comes neither from the split nor from the salted hash that deals: families would crowd into test.
    tier = np.where(conflict, 3, np.where(pinned, 0, np.where(known, 1, 2)))  # a quarantined one stands for nobody
    rows = rows[np.lexsort((documents.low[rows], documents.high[rows], tier[rows]))]
    rows = rows[sets.sizes[rows] > 0]  # a text of fewer than 5 words resembles none
    index = Index(sets, rows, threshold=params.near_duplicate, crew=crew)
    families = keep_first(index, rows, (pinned & ~conflict)[rows])
    reason = np.full(size, "", dtype=object)
    kept_by = np.where(copies == np.arange(size), families.kept_by, copies)
    reason[copies != np.arange(size)] = EXACT
    reason[(families.kept_by >= 0) & (reason == "")] = NEAR
    reason[conflict & (reason == "")] = QUARANTINED
    left = np.flatnonzero(reason == "")
    _deal_new(documents, left, part, params)
    left = left[sets.sizes[left] > 0]
    left = left[np.lexsort((-part[left], ~pinned[left]))]
    across = crossing(index, left, part[left])
    dealt = Dealt(part, reason, kept_by, copies, families, across, pinned, known)
    _evict(dealt)
    part[reason != ""] = DROPPED
    _refuse_empty(documents, part)
    return dealt


def _numbered(documents: Candidates, ledger: Ledger | None) -> tuple[Rows, Rows]:
    """(a number for each content, its row in the ledger or -1), both (n,)."""
    entries = len(ledger) if ledger is not None else 0
    high = np.concatenate([ledger.high, documents.high]) if ledger is not None else documents.high
    low = np.concatenate([ledger.low, documents.low]) if ledger is not None else documents.low
    order = np.lexsort((low, high))  # stable: a ledger row stands in front of its equals
    new = np.ones(len(order), dtype=bool)
    new[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.cumsum(new) - 1
    first = order[new][number[entries:]]  # the first of its equals, as an index into ledger + documents
    return number[entries:], np.where(first < entries, first, -1)


def _first_copies(documents: Candidates, content: Rows, ledger: Ledger | None, old: Rows) -> Rows:
    """For each document the exact copy that stands for it: the recorded one, one of its unit, the first by place."""
    choice = np.full(len(content), 2, dtype=np.int8)
    if ledger is not None and len(ledger):
        choice[(old >= 0) & (ledger.unit[old] == documents.unit)] = 1
        choice[(old >= 0) & (ledger.place[old] == documents.place)] = 0
    order = np.lexsort((documents.place, choice, content))
    new = np.ones(len(order), dtype=bool)
    new[1:] = content[order][1:] != content[order][:-1]
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[new][np.cumsum(new) - 1]
    return first


def _listed(
    documents: Candidates, rows: Rows, old: Rows, ledger: Ledger | None, params: Split
) -> tuple[NDArray[np.int8], Bools]:
    """What the ledger says of each document, duplicates included: two arrays (n,).

    Returns:
        split of its group or content, -1 where the ledger knows neither; whether its group and its content belong to
        different splits.
    """
    part = np.full(len(old), -1, dtype=np.int8)
    if ledger is None or not len(ledger):
        return part, np.zeros(len(old), dtype=bool)
    # The line of a duplicate gives the split of its family, not of its group; "pool" says less than train or val.
    order = np.lexsort((ledger.split == POOL, ~ledger.kept, ledger.unit))
    place = np.minimum(np.searchsorted(ledger.unit[order], documents.unit), len(order) - 1)
    found = order[place]
    part = np.where(ledger.unit[found] == documents.unit, ledger.split[found], part).astype(np.int8)
    pinned = np.full(len(old), -1, dtype=np.int8)
    pinned[old >= 0] = ledger.split[old[old >= 0]]
    _follow_pinned(documents, rows, part, pinned)
    held_out_apart = (pinned == TEST) != (part == TEST)
    if not params.folds:  # the ledger may have been written with folds
        part = np.where(part == POOL, _by_hash_without_test(documents.unit, params), part).astype(np.int8)
    pooled = (pinned == POOL) | (params.folds > 0)  # then train and val count as one side
    return part, (pinned >= 0) & (part >= 0) & (held_out_apart | ((pinned != part) & ~pooled))


def _deal_new(documents: Candidates, rows: Rows, part: NDArray[np.int8], params: Split) -> None:
    """Deal those of `rows`, the documents that are kept, whose `part` is still -1; with folds, place train and val."""
    new = rows[part[rows] < 0]
    part[new] = (_by_rank(documents, rows, part, params) if params.stratify else _by_hash(documents, params))[new]
    if params.folds:
        part[rows] = np.where(part[rows] == TEST, TEST, _fold(documents.unit[rows], params))


def _follow_pinned(documents: Candidates, rows: Rows, part: NDArray[np.int8], pinned: NDArray[np.int8]) -> None:
    """A unit that the ledger does not list, with a content that it does, goes where that content is.

    Only the first of equal copies counts: an empty __init__.py must not draw every repository after it.
    """
    rows = rows[(part[rows] < 0) & (pinned[rows] >= 0)]
    rows = rows[np.lexsort((documents.high[rows], documents.unit[rows]))]
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


def new_entries(documents: Candidates, dealt: Dealt, params: Split) -> Iterator[Entry]:
    """Lines for the ledger: contents that it does not list yet, or lists as duplicates and that are kept now."""
    first = dealt.copies == np.arange(len(dealt.copies))
    kept = dealt.part >= 0
    duplicate = (dealt.reason == NEAR) & (dealt.kept_by >= 0)
    rows = np.flatnonzero(first & ((kept & ~dealt.pinned) | (duplicate & ~dealt.known)))
    rows = rows[np.lexsort((documents.low[rows], documents.high[rows]))]
    for row in rows:
        split = int(dealt.part[row if kept[row] else dealt.kept_by[row]])
        if split < 0:  # its representative was evicted
            continue
        split = POOL if params.folds and split != TEST else split
        high, low, place, unit = (
            int(values[row]) for values in (documents.high, documents.low, documents.place, documents.unit)
        )
        yield Entry(high, low, place, unit, split, bool(kept[row]))


assert SPLITS[:3] == PARTS
