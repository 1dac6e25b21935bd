"""Where windows of text may begin, in a random order that spreads them over the documents.

The draw goes in rounds. In round j each document gives its j-th place, and the documents come in the same random order
in every round. The places of a document are in random order too, but starts of pieces come first. A document gives at
most `MOST_PER_DOCUMENT` places. A place whose suffix was not trained, such as a prompt, is left out.

The random order is that of a mixed number (`mixed`), so it needs no permutation in memory: the pieces are read in
chunks, and only the next `TOGETHER` documents are held. The only thing that grows with the stream is `last_seen`: four
bytes per row, as much as `row_order`, the order of an epoch, takes in training.

Used by: the windows and the prompts of safety_audit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.modeling.rows import Rows, row_order
from codex_ml.modeling.train_files import Training

MOST_PER_DOCUMENT = 8
CHUNK = 1 << 16  # pieces, or rows, that are read at once
TOGETHER = 4096  # documents that are held at once; a smaller number means more passes over the pieces
GOLDEN = 0x9E3779B97F4A7C15
OFFSET, PIECE, ROW, DOCUMENT, INSIDE = range(5)  # columns of a table of places

Table = NDArray[np.int64]


@dataclass(frozen=True)
class WindowShape:
    """Tokens of a window.

    Attributes:
        prefix: tokens that the model gets.
        length: of prefix and suffix together.
        inside: whether windows may begin inside a piece; not for an encoder-decoder, whose halves are those of a row.
    """

    prefix: int
    length: int
    inside: bool = True


@dataclass(frozen=True)
class Candidates:
    """Rows from which windows may be drawn.

    Attributes:
        last_seen: (rows,) int32, steps between the last one that read each row and the last one of all, -1 for a row
            that was never read; None: not known, and all rows are candidates.
        read: whether the rows that were read are the candidates, or the others.
    """

    rows: Rows
    last_seen: NDArray[np.int32] | None = None
    read: bool = True

    @classmethod
    def seen(cls, rows: Rows, training: Training) -> Candidates:
        """Return the rows of the train stream that the kept weights have seen.

        Args:
            training: training.json of the model.
        """
        return cls(rows, last_seen(training, len(rows)))

    @classmethod
    def unseen(cls, rows: Rows, training: Training) -> Candidates:
        """Return the other rows of the train stream."""
        return cls(rows, last_seen(training, len(rows)), read=False)

    @classmethod
    def all_of(cls, rows: Rows) -> Candidates:
        """Return all rows of a stream."""
        return cls(rows)

    def age(self, row: int) -> int | None:
        """Steps since a row was read; None: not known."""
        return None if self.last_seen is None else int(self.last_seen[row])

    def among(self, rows: Table) -> NDArray[np.bool_]:
        """Whether the rows with these numbers are candidates: (n,) bool."""
        if self.last_seen is None:
            return np.ones(len(rows), dtype=bool)
        return (self.last_seen[rows] >= 0) == self.read


def last_seen(training: Training, total: int) -> NDArray[np.int32]:
    """Return for each row how many steps before the last one it was read: (total,) int32, -1 if it never was.

    Args:
        training: training.json of the model.
        total: number of rows of the train stream.
    """
    steps, batch = training.global_step, training.rows_a_step
    last = np.full(total, -1, dtype=np.int32)
    final = max(steps * batch - 1, 0) // max(total, 1)
    for epoch in range(max(final - 1, 0), final + 1):  # the epoch before the last one reads every row
        order = row_order(total, seed=training.seed, epoch=epoch)
        for begin in range(0, total, CHUNK):
            rows = order[begin : begin + CHUNK]
            step = (epoch * total + begin + np.arange(len(rows))) // batch
            last[rows[step < steps]] = (steps - 1 - step)[step < steps]
    return last


def mixed(numbers: NDArray[Any], seed: int) -> NDArray[np.uint64]:
    """Map numbers to random-looking ones: (n,) uint64, different ones for different numbers.

    This is the output function of SplitMix64 (Steele, Lea, Flood 2014), whose every step can be undone.
    """
    value = numbers.astype(np.uint64) + np.uint64((seed + 1) * GOLDEN % 2**64)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mix: NDArray[np.uint64] = value ^ (value >> np.uint64(31))
    return mix


def drawn_places(candidates: Candidates, shape: WindowShape, seed: int) -> Iterator[tuple[int, int, int]]:
    """Where windows may begin, in the order in which they are drawn.

    Yields:
        Offset in the stream, number of the piece, and number of its row.
    """
    only: Table | None = None  # where all documents are held at once, one pass is enough for all rounds
    for rank in range(MOST_PER_DOCUMENT):
        after: int | None = None
        while True:
            table = _next_documents(candidates, shape, seed, after) if only is None else only
            documents = len(np.unique(table[:, DOCUMENT]))
            if after is None and documents < TOGETHER:
                only = table
            for place in table[_rank_of(table[:, DOCUMENT]) == rank].tolist():
                yield place[OFFSET], place[PIECE], place[ROW]
            if documents < TOGETHER:
                break
            after = int(mixed(table[-1:, DOCUMENT], seed)[0])


def _next_documents(candidates: Candidates, shape: WindowShape, seed: int, after: int | None) -> Table:
    """The places of the next `TOGETHER` documents of the random order.

    Args:
        after: mixed number of the last document before them; None: from the first one.

    Returns:
        (n, 5) int64, the places of each document together, in the order in which they are drawn.
    """
    held, most = np.zeros((0, 5), dtype=np.int64), None
    for table in _tables(candidates, shape):
        key = mixed(table[:, DOCUMENT], seed)
        wanted = np.ones(len(table), dtype=bool) if after is None else key > np.uint64(after)
        if most is not None:
            wanted &= key <= most
        places = _trained(_expanded(table[wanted], shape), candidates.rows, shape)
        held = _sorted(np.concatenate([held, places]), seed)
        held = held[_rank_of(held[:, DOCUMENT]) < MOST_PER_DOCUMENT]
        begins = np.flatnonzero(np.diff(held[:, DOCUMENT], prepend=-1))
        if len(begins) >= TOGETHER:
            held = held[: begins[TOGETHER]] if len(begins) > TOGETHER else held
            most = mixed(held[-1:, DOCUMENT], seed)[0]
    return held


def _tables(candidates: Candidates, shape: WindowShape) -> Iterator[Table]:
    """The pieces, chunk by chunk, that are long enough for a window: (n, 5) int64; the last column is their targets.

    Canaries are no text of the corpus and are left out.
    """
    for table in pieces_in_chunks(candidates.rows):
        table = table[table[:, INSIDE] >= shape.length]
        table = table[candidates.among(table[:, ROW])]
        yield table[~np.isin(table[:, DOCUMENT], candidates.rows.canaries)]


def pieces_in_chunks(rows: Rows) -> Iterator[Table]:
    """All pieces of a stream, `CHUNK` at once: (n, 5) int64, with the number of targets as the last column."""
    for begin in range(0, len(rows.pieces), CHUNK):
        offset, targets = rows.pieces[begin : begin + CHUNK].astype(np.int64).T
        piece = np.arange(begin, begin + len(offset))
        row = np.searchsorted(rows.first, piece.astype(rows.first.dtype), side="right") - 1
        yield np.stack([offset, piece, row, rows.document_of(offset), targets], axis=1)


def _expanded(table: Table, shape: WindowShape) -> Table:
    """Place j of a piece lies j windows after the start of the piece; the last column says whether j > 0."""
    number = np.arange(MOST_PER_DOCUMENT if shape.inside else 1)
    at, number = np.nonzero((number + 1) * shape.length <= table[:, INSIDE, None])
    places = table[at]
    places[:, OFFSET] += number * shape.length
    places[:, INSIDE] = number > 0
    return places


def _trained(places: Table, rows: Rows, shape: WindowShape) -> Table:
    """The places whose whole suffix was trained.

    A document without such a place must not come into the draw: each `TOGETHER` documents cost a pass over the pieces,
    and of records with short answers none may have one.
    """
    if rows.mask is None:
        return places
    for ahead in range(shape.prefix, shape.length):
        places = places[rows.mask[places[:, OFFSET] + ahead] == 1]
    return places


def _sorted(places: Table, seed: int) -> Table:
    keys = (mixed(places[:, OFFSET], seed), places[:, INSIDE], mixed(places[:, DOCUMENT], seed))
    return places[np.lexsort(keys)]


def _rank_of(groups: Table) -> Table:
    """Number the members of each group, which are neighbours: [7, 7, 3, 5, 5] gives [0, 1, 0, 0, 1]."""
    begins = np.flatnonzero(np.diff(groups, prepend=-1))
    sizes = np.diff(begins, append=len(groups))
    return np.arange(len(groups)) - np.repeat(begins, sizes)


def first_pieces(rows: Rows, *, seed: int, most: int) -> Table:
    """Return the first piece of some documents of a stream, in random order.

    Returns:
        (n, 3) int64: number of the document, offset of the piece in the stream, number of its targets. Documents with
        fewer than two targets, and canaries, are left out. n is `most`, or the number of documents if that is smaller.
    """
    found = np.zeros((0, 3), dtype=np.int64)
    for table in pieces_in_chunks(rows):
        before = table[:, OFFSET] - rows.starts[table[:, DOCUMENT]].astype(np.int64)
        # A first piece begins with the END before the document; that of a chat leaves the END out.
        first = (before <= 1) & (table[:, INSIDE] > 1) & ~np.isin(table[:, DOCUMENT], rows.canaries)
        found = np.concatenate([found, table[first][:, [DOCUMENT, OFFSET, INSIDE]]])
        found = found[np.argsort(mixed(found[:, 0], seed), kind="stable")][:most]
    return found


def rows_at(rows: Rows, positions: Table) -> Table:
    """Return the number of the row whose piece reads the token at each position as an input: (n,) int64.

    That is the last piece which begins at or before the position; before the first piece, it is the first one.
    """
    begin, row, first = np.full(len(positions), -1, dtype=np.int64), np.full(len(positions), -1, dtype=np.int64), None
    for table in pieces_in_chunks(rows):
        table = table[np.argsort(table[:, OFFSET], kind="stable")]
        if first is None or table[0, OFFSET] < first[OFFSET]:
            first = table[0]
        last = np.searchsorted(table[:, OFFSET], positions, side="right") - 1
        nearer = (last >= 0) & (table[last, OFFSET] > begin)
        begin[nearer], row[nearer] = table[last[nearer], OFFSET], table[last[nearer], ROW]
    return row if first is None else np.where(row < 0, first[ROW], row)
