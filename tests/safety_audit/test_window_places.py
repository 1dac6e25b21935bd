"""Where windows may begin: the order of the draw, and memory that does not follow the number of pieces."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from codex_ml.modeling.rows import Rows
from codex_ml.safety_audit import window_places
from codex_ml.safety_audit.window_places import (
    MOST_PER_DOCUMENT,
    Candidates,
    WindowShape,
    drawn_places,
    first_pieces,
    mixed,
    rows_at,
)

from .known_answers import packed

SHAPE = WindowShape(1, 3)


def documents(count: int, *, seed: int = 3) -> list[list[int]]:
    random = np.random.Generator(np.random.PCG64(seed))
    return [random.integers(2, 90, size).tolist() for size in random.integers(1, 60, count)]


def shuffled(rows: Rows) -> Rows:
    """The same stream with its pieces in another order, two per row, as pack places them."""
    random = np.random.Generator(np.random.PCG64(5))
    pieces = rows.pieces[random.permutation(len(rows.pieces))]
    first = np.unique(np.append(np.arange(0, len(pieces), 2), len(pieces))).astype("<u8")
    return Rows(rows.tokens, rows.starts, rows.seq_len, rows.pad, pieces, first, canaries=rows.canaries)


def draw(rows: Rows, seed: int = 1) -> list[tuple[int, int, int]]:
    return list(drawn_places(Candidates.all_of(rows), SHAPE, seed))


def test_mixed_numbers_are_those_of_the_reference_implementation() -> None:
    """The first outputs of SplitMix64 from the state 0, as published with java.util.SplittableRandom and xoshiro."""
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(mixed(np.array([0]), seed)[0]) for seed in range(3)] == first
    assert len(np.unique(mixed(np.arange(100_000), 7))) == 100_000


def test_the_draw_follows_the_rounds() -> None:
    """The reference holds all places in memory and sorts them by what the docstring says."""
    rows = shuffled(packed(*documents(40), seq_len=16, canaries=(4, 9)))
    places: dict[int, list[tuple[bool, int, tuple[int, int, int]]]] = {}
    for row in range(len(rows)):
        for piece in range(int(rows.first[row]), int(rows.first[row + 1])):
            begin, targets = map(int, rows.pieces[piece])
            document = int(rows.document_of(np.array([begin]))[0])
            for number in range(min(MOST_PER_DOCUMENT, targets // 3)):
                start = begin + 3 * number
                key = int(mixed(np.array([start]), 1)[0])
                places.setdefault(document, []).append((number > 0, key, (start, piece, row)))
    order = sorted(places.keys() - {4, 9}, key=lambda document: int(mixed(np.array([document]), 1)[0]))
    expected = [
        sorted(places[document])[rank][2]
        for rank in range(MOST_PER_DOCUMENT)
        for document in order
        if len(places[document]) > rank
    ]
    assert draw(rows) == expected
    assert len({start for start, _, _ in expected}) == len(expected) > 150
    assert draw(rows, seed=2) != expected


@pytest.mark.parametrize(("chunk", "together"), [(1, 17), (3, 8), (7, 39), (1000, 5)])
def test_neither_chunks_nor_documents_held_at_once_change_the_draw(
    monkeypatch: pytest.MonkeyPatch, chunk: int, together: int
) -> None:
    rows = shuffled(packed(*documents(40), seq_len=16))
    positions = np.arange(len(rows.tokens) - 1)
    expected = draw(rows), first_pieces(rows, seed=1, most=9).tolist(), rows_at(rows, positions).tolist()
    monkeypatch.setattr(window_places, "CHUNK", chunk)
    monkeypatch.setattr(window_places, "TOGETHER", together)
    assert (draw(rows), first_pieces(rows, seed=1, most=9).tolist(), rows_at(rows, positions).tolist()) == expected


def test_only_places_whose_suffix_was_trained_are_drawn_and_the_others_cost_no_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Records with short answers: without this, each few of them cost a pass over all pieces, and give nothing."""
    rows = packed(*documents(200), seq_len=16)
    trained = np.zeros(len(rows.tokens), dtype=np.uint8)
    begin = next(start for start, *_ in draw(rows) if rows.document_of(np.array([start]))[0] == 120)
    trained[begin + 1 : begin + 3] = 1
    rows = replace(rows, mask=trained)
    passes: list[Rows] = []
    chunks = window_places.pieces_in_chunks
    monkeypatch.setattr(window_places, "TOGETHER", 5)
    monkeypatch.setattr(window_places, "pieces_in_chunks", lambda rows: [passes.append(rows), chunks(rows)][1])
    assert [start for start, *_ in draw(rows)] == [begin]
    assert len(passes) == 1


def test_each_document_is_drawn_first_equally_often() -> None:
    """Ten documents in 2,000 orders: each is the first about 200 times, within four standard deviations of 13.4."""
    rows = packed(*([number, *range(40, 50)] for number in range(10)), seq_len=16)
    first = Counter(next(drawn_places(Candidates.all_of(rows), SHAPE, seed))[1] for seed in range(2000))
    assert len(first) == 10
    assert all(abs(count - 200) < 54 for count in first.values())


def test_first_pieces_are_those_of_documents_with_a_prompt_and_a_rest() -> None:
    """Document 1 is one token and its END; document 3 is empty and has one target; document 2 is a canary."""
    rows = shuffled(packed([*range(2, 30)], [7], [8, 9, 10], [], [*range(40, 44)], seq_len=8, canaries=(2,)))
    assert sorted(first_pieces(rows, seed=1, most=9).tolist()) == [[0, 0, 8], [1, 29, 2], [4, 36, 5]]
    assert first_pieces(rows, seed=1, most=2).tolist() == first_pieces(rows, seed=1, most=9).tolist()[:2]


def test_a_position_before_every_piece_is_in_the_row_of_the_first_one() -> None:
    """The piece of a chat leaves out the END before it."""
    pieces, first = np.array([[6, 2], [1, 4]], dtype="<u8"), np.arange(3, dtype="<u8")
    rows = Rows(np.zeros(9, dtype="<u2"), np.array([0, 5, 8], dtype="<u8"), 8, 1, pieces, first)
    assert rows_at(rows, np.arange(8)).tolist() == [1, 1, 1, 1, 1, 1, 0, 0]


def corpus(count: int) -> Rows:
    """Index of `count` pieces of 8 targets, four per document, in an order that is not that of the stream."""
    places = np.arange(count).reshape(-1, 512)[:, ::-1].reshape(-1)
    pieces = np.stack([8 * places, np.full(count, 8)], axis=1).astype("<u8")
    starts, first = np.arange(0, 8 * count + 1, 32, dtype="<u8"), np.arange(count + 1, dtype="<u8")
    return Rows(np.zeros(8 * count + 1, dtype="<u2"), starts, 8, 1, pieces, first)


@pytest.mark.parametrize(
    "work",
    [
        lambda rows: list(islice(drawn_places(Candidates.all_of(rows), SHAPE, 1), 200)),
        lambda rows: first_pieces(rows, seed=1, most=200),
        lambda rows: rows_at(rows, np.arange(0, len(rows.tokens) - 1, len(rows.tokens) // 50)),
    ],
    ids=["draw", "first pieces", "rows at"],
)
def test_memory_does_not_grow_with_the_number_of_pieces(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[Rows], object]
) -> None:
    """Sixteen times the pieces take the memory of a chunk and of the documents that are held, not more."""
    monkeypatch.setattr(window_places, "CHUNK", 2048)
    monkeypatch.setattr(window_places, "TOGETHER", 256)

    def peak(rows: Rows) -> int:
        tracemalloc.start()
        try:
            work(rows)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = (corpus(count) for count in (8192, 16 * 8192))
    work(small)  # imports and caches
    assert peak(large) < 1.25 * peak(small)
