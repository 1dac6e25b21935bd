"""The packed token stream: documents end to end, cut into rows by position, so that step N can be looked up.

    train.bin       token ids, uint16 or uint32 little-endian: END, document, END, document, ..., END
    train.starts    where the END in front of each document stands, and the last END; uint64
    pack.json       what is in it

END begins its document, so that the first token is predicted from it alone, and it is the target of the last token of
the document before. A row is `seq_len` inputs and their targets: every token but the first END is a target exactly
once an epoch, so each document's end is learnt once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.errors import UserError
from codex_ml.io import read_json

IGNORE = -100  # label without loss, as in torch.nn.functional.cross_entropy


def stream_dtype(vocab_size: int, wanted: str = "auto") -> np.dtype[Any]:
    """uint16 while the largest id is at most 65,535, else uint32.

    Raises:
        UserError: when `wanted` is uint16 and the ids do not fit.
    """
    if wanted == "uint16" and vocab_size > 2**16:
        raise UserError(f"pack.dtype uint16 holds ids up to 65535; the tokenizer has {vocab_size} tokens: use auto")
    small = wanted == "uint16" or (wanted == "auto" and vocab_size <= 2**16)
    return np.dtype("<u2" if small else "<u4")


def write_stream(
    folder: Path, name: str, documents: Iterable[NDArray[np.uint32]], *, end: int, dtype: np.dtype[Any]
) -> dict[str, int]:
    """Write one stream; memory does not grow with it.

    Returns:
        {"documents": ..., "tokens": ...}; tokens include one END a document and the last one.
    """
    starts = [0]
    mark = np.array([end], dtype=dtype).tobytes()
    with (folder / f"{name}.bin").open("wb") as handle:
        for ids in documents:
            if len(ids) and int(ids.max()) > np.iinfo(dtype).max:
                raise UserError(f"{name}: token id {ids.max()} does not fit {dtype}; use pack.dtype auto")
            handle.write(mark + ids.astype(dtype).tobytes())
            starts.append(starts[-1] + len(ids) + 1)
        handle.write(mark)
    (folder / f"{name}.starts").write_bytes(np.array(starts, dtype="<u8").tobytes())
    return {"documents": len(starts) - 1, "tokens": starts[-1] + 1}


@dataclass(frozen=True)
class Rows:
    """Random access to the rows of one stream, memory-mapped.

    Attributes:
        tokens: (n,) the stream.
        starts: (documents + 1,) uint64.
        seq_len: tokens a row.
        pad: id that fills the last row.
    """

    tokens: NDArray[Any]
    starts: NDArray[np.uint64]
    seq_len: int
    pad: int

    @classmethod
    def open(cls, folder: Path, name: str) -> Rows:
        """Map `folder/name.bin`.

        Raises:
            UserError: when the files are missing or do not fit together.
        """
        about = read_json(folder / "pack.json")
        file, starts_file = folder / f"{name}.bin", folder / f"{name}.starts"
        dtype, expected = np.dtype(about["dtype"]), about["streams"][name]["tokens"]
        if not file.is_file() or file.stat().st_size != expected * dtype.itemsize:
            raise UserError(
                f"{file} does not hold the {expected} tokens that pack.json tells; `dvc repro pack` makes it"
            )
        tokens = np.memmap(file, dtype=dtype, mode="r")
        starts = np.fromfile(starts_file, dtype="<u8") if starts_file.is_file() else np.zeros(0, dtype="<u8")
        if len(starts) != about["streams"][name]["documents"] + 1 or starts[-1] != expected - 1:
            raise UserError(f"{starts_file} does not belong to {file}; `dvc repro pack` makes both")
        return cls(tokens, starts, about["seq_len"], about["pad"])

    def __len__(self) -> int:
        return -(-(len(self.tokens) - 1) // self.seq_len)

    def batch(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """The rows with these numbers.

        Returns:
            input_ids, labels, position_ids: each (len(rows), seq_len) int64. Positions restart at each document and at
            each row; labels are shifted already, IGNORE where the last row has no token left.
        """
        parts = [self._row(int(row)) for row in rows]
        return {key: np.stack([part[key] for part in parts]) for key in parts[0]}

    def documents(self, row: int) -> list[int]:
        """Numbers of the documents in a row."""
        begin, end = row * self.seq_len, min((row + 1) * self.seq_len, len(self.tokens) - 1)
        first, last = np.searchsorted(self.starts, [begin, end - 1], side="right") - 1
        return list(range(int(first), int(last) + 1))

    def _row(self, row: int) -> dict[str, NDArray[np.int64]]:
        begin = row * self.seq_len
        window = np.full(self.seq_len + 1, -1, dtype=np.int64)
        piece = self.tokens[begin : begin + self.seq_len + 1]
        window[: len(piece)] = piece
        inputs, labels = window[:-1].copy(), window[1:].copy()
        labels[labels < 0] = IGNORE
        filler = (inputs < 0) | (np.arange(self.seq_len) >= len(piece) - 1)  # a token without a target is filler too
        inputs[inputs < 0] = self.pad
        where = np.arange(begin, begin + self.seq_len)
        document = np.searchsorted(self.starts, where, side="right") - 1
        positions = where - np.maximum(self.starts[document].astype(np.int64), begin)
        first = np.argmax(filler) if filler.any() else self.seq_len
        positions[first:] = np.arange(self.seq_len - first)  # filler is a segment of its own
        return {"input_ids": inputs, "labels": labels, "position_ids": positions}


@lru_cache(maxsize=4)
def row_order(rows: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The permutation of an epoch: a pure function of its arguments, whatever ran before."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(rows)


def rows_from(rows: int, *, begin: int, count: int, seed: int) -> NDArray[np.int64]:
    """Row numbers of the places `begin` to `begin + count`: (count,). Epochs follow each other without a gap."""
    places = np.arange(begin, begin + count)
    epochs, within = places // rows, places % rows
    orders = {int(epoch): row_order(rows, seed=seed, epoch=int(epoch)) for epoch in np.unique(epochs)}
    return np.array([orders[int(epoch)][place] for epoch, place in zip(epochs, within, strict=True)], dtype=np.int64)


def rows_of_step(rows: int, *, step: int, batch_rows: int, seed: int) -> NDArray[np.int64]:
    """Row numbers of optimizer step `step` (from 0), where each step had `batch_rows`."""
    return rows_from(rows, begin=step * batch_rows, count=batch_rows, seed=seed)
