"""Write a packed stream. Memory does not grow with the stream. `codex_ml.modeling.rows` describes the files.

Used by: pack.pack_splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError
from codex_ml.modeling.pack_files import PackedStream
from codex_ml.pack.best_fit import fit_spread
from codex_ml.pack.fitting import Example

WINDOW = 1 << 16  # pieces that are placed together; 1 MiB, and about 0.1 % of its rows are not full at its end
BLOCK = 1 << 20
TOGETHER = 1 << 16  # tokens per batch of documents that is written at once


@dataclass(frozen=True)
class StreamFormat:
    """How documents become a stream.

    Attributes:
        end: id that ends every document.
        dtype: dtype of the ids in the file.
        seq_len: targets per row.
        begin: id that begins every document; None means `end`.
        layout: "padded" puts one piece into each row.
    """

    end: int
    dtype: np.dtype[Any]
    seq_len: int
    begin: int | None = None
    layout: Literal["packed", "padded"] = "packed"

    @property
    def opening(self) -> int | None:
        """The id that begins a document; None if the preceding END serves as the begin token."""
        return None if self.begin == self.end else self.begin


def write_stream(folder: Path, name: str, examples: Iterable[Example], form: StreamFormat) -> PackedStream:
    """Write the files of one stream.

    Returns:
        the entry of the stream in pack.json.

    Raises:
        UserError: when an id does not fit `dtype`. No byte of the batch with this id is written.
    """
    documents = targets = cut = position = used = 0
    canaries: list[int] = []
    with ExitStack() as stack:
        tokens, starts = (stack.enter_context((folder / f"{name}.{part}").open("wb")) for part in ("bin", "starts"))
        table = stack.enter_context(_RowTable(folder, name, form.seq_len, form.layout))
        mask = stack.enter_context(_Mask(folder / f"{name}.mask"))
        starts.write(np.array([0], dtype="<u8").tobytes())
        mask.add(np.zeros(1, dtype=bool))
        for batch in _batches(examples):
            block = _Block.of(batch, end=form.end, opening=form.opening)
            block.refuse_large_ids(name, form.dtype)
            tokens.write(block.tokens.astype(form.dtype).tobytes())
            mask.add(block.trained)
            ends = position + np.cumsum(block.sizes)
            canary = np.array([example.canary for example in batch])
            table.add(ends - block.sizes + block.own, block.lengths, canary)
            canaries += (documents + np.flatnonzero(canary)).tolist()
            documents, position = documents + len(batch), int(ends[-1])
            targets, used = targets + block.targets, used + int(block.lengths.sum())
            cut += int((block.lengths > form.seq_len).sum())
            starts.write(ends.astype("<u8").tobytes())
        tokens.write(np.array([form.end], dtype=form.dtype).tobytes())
    return PackedStream(
        documents=documents,
        tokens=position + 1,
        targets=targets,
        rows=table.rows,
        pieces=table.pieces,
        cut_documents=cut,
        fill=round(used / (table.rows * form.seq_len), 6) if table.rows else None,
        masked=mask.handle is not None,
        canaries=canaries,
    )


def _batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Batches of examples, because a call of numpy costs as much time as a short document."""
    batch: list[Example] = []
    held = 0
    for example in examples:
        batch.append(example)
        held += len(example.ids) + 64  # so that a batch of empty examples ends too
        if held >= TOGETHER:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


@dataclass(frozen=True)
class _Block:
    """A batch of documents as in the stream: END, BOS if there is one, ids; one document after the other.

    Attributes:
        tokens: (n,) uint32.
        trained: (n,) bool, whether the next token (an id of the same document, or the END after it) is trained.
        sizes: (documents,) int64, tokens per document.
        own: (documents,) int64, offset of the first input in each document: 0 if it is the END, 1 if it is the BOS or
            the first token of a chat.
        lengths: (documents,) int64, targets per document.
    """

    tokens: NDArray[np.uint32]
    trained: NDArray[np.bool_]
    sizes: NDArray[np.int64]
    own: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, examples: Sequence[Example], *, end: int, opening: int | None) -> _Block:
        ids = np.array([len(example.ids) for example in examples], dtype=np.int64)
        chat = np.array([example.chat for example in examples], dtype=bool)
        opened = ~chat & (opening is not None)
        sizes = 1 + opened + ids
        heads = np.cumsum(sizes) - sizes
        tokens = np.empty(int(sizes.sum()), dtype=np.uint32)
        is_id = np.ones(len(tokens), dtype=bool)
        tokens[heads], is_id[heads] = end, False
        if opening is not None:
            tokens[heads[opened] + 1], is_id[heads[opened] + 1] = opening, False
        tokens[is_id] = np.concatenate([example.ids for example in examples])
        trained = np.ones(len(tokens), dtype=bool)
        for head, size, example in zip(heads.tolist(), sizes.tolist(), examples, strict=True):
            if example.trained is not None:
                trained[head + size - len(example.trained) : head + size] = example.trained
        return cls(tokens, trained, sizes, (chat | opened).astype(np.int64), sizes - opened - 2 * chat)

    @property
    def targets(self) -> int:
        """Number of trained targets. If `own` is 1, the token after the END is an input only and does not count."""
        first = np.cumsum(self.sizes) - self.sizes
        return int(self.trained.sum()) - int(self.trained[first[self.own > 0]].sum())

    def refuse_large_ids(self, name: str, dtype: np.dtype[Any]) -> None:
        """Refuse ids that do not fit `dtype`.

        Raises:
            UserError: names the largest id.
        """
        if len(self.tokens) and int(self.tokens.max()) > np.iinfo(dtype).max:
            raise UserError(f"{name}: token id {self.tokens.max()} does not fit {dtype}; use pack.dtype auto")


@dataclass
class _RowTable:
    """Writes the row table: full rows immediately, all other pieces in windows of `WINDOW` pieces."""

    folder: Path
    name: str
    seq_len: int
    layout: str
    rows: int = 0
    pieces: int = 0
    waiting: int = 0
    _held: list[NDArray[np.int64]] = field(default_factory=list)  # (pieces, 3) start, targets, canary: those that wait

    def __enter__(self) -> _RowTable:
        self._pieces: IO[bytes] = (self.folder / f"{self.name}.pieces").open("wb")
        self._rows: IO[bytes] = (self.folder / f"{self.name}.rows").open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._pieces, self._rows:
            if kind is None:
                self._place()
                self._rows.write(np.array([self.pieces], dtype="<u8").tobytes())

    def add(self, starts: NDArray[np.int64], lengths: NDArray[np.int64], canary: NDArray[np.bool_]) -> None:
        """Add documents.

        Args:
            starts: (n,) int64, offsets in the stream.
            lengths: (n,) int64, numbers of targets.
            canary: (n,) bool.
        """
        whole, rest = np.divmod(lengths, self.seq_len)
        places = np.cumsum(rest > 0)  # documents with a rest, up to and with each
        begin = 0
        while begin < len(starts):
            room = WINDOW - self.waiting + (int(places[begin - 1]) if begin else 0)
            stop = min(int(np.searchsorted(places, room)) + 1, len(starts))
            here = slice(begin, stop)
            self._write_whole(starts[here], whole[here])
            left = rest[here] > 0
            columns = [starts[here] + self.seq_len * whole[here], rest[here], canary[here].astype(np.int64)]
            pieces = np.stack(columns, axis=1)[left]
            self._held.append(pieces)
            self.waiting += len(pieces)
            if self.waiting == WINDOW:
                self._place()
            begin = stop

    def _write_whole(self, starts: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """Write rows that one document fills: (n,) int64 `counts` rows per document, from offsets `starts` on."""
        total = int(counts.sum())
        if total:
            number = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
            begins = np.repeat(starts, counts) + self.seq_len * number
            self._write(np.stack([begins, np.full(total, self.seq_len)], axis=1), np.ones(total, dtype=np.int64))

    def _place(self) -> None:
        if not self.waiting:
            return
        held = np.concatenate(self._held)
        self._held, self.waiting = [], 0
        pieces, canary = held[:, :2], held[:, 2] == 1
        rows = fit_spread(pieces[:, 1], canary, self.seq_len) if self.layout == "packed" else np.arange(len(pieces))
        self._write(pieces[np.argsort(rows, kind="stable")], np.bincount(rows))

    def _write(self, pieces: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self._rows.write((self.pieces + np.cumsum(counts) - counts).astype("<u8").tobytes())
        self._pieces.write(pieces.astype("<u8").tobytes())
        self.rows, self.pieces = self.rows + len(counts), self.pieces + len(pieces)


@dataclass
class _Mask:
    """Writes the loss mask. There is no file until the first target that is not trained."""

    path: Path
    size: int = 0
    handle: IO[bytes] | None = None

    def __enter__(self) -> _Mask:
        return self

    def __exit__(self, *error: object) -> None:
        if self.handle:
            self.handle.close()

    def add(self, trained: NDArray[np.bool_]) -> None:
        if self.handle is None and self.size and not trained.all():
            self.handle = self.path.open("wb")
            self.handle.write(b"\0")  # the first END
            for begin in range(1, self.size, BLOCK):
                self.handle.write(b"\1" * min(BLOCK, self.size - begin))
        if self.handle is not None:
            self.handle.write(trained.astype(np.uint8).tobytes())
        self.size += len(trained)
