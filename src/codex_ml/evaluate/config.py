"""`evaluate`, `safety_audit` and `report`: what is measured and shown."""

from __future__ import annotations

from pydantic import Field

from codex_ml.core.config import Positive, Section


class Evaluate(Section):
    """`evaluate`: how good, with what confidence."""

    bootstrap: int = Field(1000, ge=100, le=1_000_000, description="Resamples of documents for the intervals")
    confidence: float = Field(0.95, gt=0.5, lt=1, allow_inf_nan=False)
    batch_size: Positive = Field(8, description="Windows a forward pass; another number gives other last bits")


class SafetyAudit(Section):
    """`safety_audit`: what the model leaks, copies or emits."""

    windows: int = Field(200, ge=20, description="Windows of train text, and as many of test text as control")
    prefix_tokens: int = Field(50, ge=1, description="Tokens of context given")
    suffix_tokens: int = Field(50, ge=1, description="Tokens the model must reproduce, all of them")
    samples: int = Field(32, ge=1, description="Generated texts that are scanned")
    sample_tokens: int = Field(128, ge=1, description="Tokens a generated text")
    enforce: bool = Field(False, description="true: a failed gate ends the pipeline with exit code 1")


class Report(Section):
    """`report`: one page for people."""

    title: str = Field("codex-ml sample model", min_length=1, max_length=200)
