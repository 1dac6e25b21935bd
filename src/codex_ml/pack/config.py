"""The section `pack` of params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from codex_ml.core.config import Positive, Section


class Canaries(Section):
    """`pack.canaries`: invented secrets in the train stream, for experiments on memorisation."""

    repetitions: tuple[Positive, ...] = Field((), description="Copies per canary, such as [1, 4, 16]; [] inserts none")
    each: Positive = Field(8, description="Different canaries per number of repetitions")
    controls: Positive = Field(32, description="Canaries that are never inserted, for comparison")


class Pack(Section):
    """`pack`: the exact token stream that step N sees."""

    seq_len: int = Field(256, ge=8, description="Tokens per row")
    dtype: Literal["auto", "uint16", "uint32"] = Field("auto", description="auto: uint16 up to 65,536 tokens")
    layout: Literal["packed", "padded"] = Field(
        "packed", description="packed: many documents per row, masked from each other; padded: one per row"
    )
    loss_on: Literal["completions", "all"] = Field(
        "completions", description="Tokens with a loss in records with a prompt or messages; plain text: all tokens"
    )
    too_long: Literal["cut", "drop", "fail"] = Field(
        "cut", description="Records longer than a row; cut: the prompt on its left, then the completion on its right"
    )
    bad_chats: Literal["fail", "drop"] = Field(
        "fail",
        description="Chats that the chat template cannot write unchanged: fail names up to 20; drop lists each in "
        "data/packed/records.ndjson and continues",
    )
    canaries: Canaries = Canaries()
