"""Sums of the number columns of a table over its independent units, in memory that does not grow with their number.

Intervals draw units. With more than `POOLS` of them, units are put together by their hash into that many pools, which
are drawn instead. Pools are independent of each other as units are, and all units of a document's family are in one
pool, so the interval covers what it says. 1,000 resamples of 10,000 pools take seconds, and of a million units minutes.
Used by: the tasks of evaluate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from codex_ml.evaluate.item_tables import UNIT, number_batches, read_columns

POOLS = 10_000


@dataclass(frozen=True)
class Units:
    """The units of a table.

    Attributes:
        pool: (rows,) int32, where the numbers of each row are added.
        pools: number of pools; `count` where each unit has its own.
        count: number of units.
    """

    pool: NDArray[np.int32]
    pools: int
    count: int


def text_hashes(texts: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """64-bit hashes of texts: (n,). Two of a million different texts share one with probability 1/37 million."""
    keys = (hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest() for text in texts.to_pylist())
    return np.frombuffer(b"".join(keys), dtype="<u8")


def read_pools(table: Path, limit: int = POOLS) -> Units:
    """Read the units of a table; 12 bytes per row."""
    hashes = read_columns(table, [UNIT], lambda batch: text_hashes(batch.column(UNIT)))
    different = np.unique(hashes)
    if len(different) <= limit:
        return Units(np.searchsorted(different, hashes).astype(np.int32), len(different), len(different))
    filled, pool = np.unique(hashes % np.uint64(limit), return_inverse=True)  # an empty pool is no unit
    return Units(pool.astype(np.int32), len(filled), len(different))


def pooled_sums(table: Path, columns: Sequence[str], units: Units) -> NDArray[np.float64]:
    """Add the rows of each pool, batch by batch: (pools, columns) float64."""
    sums = np.zeros((units.pools, len(columns)))
    start = 0
    for numbers in number_batches(table, columns):
        pool = units.pool[start : start + len(numbers)]
        for column in range(len(columns)):
            sums[:, column] += np.bincount(pool, numbers[:, column], units.pools)
        start += len(numbers)
    return sums
