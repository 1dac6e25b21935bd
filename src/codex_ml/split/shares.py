"""The shares of train, val and test: the split of a unit that the ledger does not list.

A unit is a group, or a document without a group. `position` maps it to a number in [0, 2^64) that depends on nothing
else. The smallest numbers are test, the next ones val. So with test = 0.1 and val = 0.1, a unit at 0.05 * 2^64 is in
test, one at 0.15 * 2^64 in val, and one at 0.7 * 2^64 in train, whatever other documents there are.
Used by: split.deal, split.screen.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.sorted_arrays import find
from codex_ml.split.candidates import TEST, TRAIN, VAL, DocumentKeys, Hashes
from codex_ml.split.config import Split
from codex_ml.split.duplicates.shingle_sets import RowNumbers


def position(key: bytes, salt: str) -> int:
    """A number in [0, 2^64) from a keyed hash (BLAKE2b, RFC 7693). The hash is frozen: it never changes."""
    digest = hashlib.blake2b(key, key=hashlib.sha256(salt.encode()).digest(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def deal_new(documents: DocumentKeys, rows: RowNumbers, part: NDArray[np.int8], params: Split) -> None:
    """Deal the rows whose `part` is -1, in place. With folds, also deal all rows outside test into train and val.

    Args:
        rows: the documents that are kept.
        part: (n,) int8, split of each document, or -1.
    """
    unlisted = rows[part[rows] < 0]
    dealt = _by_rank(documents, rows, part, params) if params.stratify else _by_hash(documents, params)
    part[unlisted] = dealt[unlisted]
    if params.folds:
        part[rows] = np.where(part[rows] == TEST, TEST, _fold(documents.unit[rows], params))


def _by_hash(documents: DocumentKeys, params: Split) -> NDArray[np.int8]:
    share = documents.unit / 2.0**64
    return np.where(share < params.test, TEST, np.where(share < params.test + params.val, VAL, TRAIN)).astype(np.int8)


def by_hash_without_test(unit: Hashes, params: Split) -> NDArray[np.int8]:
    """(n,) int8: TRAIN or VAL for units that are not in test, in the proportion of the shares of train and val."""
    share = (unit / 2.0**64 - params.test) / (1 - params.test)
    return np.where(share < params.val / (1 - params.test), VAL, TRAIN).astype(np.int8)


def _fold(unit: Hashes, params: Split) -> NDArray[np.int8]:
    """Folds use other bits of the hash than test, which takes the smallest values."""
    fold = (unit * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) * np.uint64(params.folds) >> np.uint64(32)
    return np.where(fold == params.fold, VAL, TRAIN).astype(np.int8)


def _by_rank(documents: DocumentKeys, rows: RowNumbers, part: NDArray[np.int8], params: Split) -> NDArray[np.int8]:
    """In each stratum, new units fill test and then val up to their shares, in the order of their hashes.

    A unit whose documents have several values belongs to the stratum of the document with the smallest content hash.
    """
    result = np.full(len(part), TRAIN, dtype=np.int8)
    rows = rows[np.lexsort((documents.high[rows], documents.unit[rows]))]
    units, first = np.unique(documents.unit[rows], return_index=True)
    stratum, old = documents.stratum[rows[first]], part[rows[first]]
    dealt = np.full(len(units), TRAIN, dtype=np.int8)
    for value in np.unique(stratum).tolist():
        members = np.flatnonzero(stratum == value)
        fresh = members[old[members] < 0]  # sorted by unit, which is the hash
        begin = 0
        for target, share in ((TEST, params.test), (VAL, params.val)):
            lacking = max(0, round(share * len(members)) - int((old[members] == target).sum()))
            dealt[fresh[begin : begin + lacking]] = target
            begin += lacking
    index = find(units, documents.unit)
    result[index >= 0] = dealt[index[index >= 0]]
    return result
