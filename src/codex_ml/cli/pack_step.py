"""What optimizer step N sees, in words: the rows, their documents, and which tokens are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from codex_ml.cli.param_rules import Params
from codex_ml.core.errors import UserError
from codex_ml.documents.document import opened
from codex_ml.modeling.canary_files import hide_canaries
from codex_ml.modeling.rows import Rows, rows_of_step
from codex_ml.modeling.stream_documents import StreamDocuments

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

PACKED, TRAIN = Path("data/packed"), Path("data/splits/train.parquet")


@dataclass(frozen=True)
class TokenRun:
    """Neighbouring tokens of a piece: either all are trained as targets, or none is.

    Attributes:
        ids: token ids; empty for a canary, whose text has its draw number in place of the secret.
    """

    trained: bool
    ids: list[int]
    text: str


@dataclass(frozen=True)
class Piece:
    """A document, or the part of it that is in a row.

    Attributes:
        document: its number in the stream.
        source, path, id: as in `codex_ml.documents.document.Document`; source is "canary" for an invented one.
        begin: offset of its first token; 0 is the END token before the document.
        targets: number of tokens that the piece predicts.
        runs: the first input token and all targets, in order.
    """

    document: int
    source: str
    path: str
    id: str
    begin: int
    targets: int
    runs: list[TokenRun]


@dataclass(frozen=True)
class Row:
    """One row of the train stream.

    Attributes:
        row: its number in the stream.
        used: how many of its places hold a token.
        trained: how many of its targets are trained.
        pieces: what is in it, in order.
    """

    row: int
    used: int
    trained: int
    pieces: list[Piece]


def numbers_of_step(rows: Rows, params: Params, step: int) -> list[int]:
    """Row numbers of a step, counted from 1 as in the curves.

    Raises:
        UserError: when training has no such step, or the stream has no rows.
    """
    if not 1 <= step <= params.train.max_steps:
        raise UserError(f"there is no step {step}; steps go from 1 to {params.train.max_steps} (train.max_steps)")
    if not len(rows):
        raise UserError("the packed train stream has no row; add documents or lower pack.seq_len")
    batch_rows = params.train.micro_batch_size * params.train.accumulation
    return rows_of_step(len(rows), step=step - 1, batch_rows=batch_rows, seed=params.seed).tolist()


def describe(rows: Rows, number: int, tokenizer: TextTokenizer, origin: Origins) -> Row:
    """The row with this number.

    Raises:
        UserError: when there is no such row.
    """
    if not 0 <= number < len(rows):
        raise UserError(f"there is no row {number}; the train stream has rows 0 to {len(rows) - 1}")
    pieces = [
        Piece(
            document,
            *origin.of(document),
            begin - int(rows.starts[document]),
            length,
            _runs(rows, begin, length, tokenizer, origin.hide if document in origin.canaries else None),
        )
        for document, (begin, length) in zip(
            rows.documents(number).tolist(), rows.row_pieces(number).tolist(), strict=True
        )
    ]
    trained = int((rows.batch(np.array([number]))["labels"] >= 0).sum())
    return Row(number, sum(piece.targets for piece in pieces), trained, pieces)


def _runs(
    rows: Rows, begin: int, length: int, tokenizer: TextTokenizer, hide: Callable[[str], str] | None
) -> list[TokenRun]:
    ids = rows.tokens[begin : begin + length + 1].astype(np.uint32)
    trained = np.ones(length + 1, dtype=bool) if rows.mask is None else rows.mask[begin : begin + length + 1] == 1
    trained[0] = False  # no target of this piece
    runs, place = [], 0
    for is_trained, group in groupby(trained.tolist()):
        part = ids[place : place + len(list(group))]
        text = tokenizer.decode(part)
        runs.append(TokenRun(is_trained, [], hide(text)) if hide else TokenRun(is_trained, part.tolist(), text))
        place += len(part)
    return runs


class Origins:
    """Where documents of the train stream come from: a row of the split, or a canary. Dropped rows are skipped.

    Attributes:
        canaries: numbers of the documents that are canaries.
        hide: replaces the secret of a canary in a text.
    """

    def __init__(self, rows: Rows, split: Path, packed: Path) -> None:
        self.canaries, self.hide = frozenset(rows.canaries), hide_canaries(lambda text: text, packed)
        self._documents, self._split = StreamDocuments.open(rows, packed), split

    def of(self, document: int) -> tuple[str, str, str]:
        """(source, path, id) of a document of the stream.

        Raises:
            UserError: when the split has changed since it was packed.
        """
        number = self._documents.row_of(document)
        return ("canary", "", "") if number is None else self._read(number)

    def _read(self, number: int) -> tuple[str, str, str]:
        with opened(self._split) as file:
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if number < count:
                    table = file.read_row_group(group, columns=["source", "path", "id"]).slice(number, 1)
                    row = table.to_pylist()[0]
                    return row["source"], row["path"], row["id"]
                number -= count
        raise UserError(f"{self._split} has fewer documents than the packed stream; `dvc repro pack` makes it anew")


def open_train() -> tuple[Rows, Origins]:
    """The train stream of this repository, and where its documents come from."""
    rows = Rows.open(PACKED, "train")
    return rows, Origins(rows, TRAIN, PACKED)
