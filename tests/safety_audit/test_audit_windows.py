"""Windows of text for the audit: where they may begin, how they spread over documents, and how they are sorted."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from codex_ml.modeling.rows import rows_of_step
from codex_ml.modeling.train_files import Training
from codex_ml.safety_audit.audit_windows import draw_windows, is_trivial, sort_windows
from codex_ml.safety_audit.window_places import MOST_PER_DOCUMENT, Candidates, WindowShape, last_seen

from .known_answers import END, MEMBER, Names, drawn, packed, windows


def test_windows_are_starts_of_pieces_inside_one_document():
    """Inputs: [END 2..6] [7..11] of the first, [END 20 21 22] of the second, [END 30..34] [35 36] of the third."""
    rows = packed([*range(2, 12)], [20, 21, 22], [*range(30, 37)], seq_len=6)
    assert windows(rows, length=6) == ([[0, 2, 3, 4, 5, 6], [0, 30, 31, 32, 33, 34]], 0)
    fives = [[0, 2, 3, 4, 5], [0, 30, 31, 32, 33], [7, 8, 9, 10, 11]]
    assert windows(rows, length=5) == (fives, 0)
    assert windows(rows, length=4) == ([[0, 2, 3, 4], [0, 20, 21, 22], [0, 30, 31, 32], [7, 8, 9, 10]], 0)
    assert windows(rows, length=7) == ([], 0)  # longer than what the model ever saw at once


def test_every_piece_of_a_row_gives_a_window():
    rows = packed([2, 3, 4], [5, 6], [7, 8, 9, 10], seq_len=8)
    rows = replace(rows, first=np.array([0, 2, 3], dtype="<u8"))
    assert windows(rows, length=4) == ([[0, 2, 3, 4], [0, 7, 8, 9]], 0)
    assert windows(rows, length=3) == ([[0, 2, 3], [0, 5, 6], [0, 7, 8]], 0)


def test_what_was_not_trained_cannot_have_been_learnt():
    """The second and the third token after END are a prompt: they may be in the prefix, not in the suffix."""
    mask = np.array([0, 0, 0, 1, 1, 1, 1], dtype=np.uint8)
    rows = packed([5, 6, 7, 8, 9], seq_len=8, mask=mask)
    assert windows(rows, length=5, prefix=3) == ([[0, 5, 6, 7, 8]], 0)
    assert windows(rows, length=5, prefix=2) == ([], 0)


def test_canaries_are_not_members():
    rows = packed([5, 6, 7], [8, 9, 10], seq_len=8, canaries=(1,))
    assert windows(rows, length=4) == ([[0, 5, 6, 7]], 0)


def test_another_seed_draws_the_windows_in_another_order():
    rows = packed(MEMBER, seq_len=4)
    draws = [[window.start for window in drawn(rows, length=4, seed=seed)] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_further_windows_lie_inside_the_pieces_and_come_after_the_starts():
    """A piece of 7 targets and one of 3: windows of 3 at 0, 3 of the first, and at 0 of the second."""
    rows = packed([*range(2, 11)], seq_len=7)
    found = drawn(rows, length=3, inside=True)
    assert [window.window.tokens.tolist() for window in found][2:] == [[4, 5, 6]]
    assert sorted(window.start for window in found[:2]) == [0, 7]
    assert len(drawn(rows, length=3)) == 2


def test_windows_are_spread_over_the_documents():
    """Each document gives its first window before one gives its second, and none gives more than a few."""
    rows = packed(*([number, *range(40, 40 + 3 * length)] for number, length in enumerate((15, 3, 2, 1), 2)), seq_len=3)
    found = [window.document for window in drawn(rows, length=3)]
    assert Counter(found) == {0: MOST_PER_DOCUMENT, 1: 3, 2: 2, 3: 1}
    assert set(found[:4]) == {0, 1, 2, 3}
    assert set(found[4:7]) == {0, 1, 2}
    assert set(found[9:]) == {0}


def trained(steps: int, *, rows: int, seed: int) -> Training:
    """What the audit reads of training.json."""
    return Training.model_construct(global_step=steps, rows_a_step=rows, seed=seed)


def test_trivial_windows_are_left_out_and_counted():
    rows = packed(MEMBER, seq_len=12)  # rows start with END, 13, 25, 37
    found, trivial = windows(rows, length=12, tokenizer=Names(zeros=range(13, 37)))
    assert [window[0] for window in found] == [END, 37]
    assert trivial == 2


def test_rows_that_were_seen_follow_the_order_of_training():
    """10 rows, 3 per step: two steps saw the first six of the epoch's order, four steps all of them."""
    rows = packed(*([number] for number in range(2, 12)), seq_len=2)
    order = np.random.Generator(np.random.PCG64([5, 0])).permutation(10)

    def seen(steps):
        training = trained(steps, rows=3, seed=5)
        sides = [how(rows, training).among(np.arange(10)) for how in (Candidates.seen, Candidates.unseen)]
        assert (sides[0] != sides[1]).all()
        return np.flatnonzero(sides[0]).tolist()

    assert seen(0) == []
    assert seen(2) == sorted(order[:6].tolist())
    assert seen(3) == sorted(order[:9].tolist())
    assert seen(4) == list(range(10))


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 5, 7, 30])
@pytest.mark.parametrize("batch", [1, 3, 10, 25])
def test_a_row_was_last_seen_in_the_last_step_that_read_it(steps, batch):
    expected = [-1] * 10
    for step in range(steps):
        for row in rows_of_step(10, step=step, batch_rows=batch, seed=7):
            expected[row] = step
    ago = [-1 if step < 0 else steps - 1 - step for step in expected]
    assert last_seen(trained(steps, rows=batch, seed=7), 10).tolist() == ago


def test_a_window_knows_when_its_row_was_last_seen():
    rows = packed(*([number, number + 20, number + 40] for number in range(2, 12)), seq_len=4)
    training = trained(2, rows=3, seed=5)
    found = list(draw_windows(Candidates.seen(rows, training), Names(), WindowShape(1, 3), seed=1))
    order = np.random.Generator(np.random.PCG64([5, 0])).permutation(10)
    assert {window.document: window.last_seen for window in found} == {
        int(row): 1 if place < 3 else 0 for place, row in enumerate(order[:6])
    }
    assert {window.last_seen for window in drawn(rows, length=3)} == {None}


def test_windows_are_sorted_by_how_often_they_stand_in_the_train_stream():
    """Documents 0 and 2 are equal, 1 stands once; held-out text that stands in train at all is repeated."""
    rows = packed([2, 3, 4, 5], [6, 7, 8, 9], [2, 3, 4, 5], seq_len=5)
    found = sort_windows(iter(drawn(rows, length=4)), rows.tokens, once=1, count=4)
    assert [(window.document, window.duplicates) for window in found.windows] == [(1, 1)]
    assert [window.duplicates for window in found.repeated] == [2]  # a quarter of four windows is one
    assert found.documents == 1
    held_out = packed([6, 7, 8, 9], [6, 7, 8, 5], seq_len=5)
    found = sort_windows(iter(drawn(held_out, length=5)), rows.tokens, once=0, count=4)
    assert [(window.document, window.duplicates) for window in found.windows] == [(1, 0)]
    assert [(window.document, window.duplicates) for window in found.repeated] == [(0, 1)]


def test_no_more_windows_than_requested_and_all_that_there_are():
    rows = packed(MEMBER, seq_len=4)
    for count in (1, 5, 8, 20):
        found = sort_windows(iter(drawn(rows, length=4)), rows.tokens, once=1, count=count)
        assert len(found.windows) == min(count, MOST_PER_DOCUMENT)


def test_where_nearly_all_text_is_repeated_the_search_ends():
    """Every window stands in the stream twice: the search ends after 62 times the windows that are looked for."""
    rows = packed(*[[*range(2, 8)]] * 2, seq_len=3)
    (window, *_) = drawn(rows, length=3)
    read = []
    endless = (read.append(number) or window for number in itertools.count())
    found = sort_windows(endless, rows.tokens, once=1, count=8)
    assert (len(found.windows), len(found.repeated), len(read)) == (0, 2, 62 * 8)


def test_text_is_trivial_if_it_compresses_or_if_most_of_its_4_grams_are_repeated():
    random = np.random.Generator(np.random.PCG64(3)).integers(33, 127, 400)
    text = "".join(map(chr, random))
    assert not is_trivial(np.arange(100), text)
    assert is_trivial(np.arange(100), "0, " * 100)
    # 13 tokens have ten 4-grams: with six distinct ones four of ten are repeated, with four distinct ones six are
    assert not is_trivial(np.arange(13) % 6, text)
    assert is_trivial(np.arange(13) % 4, text)
    assert not is_trivial(np.arange(3), text)


def test_halves_of_a_window_are_those_of_its_row():
    """A text of 6 targets has 3 in its first half; a record whose first trained target is the third has 2."""

    def middles(mask, length, prefix):
        rows = packed([5, 6, 7, 8, 9], seq_len=8, mask=mask and np.array(mask, dtype=np.uint8))
        return [window.window.middle for window in drawn(rows, prefix=prefix, length=length)]

    assert [middles(None, length, 2) for length in (3, 4, 5, 6)] == [[2], [3], [3], [3]]
    assert middles([0, 0, 0, 1, 1, 1, 1], 6, 3) == [2]
