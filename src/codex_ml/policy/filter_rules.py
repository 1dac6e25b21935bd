"""The section `filters` of data/policy.yaml: what happens at run time to a text that holds what a rule names.

A rule's `action` is about documents: a paper that quotes an attack may be trained on. A prompt that is an attack is
another matter, so the filters have a say of their own, by kind. Used by: rules.py, which reads it; filters.py.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Decision = Literal["allow", "redact", "refuse"]
OfValue = Literal["redact", "refuse"]  # a model's own text never shows a value that the policy names


class _Section(BaseModel):
    """Unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class InputRules(_Section):
    """What happens to a text that a model is about to read, by the kind of what it holds."""

    secret: Decision = Field("redact", description="A credential in a prompt")
    personal: Decision = Field("redact", description="Data about a person in a prompt")
    injection: Decision = Field("refuse", description="An order to drop or reveal the instructions in a prompt")


class OutputRules(_Section):
    """What happens to a text that a model wrote. No value may pass, so `allow` is for injections only."""

    secret: OfValue = Field("redact", description="A credential in an answer")
    personal: OfValue = Field("redact", description="Data about a person in an answer")
    injection: Decision = Field("allow", description="An order to a model in an answer, which an agent may read next")


class FilterRules(_Section):
    """`filters`: allow a text, redact it, or refuse it."""

    input: InputRules = InputRules()
    output: OutputRules = OutputRules()
