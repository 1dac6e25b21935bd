"""Windows in a token stream: every answer against a search that compares all places."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.safety_audit import window_index
from codex_ml.safety_audit.window_index import CopiedRun, longest_runs, occurrences

END = 0
tokens = st.lists(st.integers(0, 3), max_size=60)


def places(stream, window):
    return [at for at in range(len(stream) - len(window) + 1) if list(stream[at : at + len(window)]) == list(window)]


def longest(stream, text, at_least):
    for length in range(len(text), at_least - 1, -1):
        for place in range(len(text) - length + 1):
            if found := places(stream, text[place : place + length]):
                return CopiedRun(length, place, found[0])
    return None


def check(stream, windows, texts, at_least):
    array = np.array(stream, dtype="<u2")
    counts, positions = occurrences(array, windows)
    assert counts.tolist() == [len(places(stream, window)) for window in windows]
    assert positions.tolist() == [next(iter(places(stream, window)), -1) for window in windows]
    assert longest_runs(array, texts, at_least=at_least) == [longest(stream, text, at_least) for text in texts]


@settings(max_examples=60, deadline=None)
@given(
    tokens,
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), max_size=8),
    st.lists(st.lists(st.integers(0, 3), max_size=20), max_size=5),
    st.integers(1, 6),
)
def test_the_answers_are_those_of_brute_force(stream, windows, texts, at_least):
    check(stream, windows, texts, at_least)


@pytest.mark.parametrize("bits", [1, 3])
def test_colliding_hashes_change_nothing(monkeypatch, bits):
    """With two or eight different hashes almost every window collides with every other."""
    monkeypatch.setattr(window_index, "HASH_BITS", bits)
    random = np.random.Generator(np.random.PCG64(bits))
    stream = random.integers(0, 3, 400).tolist()
    windows = [random.integers(0, 3, width).tolist() for width in (1, 2, 5, 5, 5, 8)]
    check(stream, [*windows, *windows], [random.integers(0, 3, 30).tolist() for _ in range(4)], 3)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_window_across_the_border_of_two_chunks_is_found_once(monkeypatch, chunk):
    monkeypatch.setattr(window_index, "CHUNK", chunk)
    monkeypatch.setattr(window_index, "COMPARED", 5)
    random = np.random.Generator(np.random.PCG64(chunk))
    stream = random.integers(0, 4, 130).tolist()
    check(stream, [stream[at : at + 9] for at in range(0, 120, 3)], [stream[5:60], stream[100:]], 4)


def test_a_planted_copy_of_60_tokens_is_found_where_it_comes_from():
    random = np.random.Generator(np.random.PCG64(1))
    stream = random.integers(1, 50_000, 300_000).astype("<u2")
    copy = stream[271_000:271_060]
    text = [*random.integers(1, 50_000, 30), *copy, *random.integers(1, 50_000, 38)]
    assert longest_runs(stream, [text, random.integers(1, 50_000, 128)], at_least=50) == [
        CopiedRun(60, 30, 271_000),
        None,
    ]
    assert longest_runs(stream, [[*text[:30], *copy[:49], *text[90:]]], at_least=50) == [None]
    assert longest_runs(stream, [[*text[:30], *copy[:50], *text[90:]]], at_least=50) == [CopiedRun(50, 30, 271_000)]


def test_a_run_does_not_cross_the_end_of_a_document():
    first, second = list(range(1, 41)), list(range(41, 81))
    stream = np.array([END, *first, END, *second, END], dtype="<u2")
    assert longest_runs(stream, [[*first[10:], *second[:20]]], at_least=5) == [CopiedRun(30, 0, 11)]
    assert longest_runs(stream, [[*first[30:], *second]], at_least=5) == [CopiedRun(40, 10, 42)]
    assert longest_runs(stream, [[*first[30:], END, *second]], at_least=5) == [CopiedRun(51, 0, 31)]


def test_of_duplicates_all_count_and_the_first_is_named():
    document = list(range(1, 61))
    stream = np.array([END, 99, END, *document, END, *document, END, *document, END], dtype="<u4")
    counts, positions = occurrences(stream, [document[:50], document[5:55], document[:50], [99, END]])
    assert (counts.tolist(), positions.tolist()) == ([3, 3, 3, 1], [3, 8, 3, 1])
    assert longest_runs(stream, [document], at_least=50) == [CopiedRun(60, 0, 3)]


def test_one_token_repeated_is_counted_with_overlaps():
    stream = np.full(5000, 7, dtype="<u2")
    counts, positions = occurrences(stream, [[7] * 50, [7] * 5000, [7] * 5001])
    assert (counts.tolist(), positions.tolist()) == ([4951, 1, 0], [0, 0, -1])
    assert longest_runs(stream, [[7] * 128] * 3, at_least=50) == [CopiedRun(128, 0, 0)] * 3


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 9, 16])
def test_the_passes_are_enough_for_every_length_of_a_run(length):
    stream = np.arange(1, 40)
    for text_length in range(length, 20):
        text = [*range(5, 5 + length), *range(900, 900 + text_length - length)]
        for at_least in range(1, length + 1):
            assert longest_runs(stream, [text], at_least=at_least) == [CopiedRun(length, 0, 4)]


def test_the_passes_can_be_followed():
    seen = []

    def track(passes):
        for number in passes:
            seen.append((number, len(passes)))
            yield number

    longest_runs(np.arange(1, 200), [list(range(1, 129))], at_least=50, track=track)
    assert seen == [(number, 8) for number in range(8)]  # 1 for 50 tokens, 7 for up to 78 more


def test_nothing_is_found_of_nothing():
    stream = np.arange(10, dtype="<u2")
    assert [found.tolist() for found in occurrences(stream, [])] == [[], []]
    assert longest_runs(stream, [], at_least=50) == []
    assert longest_runs(stream, [[], [1, 2]], at_least=3) == [None, None]
    assert longest_runs(stream[:0], [[1, 2, 3]], at_least=2) == [None]
