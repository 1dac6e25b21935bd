"""The section `evaluate` of params.yaml."""

from __future__ import annotations

from pydantic import Field

from codex_ml.core.config import Positive, Section


class Evaluate(Section):
    """`evaluate`: scores on the test split, and their confidence intervals."""

    bootstrap: int = Field(1000, ge=100, le=1_000_000, description="Resamples of documents for the intervals")
    confidence: float = Field(0.95, gt=0.5, lt=1, allow_inf_nan=False)
    batch_size: Positive = Field(8, description="Windows per forward pass; the number affects the last bits")
