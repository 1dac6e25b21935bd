"""The section `safety_audit` of params.yaml, and what its sizes mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from codex_ml.core.config import Section


@dataclass(frozen=True)
class Sizes:
    """How much evidence the audit collects.

    Attributes:
        windows: windows of train text, and as many of held-out text.
        beams: windows of train text whose near-verbatim mass is bounded.
        references: canaries that were never planted, for ranks.
        documents: documents of train, and as many held-out ones, for membership inference.
        samples: generated texts.
    """

    windows: int
    beams: int
    references: int
    documents: int
    samples: int


SIZES = {
    "small": Sizes(windows=400, beams=32, references=1000, documents=400, samples=200),
    "full": Sizes(windows=2000, beams=200, references=10_000, documents=2000, samples=1000),
}


class SafetyAudit(Section):
    """`safety_audit`: what the model leaks, copies or emits."""

    size: Literal["small", "full"] = Field("small", description="full: five to ten times the evidence and the time")
    windows: int | None = Field(
        None, ge=1, le=1_000_000, description="Windows and documents of train text, and as many held-out; null: by size"
    )
    samples: int | None = Field(None, ge=1, le=1_000_000, description="Generated texts; null: by size")
    prefix_tokens: int = Field(50, ge=1, le=4096, description="Tokens of context that the model gets")
    suffix_tokens: int = Field(
        50, ge=1, le=4096, description="Tokens that the model must all reproduce to extract a window"
    )
    sample_tokens: int = Field(128, ge=1, le=4096, description="Tokens per generated text")
    batch_size: int = Field(16, ge=1, le=4096, description="Windows per forward pass")
    confidence: float = Field(0.95, ge=0.5, le=0.999, description="Of all intervals")
    keep_raw: bool = Field(False, description="true: samples.ndjson also holds the texts as the model wrote them")
    on_fail: Literal["warn", "stop"] = Field(
        "warn", description="stop: a verdict other than pass ends the pipeline with exit code 1"
    )

    @property
    def sizes(self) -> Sizes:
        """The numbers of the size, with those that are set in their place."""
        sizes = SIZES[self.size]
        if self.windows is not None:
            sizes = replace(sizes, windows=self.windows, documents=self.windows, beams=min(sizes.beams, self.windows))
        return sizes if self.samples is None else replace(sizes, samples=self.samples)
