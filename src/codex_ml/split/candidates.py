"""The input and the result of `deal`: keys of the documents, and the verdict on each.

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
    """Keys of the n documents that passed screening; all arrays (n,).

    Attributes:
        high, low: uint64, the first 128 bits of the SHA-256 of the canonical content.
        place: uint64, hash of source, path and id.
        unit: uint64, `position` of the group; of the content if the document has no group.
        grouped: bool, whether the document has a group.
        stratum: int32, number of the value of split.stratify; zeros if it is not set.
    """

    high: Hashes
    low: Hashes
    place: Hashes
    unit: Hashes
    grouped: Bools
    stratum: NDArray[np.int32]

    @property
    def ledger_low(self) -> NDArray[np.uint32]:
        """(n,) uint32: the upper half of `low`, which the ledger stores."""
        return (self.low >> np.uint64(32)).astype(np.uint32)

    @property
    def ledger_place(self) -> NDArray[np.uint32]:
        """(n,) uint32: the upper half of `place`, which the ledger stores."""
        return (self.place >> np.uint64(32)).astype(np.uint32)


@dataclass(frozen=True)
class Dealt:
    """The verdicts on the candidates: 17 bytes per candidate, and the verified pairs.

    For example, of five documents the second is an exact copy of the first, and the third is a near-duplicate of the
    first. The fourth is in test. The fifth was dealt to train, and is a near-duplicate of the fourth:

        part    [TRAIN, DROPPED, DROPPED, TEST, DROPPED]
        reason  [KEPT, EXACT, NEAR, KEPT, EVICTED]
        kept_by [-1, 0, 0, -1, 3]
        copies  [0, 0, 2, 3, 4]

    Attributes:
        part: (n,) int8, index in PARTS, or DROPPED.
        reason: (n,) int8, index in REASONS.
        kept_by: (n,) int32, the candidate that represents a dropped one, or -1.
        copies: (n,) int32, the representative of its exact copies.
        families: verified near pairs among these representatives.
        crossing: verified near pairs across splits among the kept documents, before any of them was evicted.
        old: (n,) int32, row of the content in the ledger, or -1.
        pinned: (n,) bool, whether the ledger lists it as kept.
        recorded: (n,) bool, whether the ledger lists it in its unit.
        moved: (n,) bool, whether a listed document of a cleaner split evicted it.
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
