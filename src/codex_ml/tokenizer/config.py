"""The section `tokenizer` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from codex_ml.core.config import BasePath, Section
from codex_ml.core.plugins import BuiltInOr

BUILT_IN = ("byte_bpe", "unigram", "wordpiece", "sentencepiece_bpe", "sentencepiece_unigram", "whitespace", "local")


class Tokenizer(Section):
    """`tokenizer`: how text becomes tokens."""

    kind: Annotated[str, BuiltInOr("tokenizers", BUILT_IN)] = Field(
        "byte_bpe",
        description="byte_bpe: byte-level BPE as in GPT-2, lossless on any text; unigram: byte-level Unigram; "
        "wordpiece: as in BERT; sentencepiece_bpe, sentencepiece_unigram: with byte fallback, lossless except for "
        "U+2581, its sign for a space; whitespace: words; "
        "local: the tokenizer in path; or a tokenizer of an installed package",
    )
    vocab_size: int = Field(
        4096, ge=258, le=2**24, description="Number of tokens, with bytes and special tokens; local has its own"
    )
    path: BasePath = Field("", description="local: folder, SentencePiece model or GGUF file below models/base")
    add_pieces: int = Field(
        0,
        ge=0,
        le=2**20,
        description="local: pieces learnt from train that a byte-level BPE gets after its own; old ids stay",
    )
    special_tokens: tuple[str, ...] = Field(
        (), max_length=10_000, description="More special tokens; text never becomes one of them"
    )
    chat_template: Literal["none", "chatml"] = Field(
        "none", description="How chat messages become tokens; a local tokenizer keeps its own"
    )

    @field_validator("special_tokens")
    @classmethod
    def _distinct(cls, tokens: tuple[str, ...]) -> tuple[str, ...]:
        if "" in tokens or len(set(tokens)) != len(tokens):
            raise ValueError("special tokens must be distinct texts, not empty")
        return tokens

    @model_validator(mode="after")
    def _path_belongs_to_local(self) -> Tokenizer:
        if (self.kind == "local") != bool(self.path):
            raise ValueError("kind local needs a path; the other kinds are trained and must have none")
        if self.add_pieces and self.kind != "local":
            raise ValueError(
                f"add_pieces {self.add_pieces} is for kind local; kind {self.kind} is trained: raise vocab_size instead"
            )
        return self

    @property
    def plugins(self) -> dict[str, tuple[str, ...]]:
        """Kind of plug-ins -> what the section names of it."""
        return {"tokenizers": () if self.kind in BUILT_IN else (self.kind,)}
