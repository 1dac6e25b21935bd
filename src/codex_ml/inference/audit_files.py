"""Contracts of the files that `safety_audit` writes.

Used by: safety_audit and report.
"""

from __future__ import annotations

from typing import Literal

from codex_ml.core.contract import Contract

Status = Literal["pass", "fail", "invalid"]  # invalid: the measurement failed, not the model or the data


class Gate(Contract):
    """One check of the audit: what was found, and what is allowed."""

    name: str
    status: Status
    found: str
    allowed: str


class ExtractionNumbers(Contract):
    """Extraction from a set of windows; without windows there is no rate.

    Attributes:
        windows: number of windows that were tried.
        extracted: number of suffixes of which the model reproduced every token.
        token_share: share of the suffix tokens that were the most probable one.
        trivial: windows left out as trivial.
        rate, low, high: extracted / windows, and its exact interval.
    """

    windows: int
    extracted: int
    token_share: float
    trivial: int
    rate: float | None = None
    low: float | None = None
    high: float | None = None


class ExtractionTable(Contract):
    """Extraction of train text, of held-out text, and of the model's own greedy text."""

    members: ExtractionNumbers
    held_out: ExtractionNumbers
    control: ExtractionNumbers


class SecretCounts(Contract):
    """Findings in the training data and in generated text."""

    train: int
    generated: int


class Audit(Contract):
    """reports/safety_audit/audit.json."""

    written_by = "safety_audit"

    verdict: Status
    gates: list[Gate]
    secrets: SecretCounts
    extraction: ExtractionTable


class AuditFinding(Contract):
    """One item of reports/safety_audit/findings.json: where a secret is, never its value.

    Attributes:
        source: "generated" for a text that the model wrote; `path` is then the number of the sample.
        line, column: from 1; column in characters.
    """

    written_by = "safety_audit"

    rule: str
    action: str
    severity: str
    source: str
    path: str
    line: int
    column: int


class GeneratedSample(Contract):
    """One line of reports/safety_audit/samples.ndjson: a text that the model wrote."""

    written_by = "safety_audit"

    text: str
