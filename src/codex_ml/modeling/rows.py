"""Read the packed token stream: documents in rows of equal length, with random access, so that any step can be read.

    train.bin       token ids, uint16 or uint32 little-endian: END, document, END, document, ..., END
    train.starts    (documents + 1,) uint64: offset of the END before each document, and of the last END
    train.pieces    (pieces, 2) uint64: offset of a piece in train.bin, and its number of targets
    train.rows      (rows + 1,) uint64: index of the first piece of each row, and the number of pieces
    train.mask      uint8 per token of train.bin: 1 if it is trained as a target; absent if all are
    pack.json       describes the files

A piece of n targets has the inputs `stream[start : start + n]` and the labels `stream[start + 1 : start + n + 1]`.
A document [t1 ... tn] is one piece. It begins with END, and END is its last target. So its first token is predicted
from END alone, and its end is learnt once. If the tokenizer has its own BOS, the stream holds END, BOS, document, END,
and the piece begins with BOS. A document that is longer than a row is cut into several pieces, and no token is lost:
each piece begins with the last target of the previous one. So every token except the first END is a target exactly once
per epoch. The piece of a chat leaves out both ENDs, because its template writes its own. Pieces share rows but not
positions; see `Rows.batch`.

Used by: train, safety_audit, `codex-ml pack`; pack writes the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError
from codex_ml.core.pipeline import remedy
from codex_ml.modeling.pack_files import PLAIN, LossOn, Packed, PromptTemplate

OTHERWISE = "name a folder that stage pack wrote whole"

IGNORE = -100  # label without loss, as in torch.nn.functional.cross_entropy


def stream_dtype(vocab_size: int, wanted: str = "auto") -> np.dtype[Any]:
    """Return the dtype of a stream. `auto` is uint16 if the largest id is at most 65,535, else uint32.

    Args:
        vocab_size: the largest id + 1, including added and special tokens.
        wanted: `pack.dtype`: "auto", "uint16" or "uint32".

    Raises:
        UserError: when `wanted` is uint16 and the ids do not fit.
    """
    if wanted == "uint16" and vocab_size > 2**16:
        raise UserError(f"pack.dtype uint16 holds ids up to 65535; the tokenizer has {vocab_size} tokens: use auto")
    small = wanted == "uint16" or (wanted == "auto" and vocab_size <= 2**16)
    return np.dtype("<u2" if small else "<u4")


@dataclass(frozen=True)
class Rows:
    """Random access to the rows of one stream, through memory maps.

    Attributes:
        tokens: (n,) the stream.
        starts: (documents + 1,) uint64.
        seq_len: tokens per row.
        pad: id of the padding at the end of a row.
        pieces: (pieces, 2) uint64.
        first: (rows + 1,) uint64; every row has a piece.
        mask: (n,) uint8, or None where every target is trained.
        canaries: numbers of the documents that are canaries, ascending.
        loss_on: which tokens of a record are trained, `pack.loss_on`.
        template: how records with a prompt became text.
    """

    tokens: NDArray[Any]
    starts: NDArray[np.uint64]
    seq_len: int
    pad: int
    pieces: NDArray[np.uint64]
    first: NDArray[np.uint64]
    mask: NDArray[np.uint8] | None = None
    canaries: tuple[int, ...] = ()
    loss_on: LossOn = "completions"
    template: PromptTemplate = PLAIN

    @classmethod
    def open(cls, folder: Path, name: str) -> Rows:
        """Map the files of `folder/name.*`.

        Raises:
            UserError: when a file is missing or does not belong to the others.
        """
        packed = Packed.read(folder / "pack.json")
        if name not in packed.streams:
            raise UserError(f"{folder / 'pack.json'} has no stream {name}; {remedy(folder, OTHERWISE)}")
        stream = packed.streams[name]
        tokens = _mapped(folder / f"{name}.bin", packed.dtype, stream.tokens)
        starts = _mapped(folder / f"{name}.starts", "<u8", stream.documents + 1)
        table = _mapped(folder / f"{name}.pieces", "<u8", 2 * stream.pieces).reshape(-1, 2)
        first = _mapped(folder / f"{name}.rows", "<u8", stream.rows + 1)
        mask = _mapped(folder / f"{name}.mask", "u1", stream.tokens) if stream.masked else None
        for file, found, wanted in (("starts", starts[-1], stream.tokens - 1), ("rows", first[-1], stream.pieces)):
            if found != wanted:
                raise UserError(f"{folder / name}.{file} does not belong to {name}.bin; {remedy(folder, OTHERWISE)}")
        numbers = tuple(stream.canaries)
        return cls(
            tokens, starts, packed.seq_len, packed.pad, table, first, mask, numbers, packed.loss_on, packed.template
        )

    def __len__(self) -> int:
        return len(self.first) - 1

    def batch(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """Return the rows with these numbers.

        Returns:
            input_ids, labels, position_ids: each (len(rows), seq_len) int64. Labels are already shifted. They are
            IGNORE where a target is not trained, and in the padding at the end of a row. Positions restart at 0 with
            every piece and with the padding, which is a segment of its own.
        """
        shape = (len(rows), self.seq_len)
        begin = self.first[rows].astype(np.int64)
        counts = self.first[np.asarray(rows) + 1].astype(np.int64) - begin
        start, length = self.pieces[_ranges(begin, counts)].astype(np.int64).T
        before = np.cumsum(length) - length  # tokens of all pieces before each
        heads = np.cumsum(counts) - counts  # the first piece of each row, among the pieces of the batch
        used = np.add.reduceat(length, heads) if len(rows) else length
        row_begins = np.arange(len(rows)) * self.seq_len - before[heads]
        position = np.arange(int(length.sum())) - np.repeat(before, length)
        source = np.repeat(start, length) + position
        place = np.repeat(np.repeat(row_begins, counts) + before, length) + position

        inputs = np.full(shape, self.pad, dtype=np.int64)
        labels = np.full(shape, IGNORE, dtype=np.int64)
        positions = np.arange(self.seq_len) - used[:, None]
        inputs.reshape(-1)[place] = self.tokens[source]
        targets = self.tokens[source + 1]
        labels.reshape(-1)[place] = (
            targets if self.mask is None else np.where(self.mask[source + 1], targets.astype(np.int64), IGNORE)
        )
        positions.reshape(-1)[place] = position
        return {"input_ids": inputs, "labels": labels, "position_ids": positions}

    def row_pieces(self, row: int) -> NDArray[np.int64]:
        """Return the pieces of a row, in order: (n, 2) int64, offset in `tokens` and number of targets."""
        return self.pieces[int(self.first[row]) : int(self.first[row + 1])].astype(np.int64)

    def documents(self, row: int) -> NDArray[np.int64]:
        """Return (n,) int64: the number of the document of each of the n pieces of a row, in order."""
        return self.document_of(self.row_pieces(row)[:, 0])

    def document_of(self, start: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the documents at these offsets of the stream; an END belongs to the next document."""
        return np.searchsorted(self.starts, start.astype(np.uint64), side="right") - 1


def _mapped(file: Path, dtype: str, count: int) -> NDArray[Any]:
    wanted = np.dtype(dtype)
    if not file.is_file() or file.stat().st_size != count * wanted.itemsize:
        raise UserError(f"{file} does not hold {count} numbers, as pack.json says; {remedy(file, OTHERWISE)}")
    # a plain array, because the class memmap looks for its file at every index
    return np.asarray(np.memmap(file, dtype=wanted, mode="r")) if count else np.zeros(0, dtype=wanted)


def _ranges(begin: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenate ranges: _ranges([5, 9], [2, 3]) is [5, 6, 9, 10, 11]."""
    return np.arange(int(counts.sum())) + np.repeat(begin - (np.cumsum(counts) - counts), counts)


@lru_cache(maxsize=2)
def row_order(rows: int, *, seed: int, epoch: int) -> NDArray[np.uint32]:
    """Return the permutation of an epoch, a pure function of the arguments: (rows,) uint32."""
    order = np.arange(rows, dtype=np.uint32)
    np.random.Generator(np.random.PCG64([seed, epoch])).shuffle(order)
    return order


def rows_of_step(rows: int, *, step: int, batch_rows: int, seed: int) -> NDArray[np.int64]:
    """Return the row numbers of optimizer step `step` (from 0): (batch_rows,). Epochs follow without a gap."""
    begin = step * batch_rows
    places = np.arange(begin, begin + batch_rows)
    epochs, within = places // rows, places % rows
    chosen = np.empty(batch_rows, dtype=np.int64)
    for epoch in np.unique(epochs):
        chosen[epochs == epoch] = row_order(rows, seed=seed, epoch=int(epoch))[within[epochs == epoch]]
    return chosen
