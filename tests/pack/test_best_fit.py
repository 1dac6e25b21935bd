"""Best fit: nothing is lost, no row overflows, and rows are fuller than documents in their order would fill them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.pack.best_fit import best_fit


@pytest.mark.parametrize(
    ("lengths", "capacity", "rows"),
    [
        ([], 8, []),
        ([8], 8, [0]),
        ([3, 8, 5], 8, [0, 1, 0]),
        ([4, 4, 4], 8, [0, 0, 1]),
        ([1, 6, 2, 7], 8, [0, 1, 1, 0]),
        ([3, 2, 5, 6], 8, [0, 1, 0, 1]),  # 6 + 2 and 5 + 3; in their order 3 + 2 would leave 5 and 6 alone
        ([2, 2, 2, 5, 5], 9, [0, 0, 1, 1, 0]),  # the row opened last comes first
    ],
)
def test_by_hand(lengths, capacity, rows):
    assert best_fit(np.array(lengths, dtype=np.int64), capacity).tolist() == rows


def slow_best_fit(lengths, capacity):
    """The definition: the longest first, into the row with the least room that is enough, the last opened of equals."""
    room, rows = [], {}
    recency = {}
    for clock, piece in enumerate(sorted(range(len(lengths)), key=lambda p: -lengths[p])):
        fitting = [row for row in range(len(room)) if room[row] >= lengths[piece]]
        row = min(fitting, key=lambda r: (room[r], -recency[r]), default=len(room))
        if row == len(room):
            room.append(capacity)
        room[row] -= lengths[piece]
        recency[row], rows[piece] = clock, row
    order = list(dict.fromkeys(rows[piece] for piece in range(len(lengths))))
    return [order.index(rows[piece]) for piece in range(len(lengths))]


@given(st.lists(st.integers(1, 20), max_size=60), st.integers(20, 33))
@settings(max_examples=300, deadline=None)
def test_it_is_best_fit_decreasing(lengths, capacity):
    found = best_fit(np.array(lengths, dtype=np.int64), capacity)
    assert found.tolist() == slow_best_fit(lengths, capacity)
    if lengths:
        assert np.bincount(found, weights=lengths).max() <= capacity
        assert sorted(set(found.tolist())) == list(range(found.max() + 1))


def first_come(lengths, capacity):
    """Rows filled in the order of the documents: a new one when the next does not fit."""
    rows, room = 0, 0
    for length in lengths:
        if length > room:
            rows, room = rows + 1, capacity
        room -= length
    return rows


def test_skewed_lengths_leave_a_percent_of_filler_where_their_order_leaves_a_fifth():
    dice = np.random.Generator(np.random.PCG64(1))
    lengths = np.clip(dice.lognormal(4.0, 1.0, 20_000).astype(np.int64), 1, 256)
    needed = lengths.sum() / 256
    assert needed / (best_fit(lengths, 256).max() + 1) > 0.99
    assert needed / first_come(lengths.tolist(), 256) < 0.82
