"""The providers of data/policy.yaml: one line per kind of token, which becomes an ordinary rule.

Used by: rules.py, which puts these rules before the others, and planted.py, which invents their values.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from codex_ml.policy.token_shapes import literals, pattern, pieces
from codex_ml.policy.validators import VALIDATORS

Action = Literal["allow", "redact", "block"]
Severity = Literal["low", "medium", "high", "critical"]

MIN_PREFIX = 3  # characters; a shorter prefix occurs everywhere, and its pattern then matches by chance
TOKEN = "A-Za-z0-9_"  # noqa: S105 - a token continues over these characters
MIN_ENTROPY = 2.5  # bits per character; 32 hexadecimal digits have 3.5


class Provider(BaseModel):
    """The tokens of one provider that begin with a fixed prefix."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,39}$")] = Field(description="Unique name of the rule")
    docs: Annotated[str, Field(pattern=r"^https://[A-Za-z0-9_./#?=%@~-]{6,200}$")] = Field(
        description="The vendor's page about these tokens"
    )
    shapes: tuple[Annotated[str, Field(min_length=4, max_length=300)], ...] = Field(
        min_length=1, description="Fixed characters and [classes]{n}, or {n,} at the end"
    )
    severity: Severity = Field("critical", description="As for a rule")
    action: Action = Field("redact", description="As for a rule")
    exact: bool = Field(False, description="A value continues only over characters of the shape's last class")
    validator: str | None = Field(None, description="Check of the value, as for a rule")

    @field_validator("shapes")
    @classmethod
    def _begin_with_a_prefix(cls, shapes: tuple[str, ...]) -> tuple[str, ...]:
        for shape in shapes:
            pieces(shape)
            if any(len(literal) < MIN_PREFIX for literal in literals(shape)):
                raise ValueError(
                    f"{shape!r} must begin with {MIN_PREFIX} fixed characters; write a rule for tokens without them"
                )
        return shapes

    @field_validator("validator")
    @classmethod
    def _validator_exists(cls, name: str | None) -> str | None:
        if name is not None and name not in VALIDATORS:
            raise ValueError(f"no validator is called {name!r}; known are {', '.join(sorted(VALIDATORS))}")
        return name

    def as_rule(self) -> dict[str, object]:
        """The keys of the rule that finds these tokens; its literals, pattern and `run` follow from the shapes."""
        last = "".join(dict.fromkeys("".join(pieces(shape)[-1][0] for shape in self.shapes)))
        run = re.escape(last) if self.exact else TOKEN + "".join(c for c in "+/=.~%" if c in last) + "-"
        return {
            "id": self.id,
            "description": f"Token of the kind {self.id}, see {self.docs}",
            "kind": "secret",
            "severity": self.severity,
            "action": self.action,
            "literals": tuple(dict.fromkeys(text for shape in self.shapes for text in literals(shape))),
            "pattern": "|".join(map(pattern, self.shapes)),
            "run": f"[{run}]",
            "edge": "A-Za-z0-9_" if self.exact else "A-Za-z0-9",
            "min_entropy": MIN_ENTROPY,
            "validator": self.validator,
        }
