"""Best-fit decreasing: place pieces of documents into rows with little padding.

Ding et al. 2024, "Fewer Truncations Improve Language Modeling", arXiv:2404.10830, section 3: a document longer than a
row is cut into full rows and a remainder. Every piece shorter than a row goes, longest first, into the open row with
the least room that is enough. The open rows are sorted by their room, so time and memory follow the pieces and
not the length of a row.
Used by: pack.row_writer.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray


def best_fit(lengths: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """Place pieces into rows.

    Args:
        lengths: (n,) int64, each from 1 to `capacity`.
        capacity: tokens per row.

    Returns:
        (n,) int64: the row number of each piece. Rows are numbered in the order of their first pieces.

    Example:
        best_fit([3, 2, 5, 6], 8) is [0, 1, 0, 1]: 6 + 2 fill one row, 5 + 3 the other.
    """
    rows_with_room: dict[int, list[int]] = {}
    open_rooms: list[int] = []  # ascending: the amounts of room that some rows have
    count = 0
    placed = [0] * len(lengths)
    sizes = lengths.tolist()
    for piece in np.argsort(-lengths, kind="stable").tolist():
        size = sizes[piece]
        place = bisect_left(open_rooms, size)
        if place < len(open_rooms):
            room = open_rooms[place]
            row = rows_with_room[room].pop()
            if not rows_with_room[room]:
                del open_rooms[place], rows_with_room[room]
        else:
            room, row, count = capacity, count, count + 1
        if rest := room - size:
            if rest not in rows_with_room:
                insort(open_rooms, rest)
            rows_with_room.setdefault(rest, []).append(row)
        placed[piece] = row
    return _numbered_by_first(np.array(placed, dtype=np.int64), count)


def fit_spread(lengths: NDArray[np.int64], spread: NDArray[np.bool_], capacity: int) -> NDArray[np.int64]:
    """Place pieces into rows as `best_fit`, but spread some of them over the rows of the others.

    Canaries have equal lengths, so best fit alone puts a dozen of them into one row: the model would see them in one
    step, or none of them. Each of them is tied to another piece, and both are placed as one. Those for which no piece
    is left are placed alone.

    Args:
        spread: (n,) bool, the pieces that are spread.

    Example:
        fit_spread([6, 2, 3, 2], [False, True, False, True], 8) is [0, 0, 1, 1].
    """
    guests = np.flatnonzero(spread)
    hosts = np.flatnonzero(~spread & (lengths + lengths[guests].max(initial=0) <= capacity))
    guests = guests[: len(hosts)]
    chosen = hosts[np.arange(len(guests)) * len(hosts) // max(len(guests), 1)]
    sizes, units = lengths.copy(), np.ones(len(lengths), dtype=bool)
    sizes[chosen] += lengths[guests]
    units[guests] = False
    rows = np.zeros(len(lengths), dtype=np.int64)
    rows[units] = best_fit(sizes[units], capacity)
    rows[guests] = rows[chosen]
    return _numbered_by_first(rows, int(rows.max(initial=-1)) + 1)


def _numbered_by_first(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    first = np.full(count, len(rows), dtype=np.int64)
    np.minimum.at(first, rows, np.arange(len(rows)))
    numbers = np.empty(count, dtype=np.int64)
    numbers[np.argsort(first)] = np.arange(count)
    return numbers[rows]
