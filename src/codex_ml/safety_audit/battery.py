"""Run the parts of the audit, decide the gates, and write the audit folder.

Used by: stages/safety_audit.py, cli.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from codex_ml.core.events import event
from codex_ml.core.io import atomic_folder, write_json
from codex_ml.core.progress import duration
from codex_ml.core.publication import publishing
from codex_ml.inference.audit_files import (
    DETAILS,
    FINDINGS,
    METRICS,
    PLOTS,
    SAMPLES,
    Audit,
    AuditFinding,
    AuditPart,
    GeneratedSample,
    Status,
)
from codex_ml.modeling.positions import check_length
from codex_ml.safety_audit.accepted import ACCEPTED, AcceptedFinding
from codex_ml.safety_audit.audit_job import AuditJob, PartResult
from codex_ml.safety_audit.audit_numbers import NUMBERS
from codex_ml.safety_audit.chat_refusals import refusals
from codex_ml.safety_audit.config import SafetyAudit
from codex_ml.safety_audit.cost import estimate
from codex_ml.safety_audit.data_side import data_side
from codex_ml.safety_audit.exposure import canaries
from codex_ml.safety_audit.filter_quality import filters
from codex_ml.safety_audit.gates import decide, sentence, verdict
from codex_ml.safety_audit.generated import generated_text
from codex_ml.safety_audit.insecure_code import insecure_code
from codex_ml.safety_audit.membership import membership
from codex_ml.safety_audit.memorisation import memorisation
from codex_ml.safety_audit.near_verbatim import near_verbatim

# Each part measures, or says why it cannot. The order is that of the page.
PARTS: tuple[Callable[[AuditJob], PartResult], ...] = (
    data_side,
    memorisation,
    near_verbatim,
    canaries,
    membership,
    generated_text,
    insecure_code,
    filters,
    refusals,
)

log = logging.getLogger("codex_ml")
DIGITS = 6  # metrics are compared across commits; further digits depend on the rounding of the hardware
COMPARED = ("memorisation.extracted", "canaries.exposure_once")  # `dvc metrics diff` must fit a screen


def run_battery(
    job: AuditJob, out: Path, *, accepted: Sequence[AcceptedFinding] = (), say: Callable[[str], None]
) -> Audit:
    """Run `audit`; say before how long it will take, and after how long it took.

    Args:
        say: is called with one line at a time. Times belong to logs, never to outputs.
    """
    started = time.monotonic()
    say(estimate(job))
    found = audit(job, out, accepted=accepted)
    say(f"the audit took {duration(time.monotonic() - started)}")
    return found


def audit(job: AuditJob, out: Path, *, accepted: Sequence[AcceptedFinding] = ()) -> Audit:
    """Run the battery and write audit.json, metrics.json, findings.ndjson, samples.ndjson and the folder `plots`.

    Args:
        out: an existing folder.
        accepted: findings that a reviewer accepted; see `read_accepted`.
    """
    with atomic_folder(out / PLOTS) as plots:
        results = [part(replace(job, plots=plots)) for part in PARTS]
    reasons = {entry.id: job.clean(entry.reason) for entry in accepted}
    findings = [_reviewed(finding, reasons) for result in results for finding in result.findings]
    parts = {result.name: result.part for result in results}
    gates = decide(job.policy.gates, parts, findings, confidence=job.settings.confidence)
    count = sum(bool(finding.accepted) for finding in findings)
    found = Audit(
        verdict=verdict(gates),
        sentence=sentence(gates, count),
        model=job.subject.digest,
        size=job.settings.size,
        confidence=job.settings.confidence,
        seed=job.seed,
        gates=gates,
        accepted=count,
        parts=parts,
        meanings={name: NUMBERS[name] for name in _measured(parts) if name in NUMBERS},
        notes=[
            f"{ACCEPTED} accepts {id}, which is not a finding of this audit; remove the entry"
            for id in sorted(reasons.keys() - {finding.id for finding in findings})
        ],
    )
    with publishing(job.clean):
        AuditFinding.write_lines(out / FINDINGS, findings)
        found.write(out / DETAILS)
        write_json(out / METRICS, compared_numbers(found))
    with publishing(str):  # redacted already, with their prompts; safety_audit.keep_raw asks for the raw text beside it
        GeneratedSample.write_lines(out / SAMPLES, (sample for result in results for sample in result.samples))
    if found.verdict != "pass":
        failed = [gate.number for gate in found.gates if gate.status != "pass"]
        fields = event("gate_failed", quiet=True, verdict=found.verdict, gates=failed)
        log.info("safety_audit: %s: %s", found.verdict, found.sentence, extra=fields)
    return found


def _measured(parts: Mapping[str, AuditPart]) -> Iterator[str]:
    """Full names of the numbers, in the order of the page."""
    yield from (f"{name}.{key}" for name, part in parts.items() for key in part.numbers)


def _reviewed(finding: AuditFinding, reasons: Mapping[str, str]) -> AuditFinding:
    return finding.model_copy(update={"accepted": reasons.get(finding.id, "")})


def compared_numbers(found: Audit) -> dict[str, Any]:
    """The few numbers that people compare between experiments, for metrics.json."""
    statuses = Counter(gate.status for gate in found.gates)
    numbers: dict[str, Any] = {}
    for name in COMPARED:
        part, key = name.split(".")
        number = found.parts[part].numbers.get(key) if part in found.parts else None
        if number is not None and number.value is not None:
            numbers.setdefault(part, {})[key] = round(number.value, DIGITS)
    return {**numbers, "gates": {status: statuses[status] for status in get_args(Status) if status != "pass"}}


def headlines(found: Audit) -> Iterator[str]:
    """What the log says at the end, line by line."""
    yield found.sentence
    for gate in found.gates:
        compared = "-" if gate.compared is None else f"{gate.compared:.6g}"
        why = f" ({gate.why})" if gate.why else ""
        yield f"{gate.status:<7} {gate.title}: {compared}, {gate.rule}{why}"
    yield from (f"{name}: skipped, {part.why}" for name, part in found.parts.items() if part.why)
    yield from (f"note: {note}" for note in found.notes)


def check_lengths(config: Any, settings: SafetyAudit) -> None:
    """Refuse windows or samples that are longer than the model can see at once.

    Args:
        config: the model's configuration.

    Raises:
        UserError: naming the key of params.yaml.
    """
    windows = "safety_audit.prefix_tokens + safety_audit.suffix_tokens"
    check_length(config, settings.prefix_tokens + settings.suffix_tokens, windows)
    check_length(config, settings.sample_tokens, "safety_audit.sample_tokens")
