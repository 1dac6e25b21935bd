"""The JSON of `codex-ml generate`: what was asked, what the policy decided, what the model wrote, and how fast."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Said = Literal["allow", "redact", "refuse", "not screened"]


class _GeneratedPart(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ScreenedPrompt(_GeneratedPart):
    """What the policy decided about the prompt."""

    decision: Said
    tokens: int = Field(description="Tokens that the model read, with the begin token or the chat template")


class GeneratedAnswer(_GeneratedPart):
    """One text that the model wrote."""

    sample: int = Field(description="Number of the sample, from 0")
    text: str = Field(description="The text after the policy; empty if it is refused")
    finished: Literal["end", "stop", "length", "interrupted"] = Field(
        description="end: the model ended it; stop: a stop string; length: --max-tokens; interrupted: the policy did"
    )
    tokens: int = Field(description="Tokens that the model wrote")
    decision: Said
    rules: dict[str, int] = Field(description="How many values of each rule of the policy were replaced or refused")


class GeneratedSampling(_GeneratedPart):
    """How the tokens were drawn."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop: list[str]


class GenerateReport(_GeneratedPart):
    """The whole of `codex-ml generate --json`."""

    model: str = Field(description="The folder or file as it was named")
    model_sha256: str
    base_sha256: str | None = Field(
        description="Digest of the model that the adapter belongs to; null for a whole model"
    )
    policy_sha256: str | None = Field(description="Digest of data/policy.yaml; null with --no-policy")
    seed: int
    sampling: GeneratedSampling
    prompt: ScreenedPrompt
    answers: list[GeneratedAnswer]
    seconds_to_first_token: float | None = Field(description="null where several texts were written at once")
    tokens_per_second: float
