"""Writing a packed stream: see `codex_ml.data.pack` for the files. Memory does not grow with the stream."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from codex_ml.data.best_fit import best_fit
from codex_ml.data.examples import Example
from codex_ml.errors import UserError

WINDOW = 1 << 16  # pieces that are placed together; 1 MiB, and rows left open at its end are some 0.1 % of it
BLOCK = 1 << 20


def write_stream(
    folder: Path,
    name: str,
    examples: Iterable[Example],
    *,
    end: int,
    begin: int | None = None,
    dtype: np.dtype[Any],
    seq_len: int,
    layout: Literal["packed", "padded"] = "packed",
) -> dict[str, Any]:
    """Write the files of one stream.

    Args:
        end: id that ends every document.
        begin: id that begins every document; None: `end`.
        layout: "padded" gives every piece a row of its own.

    Returns:
        for pack.json: documents; tokens, one END a document and the last one included; targets, those that are
        trained; rows; pieces; cut_documents, those longer than a row; fill, the share of the places of all rows that
        hold a token (None without rows); masked, whether there is a train.mask; canaries, numbers of documents.

    Raises:
        UserError: when an id does not fit `dtype`; no byte of its document is written.
    """
    mark = np.array([end], dtype=dtype).tobytes()
    opening = np.array([] if begin in (None, end) else [begin], dtype=np.uint32)
    documents = targets = cut = position = used = 0
    canaries: list[int] = []
    with ExitStack() as stack:
        tokens, starts = (stack.enter_context((folder / f"{name}.{part}").open("wb")) for part in ("bin", "starts"))
        table = stack.enter_context(_Table(folder, name, seq_len, layout))
        mask = stack.enter_context(_Mask(folder / f"{name}.mask"))
        starts.write(np.array([0], dtype="<u8").tobytes())
        mask.add(np.zeros(1, dtype=bool))
        for example in examples:
            ids = np.concatenate([opening, example.ids]) if len(opening) and not example.chat else example.ids
            if len(ids) and int(ids.max()) > np.iinfo(dtype).max:
                raise UserError(f"{name}: token id {ids.max()} does not fit {dtype}; use pack.dtype auto")
            tokens.write(mark + ids.astype(dtype).tobytes())
            trained = np.ones(len(ids) + 1, dtype=bool)
            if example.trained is not None:
                trained[len(ids) - len(example.ids) :] = example.trained
            mask.add(trained)
            own = int(example.chat or len(opening) > 0)  # the first input is the document's own, not the END before it
            length = len(ids) + 1 - own - int(example.chat)
            table.add(position + own, length)
            if example.canary:
                canaries.append(documents)
            documents, position = documents + 1, position + len(ids) + 1
            targets, used, cut = targets + int(trained[own:].sum()), used + length, cut + (length > seq_len)
            starts.write(np.array([position], dtype="<u8").tobytes())
        tokens.write(mark)
    return {
        "documents": documents,
        "tokens": position + 1,
        "targets": targets,
        "rows": table.rows,
        "pieces": table.pieces,
        "cut_documents": cut,
        "fill": round(used / (table.rows * seq_len), 6) if table.rows else None,
        "masked": mask.handle is not None,
        "canaries": canaries,
    }


@dataclass
class _Table:
    """The row table while it is written: full rows at once, the rest in windows of `WINDOW` pieces."""

    folder: Path
    name: str
    seq_len: int
    layout: str
    rows: int = 0
    pieces: int = 0
    waiting: list[tuple[int, int]] = field(default_factory=list)

    def __enter__(self) -> _Table:
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

    def add(self, start: int, length: int) -> None:
        """A document of `length` targets that begins at `start` of the stream."""
        whole = length // self.seq_len
        if whole:
            begins = start + self.seq_len * np.arange(whole)
            self._write(np.stack([begins, np.full(whole, self.seq_len)], axis=1), np.ones(whole, dtype=np.int64))
        if rest := length - whole * self.seq_len:
            self.waiting.append((start + whole * self.seq_len, rest))
            if len(self.waiting) == WINDOW:
                self._place()

    def _place(self) -> None:
        if not self.waiting:
            return
        pieces = np.array(self.waiting, dtype=np.int64)
        self.waiting = []
        rows = best_fit(pieces[:, 1], self.seq_len) if self.layout == "packed" else np.arange(len(pieces))
        self._write(pieces[np.argsort(rows, kind="stable")], np.bincount(rows))

    def _write(self, pieces: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self._rows.write((self.pieces + np.cumsum(counts) - counts).astype("<u8").tobytes())
        self._pieces.write(pieces.astype("<u8").tobytes())
        self.rows, self.pieces = self.rows + len(counts), self.pieces + len(pieces)


@dataclass
class _Mask:
    """The mask while it is written: nothing, until the first target that is not trained."""

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
