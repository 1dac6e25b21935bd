"""Runs, look-ups, ranges and blocks of sorted arrays are what their slow definitions say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.core.sorted_arrays import begins_of, blocks_within, find, ranges
from codex_ml.ingest.readers.table_rows import RowSpan, file_shares

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30).map(sorted)


@given(PAIRS)
def test_a_run_begins_where_a_row_differs_from_the_one_before_it(rows):
    table = np.array(rows, dtype=np.int64).reshape(-1, 2)
    expected = [number == 0 or rows[number] != rows[number - 1] for number in range(len(rows))]
    assert begins_of(table[:, 0], table[:, 1]).tolist() == expected
    first = [row for row, _ in rows]
    assert begins_of(table[:, 0]).tolist() == [n == 0 or first[n] != first[n - 1] for n in range(len(rows))]


@given(st.lists(st.integers(0, 9), max_size=20).map(sorted), st.lists(st.integers(-1, 10), max_size=20))
def test_a_value_is_found_at_its_first_place_or_nowhere(values, wanted):
    expected = [values.index(value) if value in values else -1 for value in wanted]
    assert find(np.array(values, dtype=np.int64), np.array(wanted, dtype=np.int64)).tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=12))
def test_ranges_end_to_end_are_those_of_python(starts_and_lengths):
    starts, lengths = np.array(starts_and_lengths, dtype=np.int64).reshape(-1, 2).T
    expected = [number for start, length in starts_and_lengths for number in range(start, start + length)]
    assert ranges(starts, lengths).tolist() == expected


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 20))
def test_blocks_hold_as_many_rows_as_fit_and_a_larger_row_alone(sizes, most):
    blocks = list(blocks_within(np.cumsum(np.array(sizes, dtype=np.int64)), most))
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(len(sizes)))
    for block in blocks:
        rows = sizes[block]
        assert sum(rows) <= most or len(rows) == 1
        following = sizes[block.stop : block.stop + 1]
        assert not following or sum(rows) + following[0] > most


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
@given(decoded=st.lists(st.integers(0, 100), min_size=1, max_size=9).filter(any))
def test_the_parts_of_a_file_stand_for_all_of_its_bytes(size, decoded):
    shares = list(file_shares(size, [RowSpan(0, 1, part) for part in decoded]))
    assert sum(shares) == size and min(shares) >= 0
    for share, part in zip(shares, decoded, strict=True):
        assert abs(share - size * part / sum(decoded)) < 1
