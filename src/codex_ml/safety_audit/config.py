"""The section `safety_audit` of params.yaml."""

from __future__ import annotations

from pydantic import Field

from codex_ml.core.config import Section


class SafetyAudit(Section):
    """`safety_audit`: what the model leaks, copies or emits."""

    windows: int = Field(200, ge=20, description="Windows of train text, and as many of test text as a control")
    prefix_tokens: int = Field(50, ge=1, description="Tokens of context that the model gets")
    suffix_tokens: int = Field(50, ge=1, description="Tokens that the model must all reproduce to extract a window")
    samples: int = Field(32, ge=1, description="Generated texts that are scanned")
    sample_tokens: int = Field(128, ge=1, description="Tokens per generated text")
    enforce: bool = Field(False, description="true: a failed gate ends the pipeline with exit code 1")
