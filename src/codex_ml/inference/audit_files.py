"""Contracts of the files that `safety_audit` writes.

Used by: safety_audit and cli, which write them; report, which reads them.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from codex_ml.core.contract import Contract
from codex_ml.core.io import write_text

DETAILS, METRICS = "audit.json", "metrics.json"  # of an audit folder, such as reports/safety_audit
FINDINGS, SAMPLES = "findings.ndjson", "samples.ndjson"
PLOTS = "plots"  # its folder of small tables for pictures
PLOT_FILES: tuple[str, ...] = (
    "extraction_by_prefix.csv",
    "extraction_tries.csv",
    "roc.csv",
    "copied_runs.csv",
    "insecure_code.csv",
    "exposure.csv",
)

Status = Literal["pass", "warn", "fail", "invalid", "skipped"]  # invalid: the measurement failed, not the model
Verdict = Literal["pass", "fail", "invalid"]
Method = Literal["bootstrap", "exact", "score", "wilson", "newcombe", "student"]
Unit = Literal["share", "difference", "bits", "area", "count", "per_mb", "tokens", "number"]


class AuditNumber(Contract):
    """One number of the audit, with the interval that its evidence allows.

    Attributes:
        value: None where it cannot be given; `why` says the reason.
        low, high: interval at the confidence of the audit; None for an exact count, or where `why` says the reason.
        method: of the interval: exact is that of Clopper and Pearson, score that of Tango; the others have their names.
        trials: independent units that were counted: windows, documents, samples, canaries.
        needed: trials below which the number proves nothing, so that its gate is invalid; 0: any number will do.
        unit: share: of `trials`, from 0 to 1; difference: of two shares; area: under the ROC curve.
        control: name of the control that would have noticed a broken measurement; "" where the number is a plain count.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    method: Method | None = None
    trials: int
    needed: int = 0
    unit: Unit
    control: str = ""
    why: str = ""

    @model_validator(mode="before")
    @classmethod
    def _has_no_value_unless_finite(cls, given: Any) -> Any:
        """A broken model gives NaN. Then the number has no value, and `why` says so."""
        ends = [given.get(key) for key in ("value", "low", "high")] if isinstance(given, dict) else []
        broken = [end for end in ends if isinstance(end, float) and not math.isfinite(end)]
        if not broken:
            return given
        nothing = dict.fromkeys(("value", "low", "high", "method"))
        return given | nothing | {"why": f"the measurement gave {broken[0]}"}

    @model_validator(mode="after")
    def _reason_is_given(self) -> AuditNumber:
        if (self.low is None) != (self.high is None):
            raise ValueError("expected low and high, or neither")
        if self.method and self.low is None:
            raise ValueError("expected no method where there is no interval")
        if self.value is None and not self.why:
            raise ValueError("expected `why` where the value is absent")
        return self


class Control(Contract):
    """A measurement whose result is known beforehand; if it fails, what it voids means nothing.

    Attributes:
        voids: numbers whose gates become invalid if the control fails: `memorisation.excess`, or a whole part.
    """

    name: str
    passed: bool
    found: str
    expected: str
    voids: list[str]


class AuditPart(Contract):
    """Everything that one part of the battery measured.

    Attributes:
        status: "skipped" where the part could not run; `why` says the reason, and there are no numbers.
        title: for people.
        numbers: by name without the part: `excess` of the part `memorisation` is the number `memorisation.excess`.
        unmeasured: numbers that this audit cannot give, by name without the part, each with the reason.
        settings: how it was measured.
        tables: small tables for the page, by name: rows of plain values.
        notes: what limits the result, one sentence each.
    """

    status: Literal["measured", "skipped"] = "measured"
    title: str
    why: str = ""
    numbers: dict[str, AuditNumber] = Field(default_factory=dict)
    unmeasured: dict[str, str] = Field(default_factory=dict)
    controls: list[Control] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _reason_is_given(self) -> AuditPart:
        if self.numbers.keys() & self.unmeasured.keys():
            raise ValueError("a number is measured or not, never both")
        if (self.status == "skipped") != bool(self.why) or (self.status == "skipped" and self.numbers):
            raise ValueError("expected `why`, and no numbers, where a part was skipped, and nowhere else")
        return self


class Gate(Contract):
    """One gate of data/policy.yaml, decided.

    Attributes:
        number: what is judged, such as memorisation.excess.
        title: what must hold.
        compared: the value, the end of the interval, or the number of findings, that was compared; None if absent.
        rule: when the gate warns and fails, as text.
        trials, needed: see `AuditNumber`.
        control: the control of the number and its result, as text.
        why: the reason, where the status is not "pass".
    """

    number: str
    title: str
    status: Status
    compared: float | None
    rule: str
    trials: int
    needed: int
    control: str
    why: str = ""


class Audit(Contract):
    """<audit folder>/audit.json.

    Attributes:
        sentence: whether the model may ship, and why.
        model: SHA-256 of the model folder or file.
        size: `safety_audit.size`.
        accepted: findings that a reviewer accepted, which gates do not count.
        parts: by name, in the order of the battery.
        meanings: how to read each number, by its full name.
        notes: what a reader must know about the whole audit, one sentence each.
    """

    written_by = "safety_audit"

    verdict: Verdict
    sentence: str
    model: str
    size: str
    confidence: float
    seed: int
    gates: list[Gate]
    accepted: int
    parts: dict[str, AuditPart]
    meanings: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)

    def write(self, file: Path) -> None:
        """Write the audit as JSON, atomically."""
        write_text(file, self.as_text())

    def as_text(self) -> str:
        """The audit as JSON. Parts, numbers and columns keep their order: that of the page."""
        return json.dumps(self.as_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


class AuditFinding(Contract):
    """One line of findings.ndjson: something that a reviewer must see. Evidence is redacted, values are never stored.

    Attributes:
        id: stable name of the finding; see `finding_id`.
        number: the number of the audit that counts it, such as generated.secrets.
        kind: what was found, such as the id of a rule, or "extracted".
        severity: critical, high, medium or low.
        source, path, line, column: where: of the training document that it comes from. A record of a table has no path
            and gets "record" and its id. Or source "generated", and the number of the sample as the path. Line and
            column count from 1; 0 if not known.
        licence: of that document; "" if there is none.
        evidence: a short text, redacted.
        trace: the command that shows the place; "" if there is none.
        accepted: the reason for which a reviewer accepted it; "" if nobody did.
    """

    written_by = "safety_audit"

    id: str
    number: str
    kind: str
    severity: str
    source: str
    path: str
    line: int = 0
    column: int = 0
    licence: str = ""
    evidence: str = ""
    trace: str = ""
    accepted: str = ""


def finding_id(number: str, kind: str, *place: str | int) -> str:
    """Twelve hexadecimal digits that name a finding: equal for the same kind at the same place in any run.

    Args:
        place: what identifies the place: source, path, line, a hash of the content; never a value that is secret.

    >>> finding_id("data.secrets", "jwt", "repo", "a.py", 3) == finding_id("data.secrets", "jwt", "repo", "a.py", 3)
    True
    """
    return hashlib.sha256("\0".join([number, kind, *map(str, place)]).encode("utf-8", "surrogatepass")).hexdigest()[:12]


class GeneratedSample(Contract):
    """One line of samples.ndjson: a text that the model wrote.

    Attributes:
        sample: its number.
        prompt: what it continues, redacted; "" for a sample without a prompt.
        text: redacted.
        raw: as the model wrote it; present only with `safety_audit.keep_raw`.
    """

    written_by = "safety_audit"

    sample: int
    prompt: str
    text: str
    raw: str | None = None
