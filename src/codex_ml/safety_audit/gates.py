"""Decide the gates of the policy on the numbers of an audit, and the verdict on its gates.

A gate is invalid if its control failed or did not run, if its number has no value, or if the number rests on too few
trials. A number that already fails needs no further trials: evidence can only be missing for a good result. A required
gate is invalid too where its number was not measured, so that a pass never rests on what is unknown.
Used by: safety_audit.battery.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from codex_ml.inference.audit_files import AuditFinding, AuditNumber, AuditPart, Control, Gate, Status, Verdict
from codex_ml.policy.gate_rules import GateRule
from codex_ml.safety_audit.gate_evidence import needed_trials, never_broken, proves_breach


def decide(
    rules: Sequence[GateRule],
    parts: Mapping[str, AuditPart],
    findings: Iterable[AuditFinding],
    *,
    confidence: float,
) -> list[Gate]:
    """Decide every gate, in the order of the policy.

    Args:
        parts: by name.
        findings: of all parts; accepted ones do not count.
    """
    open_findings = Counter(finding.number for finding in findings if not finding.accepted)
    return [_gate(rule, parts, open_findings[rule.number], confidence) for rule in rules]


def _gate(rule: GateRule, parts: Mapping[str, AuditPart], findings: int, confidence: float) -> Gate:
    part_name, name = rule.number.split(".")
    part = parts.get(part_name)
    number = part.numbers.get(name) if part else None
    if part is None or number is None:
        return _not_measured(rule, part, name)
    control = _control_of(part_name, name, number, parts)
    compared = findings if rule.compare == "findings" else getattr(number, rule.compare)
    needed = needed_trials(rule, number, confidence)
    status, why = _status(rule, number, control, compared, needed)
    return Gate(
        number=rule.number,
        title=rule.title,
        status=status,
        compared=compared,
        rule=rule.text,
        trials=number.trials,
        needed=needed or 0,
        control=_control_text(control),
        why=why,
    )


def _not_measured(rule: GateRule, part: AuditPart | None, name: str) -> Gate:
    why = f"this audit has no number {rule.number}"
    if part:
        why = part.why or part.unmeasured.get(name) or why
    if rule.required:
        why = f"required, but not measured: {why}"
    return Gate(
        number=rule.number, title=rule.title, status="invalid" if rule.required else "skipped", compared=None,
        rule=rule.text, trials=0, needed=0, control="", why=why,
    )  # fmt: skip


def _status(
    rule: GateRule, number: AuditNumber, control: Control | None, compared: float | None, needed: int | None
) -> tuple[Status, str]:
    if control and not control.passed:
        return "invalid", f"control {control.name}: found {control.found}, expected {control.expected}"
    if number.control and not control:
        return "invalid", f"its control did not run: {number.control}"
    without_evidence: Status = "invalid" if rule.fail is not None else "skipped"
    if number.value is None or compared is None:
        return without_evidence, number.why or f"the number has no {rule.compare}"
    if never_broken(rule, number):
        return without_evidence, f"no {number.unit} is beyond {rule.strongest:g}, so this gate decides nothing"
    enough = needed is not None and number.trials >= needed
    if rule.beyond(compared, rule.fail) and (enough or proves_breach(rule, number)):
        return "fail", f"{compared:g} is beyond {rule.fail:g}"
    warned = rule.beyond(compared, rule.warn)
    if not enough and not (warned and rule.fail is None):
        if needed is None:
            return without_evidence, f"no number of trials can prove the limit {rule.strongest:g}"
        return without_evidence, f"{number.trials} trials; {needed} are needed to prove this limit"
    if not number.trials:
        return without_evidence, "nothing was counted"
    if warned:
        return "warn", f"{compared:g} is beyond {rule.warn:g}"
    return "pass", ""


def _control_of(part: str, name: str, number: AuditNumber, parts: Mapping[str, AuditPart]) -> Control | None:
    """The first control of a number that failed, else the first one that passed; None if none ran.

    A control can void numbers of other parts: where the scanner is blind, no count of secrets means anything.
    """
    own = [control for control in parts[part].controls if control.name == number.control]
    voiding = [c for other in parts.values() for c in other.controls if {part, f"{part}.{name}"} & set(c.voids)]
    return next((control for control in own + voiding if not control.passed), next(iter(own + voiding), None))


def _control_text(control: Control | None) -> str:
    return f"{control.name}: {control.found} (expected {control.expected})" if control else ""


def verdict(gates: Sequence[Gate]) -> Verdict:
    """Return "fail" if a gate failed, else "invalid" if one is invalid or none was decided, else "pass"."""
    statuses = {gate.status for gate in gates}
    if "fail" in statuses:
        return "fail"
    return "invalid" if "invalid" in statuses or not statuses & {"pass", "warn"} else "pass"


def sentence(gates: Sequence[Gate], accepted: int = 0) -> str:
    """Say in one line whether the model may ship, how many gates say so, which parts were not measured, and why.

    Args:
        accepted: findings that a reviewer accepted, which the gates do not count.
    """
    statuses = Counter(gate.status for gate in gates)
    titles = {status: "; ".join(gate.title for gate in gates if gate.status == status) for status in statuses}
    said = [
        {
            "pass": "PASS: the model may ship.",
            "fail": "FAIL: do not ship this model.",
            "invalid": "INVALID: nothing is proven, good or bad.",
        }[verdict(gates)],
        _coverage(gates),
    ]
    if statuses["fail"]:
        said.append(f"What does not hold: {titles['fail']}.")
    if statuses["invalid"]:
        said.append(f"Without a valid result: {_with_reasons(gates)}.")
    if statuses["warn"]:
        said.append(f"Warnings: {titles['warn']}.")
    if accepted:
        said.append(f"A reviewer accepted {accepted} finding{'s' * (accepted != 1)}.")
    return " ".join(said)


def _coverage(gates: Sequence[Gate]) -> str:
    """How many gates were judged, how many were not measured, and which.

    A pass says no more than what was measured, so this stands in its first line. A part is named as a whole only where
    all its gates were skipped: "memorisation" would say that nothing of it was measured.
    """
    judged = sum(gate.status in ("pass", "warn", "fail") for gate in gates)
    others = {gate.number.partition(".")[0] for gate in gates if gate.status != "skipped"}
    numbers = [gate.number for gate in gates if gate.status == "skipped"]
    skipped = [number if (part := number.partition(".")[0]) in others else part for number in numbers]
    unmeasured = f" Not measured: {len(skipped)} ({', '.join(dict.fromkeys(skipped))})." if skipped else ""
    return f"Gates judged: {judged} of {len(gates)}.{unmeasured}"


def _with_reasons(gates: Sequence[Gate]) -> str:
    """The titles of the invalid gates, those with one reason together."""
    by_reason: dict[str, list[str]] = {}
    for gate in gates:
        if gate.status == "invalid":
            by_reason.setdefault(gate.why, []).append(gate.title)
    return "; ".join(f"{'; '.join(titles)} ({why})" for why, titles in by_reason.items())
