"""Best fit loses no piece, overflows no row, and fills rows better than documents in their order would."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.pack.best_fit import best_fit, fit_spread


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


@pytest.mark.parametrize(
    ("lengths", "spread", "rows"),
    [
        ([], [], []),
        ([6, 2, 3, 2], [1, 3], [0, 0, 1, 1]),  # best fit alone: 6 + 2 and 3 + 2, or both twos in one row
        ([2, 2, 6, 6], [0, 1], [0, 1, 0, 1]),
        ([2, 2, 2, 6], [0, 1, 2], [0, 1, 1, 0]),  # one host: the others share a row
        ([2, 2], [0, 1], [0, 0]),
        ([7, 2, 8], [1], [0, 1, 2]),  # no piece has room for it
        ([4, 4, 4, 4, 2, 2], [4, 5], [0, 1, 2, 1, 0, 2]),  # tied to the first and the third
    ],
)
def test_spread_pieces_travel_with_others(lengths, spread, rows):
    marks = np.isin(np.arange(len(lengths)), spread)
    found = fit_spread(np.array(lengths, dtype=np.int64), marks, 8)
    assert found.tolist() == rows


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=60), st.integers(20, 33))
@settings(max_examples=300, deadline=None)
def test_spread_pieces_overflow_no_row(pieces, capacity):
    lengths = np.array([3 if spread else length for length, spread in pieces], dtype=np.int64)
    marks = np.array([spread for _, spread in pieces], dtype=bool)
    found = fit_spread(lengths, marks, capacity)
    if len(lengths):
        assert np.bincount(found, weights=lengths).max() <= capacity
        assert list(dict.fromkeys(found.tolist())) == list(range(found.max() + 1))
    if not marks.any():
        assert found.tolist() == best_fit(lengths, capacity).tolist()


def test_copies_of_a_canary_are_in_rows_of_their_own():
    """Lengths as in the sample corpus: 1,300 remainders of documents and 224 canaries of 19 tokens."""
    random = np.random.Generator(np.random.PCG64(1))
    lengths = np.concatenate([random.integers(1, 257, 1300), np.full(224, 19)])
    marks = np.arange(len(lengths)) >= 1300
    order = random.permutation(len(lengths))
    found = fit_spread(lengths[order], marks[order], 256)
    alone = best_fit(lengths[order], 256)
    assert np.bincount(alone[marks[order]]).max() >= 8
    assert np.bincount(found[marks[order]]).max() <= 4
    assert len(set(found[marks[order]].tolist())) > 150
    assert (found.max() + 1) / (alone.max() + 1) < 1.01  # rows


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


def test_the_length_of_a_row_costs_nothing() -> None:
    """A list per token of a row would not fit into any memory."""
    assert best_fit(np.array([3, 2, 2**40 - 1, 6]), 2**40).tolist() == [0, 0, 1, 0]
