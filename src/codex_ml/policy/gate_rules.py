"""The gates of data/policy.yaml: which numbers of the audit are judged, and by which limits.

Used by: rules.py, which reads them; safety_audit, which decides them.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# No control character, line end or mark that turns the direction of writing: gates and reasons stand in logs and pages.
HIDDEN = r"\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069"
ONE_LINE = rf"^[^{HIDDEN}]*[^\s{HIDDEN}][^{HIDDEN}]*$"

Compared = Literal["value", "low", "high", "findings"]


class GateRule(BaseModel):
    """One gate. It fails where what it compares is beyond `fail`, and warns where it is beyond `warn`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    number: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$")] = Field(
        description="The number of the audit that is judged, such as memorisation.excess"
    )
    title: Annotated[str, Field(max_length=200)] = Field(description="What must hold, for people")
    compare: Compared = Field(
        "value",
        description="value; low or high: an end of its interval; findings: how many findings nobody has accepted",
    )
    limit: Literal["at_most", "at_least"] = Field("at_most", description="Which side of the limits is allowed")
    warn: float | None = Field(None, allow_inf_nan=False, description="Beyond this the gate warns")
    fail: float | None = Field(None, allow_inf_nan=False, description="Beyond this the gate fails")
    required: bool = Field(
        False, description="Whether the audit is invalid where the number was not measured; else the gate is skipped"
    )

    @field_validator("title")
    @classmethod
    def _is_one_line(cls, title: str) -> str:
        if not re.fullmatch(ONE_LINE, title):
            raise ValueError("expected one line of text, without control characters")
        return title

    @model_validator(mode="after")
    def _has_limits(self) -> GateRule:
        if self.warn is None and self.fail is None:
            raise ValueError("`warn` or `fail` must be given")
        if self.required and self.fail is None:
            raise ValueError("a required gate needs `fail`; one that only warns cannot stop a model")
        if self.compare == "findings" and self.limit == "at_least":
            raise ValueError("findings can only be limited with `at_most`; fewer findings are never worse")
        if self.warn is not None and self.fail is not None:
            wrong = self.warn > self.fail if self.limit == "at_most" else self.warn < self.fail
            if wrong:
                raise ValueError(f"`warn` {self.warn} is beyond `fail` {self.fail}, so it would never warn")
        return self

    @property
    def strongest(self) -> float:
        """The limit that must be proven: `fail`, or `warn` of a gate that only warns."""
        limit = self.fail if self.fail is not None else self.warn
        assert limit is not None
        return limit

    @property
    def text(self) -> str:
        """The limits as text: "low end of the interval at most 0.01, warns from 0.001"."""
        what = {"value": "value", "low": "low end of the interval", "high": "high end of the interval"}
        name, side = what.get(self.compare, "findings"), self.limit.replace("_", " ")
        parts = [f"{name} {side} {self.fail:g}"] if self.fail is not None else []
        if self.warn is not None:
            parts.append(f"warns beyond {self.warn:g}" if parts else f"{name} {side} {self.warn:g}, else a warning")
        return ", ".join(parts)

    def beyond(self, compared: float, limit: float | None) -> bool:
        """Whether a number is on the wrong side of a limit; a missing limit is never passed."""
        if limit is None:
            return False
        return compared > limit if self.limit == "at_most" else compared < limit
