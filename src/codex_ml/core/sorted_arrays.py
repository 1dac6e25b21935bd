"""Runs and look-ups in sorted arrays of numpy, and blocks of rows that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def begins_of(*columns: NDArray[np.generic]) -> NDArray[np.bool_]:
    """(n,) True where a run of equal rows begins: begins_of([5, 5, 7]) is [True, False, True].

    Args:
        columns: one or more arrays (n,), sorted together; a row equals the one before it if it does in each column.
    """
    result = np.ones(len(columns[0]), dtype=bool)
    np.not_equal(columns[0][1:], columns[0][:-1], out=result[1:])
    for column in columns[1:]:
        result[1:] |= column[1:] != column[:-1]
    return result


def find(values: NDArray[np.generic], wanted: NDArray[np.generic]) -> NDArray[np.int64]:
    """The first index of each of `wanted` in the sorted `values`, or -1: find([3, 5, 5], [5, 4]) is [1, -1]."""
    index = np.searchsorted(values, wanted)
    present = index < len(values)
    present[present] = values[index[present]] == wanted[present]
    return np.where(present, index, -1)


def ranges(starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Concatenate ranges of integers: ranges([5, 9], [2, 1]) is [5, 6, 9]."""
    lengths = lengths.astype(np.int64)
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)


def blocks_within(totals: NDArray[np.integer], most: int) -> Iterator[slice]:
    """Cut rows into blocks whose sizes add up to at most `most`; a larger row is a block of its own.

    With totals [2, 4, 9, 10], that is with sizes [2, 2, 5, 1], blocks of at most 4 are rows 0 to 1, row 2 and row 3.

    Args:
        totals: (n,) sums of the sizes up to and including each row.
    """
    start = 0
    while start < len(totals):
        before = int(totals[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(totals, before + most, side="right")))
        yield slice(start, stop)
        start = stop
