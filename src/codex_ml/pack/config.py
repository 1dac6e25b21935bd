"""The section `pack` of params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from codex_ml.core.config import Positive, Section


class Canaries(Section):
    """`pack.canaries`: invented secrets put into the train stream, for experiments on memorisation."""

    repetitions: tuple[Positive, ...] = Field(
        (), description="How often each is inserted, such as [1, 4, 16]; [] is off"
    )
    each: Positive = Field(8, description="Different canaries for each number of repetitions")
    controls: Positive = Field(32, description="Canaries that are never inserted, to compare with")


class Pack(Section):
    """`pack`: the exact token stream that step N sees."""

    seq_len: int = Field(256, ge=8, description="Tokens a row")
    dtype: Literal["auto", "uint16", "uint32"] = Field("auto", description="auto: uint16 up to 65,536 tokens")
    layout: Literal["packed", "padded"] = Field(
        "packed", description="packed: many documents a row, none sees another; padded: one a row"
    )
    loss_on: Literal["completions", "all"] = Field(
        "completions", description="Of records with a prompt or chat messages; plain text always counts whole"
    )
    too_long: Literal["cut", "drop", "fail"] = Field(
        "cut", description="Records longer than a row: cut the prompt on its left, then the completion on its right"
    )
    bad_chats: Literal["fail", "drop"] = Field(
        "fail",
        description="Chats that the chat template cannot write as they are: fail names up to 20; drop lists each in "
        "data/packed/records.ndjson and goes on",
    )
    canaries: Canaries = Canaries()
