"""Contracts of the files in which `pack` describes the packed rows.

Used by: pack, which writes them; train, safety_audit, `codex-ml pack` and report, which read them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from codex_ml.core.contract import Contract

LossOn = Literal["completions", "all"]

RECORDS = "records.ndjson"  # of data/packed: the records that were cut or dropped


class PromptTemplate(Contract):
    """How a record with a prompt and a completion becomes text; see `codex_ml.modeling.prompt_template`.

    Attributes:
        prompt: text before the completion; `{instruction}` stands for the prompt of the record.
        prompt_with_input: the same for a record with an input, `{input}`; "": `prompt` for all records, whose
            `{instruction}` is then the whole prompt.
        chat: whether the record becomes a question and an answer, which the tokenizer's chat template writes.
    """

    name: str
    prompt: str = "{instruction}"
    prompt_with_input: str = ""
    chat: bool = False


TEMPLATES = ("plain", "alpaca", "chat")  # built in
PLAIN = PromptTemplate(name="plain")


class PackedStream(Contract):
    """The token stream of one split; see `codex_ml.modeling.rows`.

    Attributes:
        tokens: length of the stream: one END before each document and a last one are included.
        targets: tokens that are trained as targets.
        cut_documents: documents that are longer than a row.
        fill: share of the positions of all rows that hold a token; None without rows.
        masked: whether the stream has a mask file.
        canaries: numbers of the documents that are canaries, ascending.
    """

    documents: int
    tokens: int
    targets: int
    rows: int
    pieces: int
    cut_documents: int
    fill: float | None
    masked: bool
    canaries: list[int]


class Packed(Contract):
    """data/packed/pack.json.

    Attributes:
        dtype: of the token ids, as numpy names it.
        seq_len: tokens per row.
        tokenizer_kind: `tokenizer.kind` of params.yaml, with which the tokenizer was made.
        begin, end, pad: ids of the tokens that begin and end a document, and of the padding.
        loss_on: `pack.loss_on`, the tokens of a record that are trained.
        turn_ends: ids of the tokens that end a turn of a chat; absent where there are none.
        added_pieces: of each piece that tokenizer.add_pieces added, the old ids; these pieces have the last ids of the
            vocabulary. Absent where there are none.
        template: how records with a prompt became text; absent where they are as they are.
        streams: by split.
    """

    written_by = "pack"

    dtype: str
    seq_len: int = Field(gt=0)
    layout: str
    tokenizer_kind: str
    vocab_size: int
    begin: int
    end: int
    pad: int
    loss_on: LossOn
    turn_ends: list[int] = Field(default_factory=list)
    template: PromptTemplate = PLAIN
    added_pieces: list[list[int]] = Field(default_factory=list)
    streams: dict[str, PackedStream]


class StreamDetails(Contract):
    """What is said of one stream; `records` counts by reason those that were cut or dropped."""

    documents: int
    tokens: int
    targets: int
    rows: int
    cut_documents: int
    fill: float | None
    records: dict[str, int]


class CanaryCounts(Contract):
    """Their design, different canaries, inserted documents, and secrets that were never inserted."""

    design: str
    different: int
    inserted: int
    controls: int


class PackDetails(Contract):
    """reports/pack/details.json; without canaries the key is absent."""

    written_by = "pack"

    train: StreamDetails
    val: StreamDetails
    test: StreamDetails
    canaries: CanaryCounts | None = None
