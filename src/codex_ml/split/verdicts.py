"""The documents that are dealt, and where each of them went: what `deal` takes and what it returns.

Used by: split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codex_ml.split.duplicates.dedup import Families
from codex_ml.split.ledger.answers import SPLITS

PARTS = SPLITS[:3]  # train, val and test
TRAIN, VAL, TEST, POOL = range(4)
DROPPED = -1
REASONS = ("", "exact duplicate", "near-duplicate", "near-duplicate of held-out", "quarantined")
KEPT, EXACT, NEAR, EVICTED, QUARANTINED = range(len(REASONS))

Bools = NDArray[np.bool_]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class DocumentKeys:
    """What dealing needs to know of the n documents that passed licences, quality and policy; all arrays (n,).

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

    @property
    def ledger_low(self) -> NDArray[np.uint32]:
        """What the ledger keeps of `low`."""
        return (self.low >> np.uint64(32)).astype(np.uint32)

    @property
    def ledger_place(self) -> NDArray[np.uint32]:
        """What the ledger keeps of `place`."""
        return (self.place >> np.uint64(32)).astype(np.uint32)


@dataclass(frozen=True)
class Dealt:
    """Where the candidates went: 17 bytes for each, and the pairs.

    For example, of five documents the second is an exact copy of the first and the third a near-duplicate of it; the
    fourth is in test, and the fifth, which `salt` dealt to train, resembles the fourth:

        part    [TRAIN, DROPPED, DROPPED, TEST, DROPPED]
        reason  [KEPT, EXACT, NEAR, KEPT, EVICTED]
        kept_by [-1, 0, 0, -1, 3]
        copies  [0, 0, 2, 3, 4]

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
