"""Best fit loses no piece, overflows no row, and fills rows better than documents in their order would."""

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
def test_rows_worked_out_by_hand(lengths, capacity, rows):
    assert best_fit(np.array(lengths, dtype=np.int64), capacity).tolist() == rows


def slow_best_fit(lengths, capacity):
    """The definition: longest piece first, into the row with the least room that is enough; among equals, the newest."""
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
def test_placement_equals_best_fit_decreasing(lengths, capacity):
    found = best_fit(np.array(lengths, dtype=np.int64), capacity)
    assert found.tolist() == slow_best_fit(lengths, capacity)
    if lengths:
        assert np.bincount(found, weights=lengths).max() <= capacity
        assert sorted(set(found.tolist())) == list(range(found.max() + 1))


def first_come(lengths, capacity):
    """Rows filled in the order of the documents. A new row begins when the next piece does not fit."""
    rows, room = 0, 0
    for length in lengths:
        if length > room:
            rows, room = rows + 1, capacity
        room -= length
    return rows


def test_skewed_lengths_leave_one_percent_of_padding_instead_of_a_fifth():
    dice = np.random.Generator(np.random.PCG64(1))
    lengths = np.clip(dice.lognormal(4.0, 1.0, 20_000).astype(np.int64), 1, 256)
    needed = lengths.sum() / 256
    assert needed / (best_fit(lengths, 256).max() + 1) > 0.99
    assert needed / first_come(lengths.tolist(), 256) < 0.82
