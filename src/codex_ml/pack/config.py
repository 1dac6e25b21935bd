"""The section `pack` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from codex_ml.core.bounds import MOST_CANARIES, MOST_PLANTED, MOST_TOKENS
from codex_ml.core.config import Section
from codex_ml.core.plugins import BuiltInOr
from codex_ml.modeling.pack_files import TEMPLATES

CanaryCount = Annotated[int, Field(gt=0, le=MOST_CANARIES)]


class Canaries(Section):
    """`pack.canaries`: invented secrets in the train stream, with which the audit measures memorisation."""

    plant: Literal["sample", "always", "never"] = Field(
        "sample", description="sample: only where all train documents are of the sample corpus"
    )
    design: Literal["random", "unlikely"] = Field(
        "random", description="Symbols of a secret: random letters and digits, or tokens that the corpus uses least"
    )
    repetitions: tuple[CanaryCount, ...] = Field(
        (1, 4, 16), min_length=1, max_length=100, description="How often a canary is planted"
    )
    each: tuple[CanaryCount, ...] = Field((48, 12, 8), description="Different canaries per entry of repetitions")
    controls: CanaryCount = Field(32, description="Canaries that are never planted, for comparison")

    @model_validator(mode="after")
    def _one_entry_per_repetition(self) -> Canaries:
        if len(self.each) != len(self.repetitions):
            raise ValueError(
                f"pack.canaries.each has {len(self.each)} entries and pack.canaries.repetitions has "
                f"{len(self.repetitions)}; give one number of canaries per number of repetitions"
            )
        if len(set(self.repetitions)) < len(self.repetitions):
            raise ValueError("pack.canaries.repetitions names a number twice; raise its entry of each instead")
        planted = sum(times * each for times, each in zip(self.repetitions, self.each, strict=True))
        if planted > MOST_PLANTED:
            raise ValueError(
                f"pack.canaries plants {planted} copies (repetitions x each), at most {MOST_PLANTED} are allowed; "
                "lower repetitions or each"
            )
        return self


class Pack(Section):
    """`pack`: the exact token stream that step N sees."""

    seq_len: int = Field(256, ge=8, le=MOST_TOKENS, description="Tokens per row")
    dtype: Literal["auto", "uint16", "uint32"] = Field("auto", description="auto: uint16 up to 65,536 tokens")
    layout: Literal["packed", "padded"] = Field(
        "packed", description="packed: many documents per row, masked from each other; padded: one per row"
    )
    loss_on: Literal["completions", "all"] = Field(
        "completions", description="Tokens with a loss in records with a prompt or messages; plain text: all tokens"
    )
    template: Annotated[str, BuiltInOr("templates", TEMPLATES)] = Field(
        "plain",
        description="How a record with a prompt becomes text; plain: as it is; alpaca; chat: through the tokenizer's "
        "chat template; or a template of an installed package",
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

    @property
    def plugins(self) -> dict[str, tuple[str, ...]]:
        """Kind of plug-ins -> what the section names of it."""
        return {"templates": () if self.template in TEMPLATES else (self.template,)}

    def with_canaries(self, *, planted: bool) -> Pack:
        """The same settings, with `canaries.plant` decided."""
        canaries = self.canaries.model_copy(update={"plant": "always" if planted else "never"})
        return self.model_copy(update={"canaries": canaries})
