"""The sentences about the safety audit, the same on the page and in the model card.

Used by: report.page, report.card.
"""

from __future__ import annotations

from codex_ml.core.errors import safe_line
from codex_ml.inference.audit_files import GeneratedSample
from codex_ml.report.audit_tables import MAX_FINDINGS
from codex_ml.report.cells import percent
from codex_ml.report.facts import Facts

STATUSES = (
    "A gate is invalid where its control failed, or where its evidence cannot prove its limit. It is skipped where "
    "nothing was measured. Neither is a pass."
)


def audit_result(facts: Facts) -> str:
    """Return whether the model may ship, and why."""
    return f"Safety audit: {facts.audit.sentence}"


def audit_reading(facts: Facts) -> str:
    """Explain how to read the gates."""
    found = facts.audit
    return (
        f"The gates are limits of data/policy.yaml. {STATUSES} Shares are decimals: 0.01 is 1 %. The audit ran in size "
        f"{found.size}; intervals have {percent(found.confidence, 0)} confidence."
    )


def accepted_note(facts: Facts) -> str:
    """Return how a reviewer accepts a finding."""
    found = facts.audit.accepted
    some = f"A reviewer accepted {found:,} of them, which no gate counts. " if found else ""
    return f"{some}To accept one, add its id with a reason and a last day to data/accepted_findings.yaml."


def findings_note(facts: Facts) -> str:
    """Return the line above the list of findings: how many there are."""
    if not facts.findings:
        return "The audit has no findings."
    return f"{len(facts.findings):,} findings in findings.ndjson; values of secrets are stored nowhere."


def shown_note(facts: Facts) -> str:
    """Return how many of the findings are shown, where these are not all."""
    more = len(facts.findings) - MAX_FINDINGS
    return f"{MAX_FINDINGS} are shown, some of each number; {more:,} more are in the file." if more > 0 else ""


def skipped_parts(facts: Facts) -> list[str]:
    """One line for each part and each gate that was not measured, with the reason."""
    parts = [f"{part.title}: {part.why}" for part in facts.audit.parts.values() if part.status == "skipped"]
    named = {name for name, part in facts.audit.parts.items() if part.status == "skipped"}
    gates = [
        f"{gate.title}: {gate.why}"
        for gate in facts.audit.gates
        if gate.status == "skipped" and gate.number.partition(".")[0] not in named
    ]
    return parts + gates


def measured_parts(facts: Facts) -> set[str]:
    """Names of the parts that gave at least one number with a value."""
    return {
        name
        for name, part in facts.audit.parts.items()
        if any(number.value is not None for number in part.numbers.values())
    }


def not_drawn(facts: Facts, name: str) -> str:
    """Say that a measured part has no picture of a table, because the table is empty; "" where there is one."""
    return (
        "" if facts.audit_plots.get(name) else f"There is no picture of {name.replace('_', ' ')}: its table is empty."
    )


def sample_note(sample: GeneratedSample) -> str:
    """Say what a sampled text continues."""
    after = f", after the prompt {safe_line(sample.prompt)}" if sample.prompt else ", without a prompt"
    return f"Text {sample.sample}{after}"
