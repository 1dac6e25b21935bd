"""The tables of the safety audit on the page and in the model card. They show any part of the battery.

Used by: report.page, report.card.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from codex_ml.core.errors import safe_line
from codex_ml.inference.audit_files import AuditFinding, AuditNumber, AuditPart, Gate
from codex_ml.report.cells import Table, percent, table
from codex_ml.report.facts import Facts

MAX_FINDINGS = 200  # rows shown; the rest is counted, and all are in findings.ndjson
MAX_ROWS = 50  # of a table of a part
SHORT = 12  # rows of a table that is shown without a click
UNITS = {"bits": " bits", "tokens": " tokens", "per_mb": " per MB"}
# The numbers that the model card shows, where the audit measured them.
HEADLINES = (
    "memorisation.extracted",
    "canaries.exposure_once",
    "membership.auc",
    "generated.copied",
    "insecure_code.excess",
)


METHODS = {
    None: "",
    "bootstrap": "bootstrap",
    "exact": "Clopper and Pearson",
    "score": "Tango",
    "wilson": "Wilson",
    "newcombe": "Newcombe",
    "student": "Student",
}


def gates(facts: Facts) -> Table:
    """Return each gate: its status, the number with its interval and its trials, the limits, and the control."""
    rows = [_gate_cells(facts, gate) for gate in facts.audit.gates]
    head = {
        "status": "status",
        "what must hold": "text wide",
        "why not pass": "text wide",
        f"measured ({percent(facts.audit.confidence, 0)} interval)": "text",
        "limits": "text",
        "trials (needed)": "number",
        "control: found (expected)": "text wide",
        "number": "code key",
    }
    return _without_empty(table("Gates", head, rows))


def _gate_cells(facts: Facts, gate: Gate) -> tuple[str, ...]:
    number = number_of(facts, gate.number)
    measured, trials = "–", "–"
    if number is not None:
        limits = f" ({interval(number)})" if number.low is not None else ""
        measured, trials = f"{measured_value(number)}{limits}", _trials(gate.trials, gate.needed)
        if gate.compared is not None and gate.compared not in (number.value, number.low, number.high):
            measured += f"; findings: {_decimal(gate.compared)}"  # that nobody accepted
    return gate.status, gate.title, gate.why, measured, gate.rule, trials, gate.control, gate.number


def number_of(facts: Facts, name: str) -> AuditNumber | None:
    """Return a number by its full name, such as memorisation.excess; None if the audit does not have it."""
    part_name, _, key = name.partition(".")
    part = facts.audit.parts.get(part_name)
    return part.numbers.get(key) if part else None


def numbers(facts: Facts, name: str) -> Table:
    """Return the numbers of a part, with interval, trials, control, and how to read each."""
    part = facts.audit.parts[name]
    rows = [
        (key.replace("_", " "), *_number_cells(facts, f"{name}.{key}", number)) for key, number in part.numbers.items()
    ]
    return _without_empty(table(f"{part.title}: numbers", _number_head(facts), rows))


def headline_numbers(facts: Facts) -> Table:
    """Return the few numbers that the model card shows."""
    found = [(name, number) for name in HEADLINES if (number := number_of(facts, name))]
    rows = [(name, *_number_cells(facts, name, number)) for name, number in found]
    return _without_empty(table("Numbers", _number_head(facts), rows))


def _number_cells(facts: Facts, name: str, number: AuditNumber) -> tuple[str, ...]:
    meaning = "; ".join(text for text in (facts.audit.meanings.get(name), number.why) if text)
    trials = _trials(number.trials, number.needed)
    return measured_value(number), interval(number), METHODS[number.method], trials, number.control, meaning


def _number_head(facts: Facts) -> dict[str, str]:
    return {
        "number": "text key",
        "value": "number",
        f"{percent(facts.audit.confidence, 0)} interval": "number",
        "interval by": "text",
        "trials (needed)": "number",
        "control": "text wide",
        "what it is": "text wide",
    }


def measured_value(number: AuditNumber) -> str:
    """Return a value with its unit; shares are decimals, as the limits of the gates are."""
    return "–" if number.value is None else f"{_decimal(number.value)}{UNITS.get(number.unit, '')}"


def interval(number: AuditNumber) -> str:
    """Return both ends of an interval; "–" without one."""
    if number.low is None or number.high is None:
        return "–"
    return f"{_decimal(number.low)} to {_decimal(number.high)}"


def _decimal(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _trials(trials: int, needed: int) -> str:
    return f"{trials:,} ({needed:,})" if needed else f"{trials:,}"


def controls(part: AuditPart) -> Table:
    """Return the controls of a part: what each found and expected, and what means nothing if it fails."""
    rows = [
        ("pass" if control.passed else "fail", control.name, control.found, control.expected, ", ".join(control.voids))
        for control in part.controls
    ]
    head = {"status": "status", "control": "text", "found": "text", "expected": "text", "voids if it fails": "code"}
    return table(f"{part.title}: controls", head, rows)


def part_tables(part: AuditPart) -> list[Table]:
    """Return the tables of a part, whatever their columns are: a column of numbers is aligned as one."""
    return [_plain_table(name, rows) for name, rows in part.tables.items() if rows]


def _plain_table(name: str, rows: list[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    kinds = {column: "number" if _is_numeric(row.get(column) for row in rows) else "text" for column in columns}
    heads = {_words(column): kinds[column] for column in columns}
    shown = [tuple(_plain(row.get(column)) for column in columns) for row in rows[:MAX_ROWS]]
    title = _words(name)
    title = title[:1].upper() + title[1:]
    if len(rows) > MAX_ROWS:
        title += f" (the first {MAX_ROWS} of {len(rows):,} rows; audit.json has all)"
    elif len(rows) > SHORT:
        title += f" ({len(rows)} rows)"
    if len(heads) < len(columns):  # two columns that differ in an underscore only
        heads = {safe_line(column): kinds[column] for column in columns}
    return table(title, heads, shown)


def _is_numeric(cells: Iterable[Any]) -> bool:
    return all(cell is None or (isinstance(cell, int | float) and not isinstance(cell, bool)) for cell in cells)


def _words(name: str) -> str:
    return safe_line(name.replace("_", " "))


def _plain(cell: Any) -> str:
    if cell is None or cell == "":
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return _decimal(cell)
    if isinstance(cell, list):
        return ", ".join(map(_plain, cell)) or "none"
    return str(cell)


def settings(part: AuditPart) -> Table:
    """Return how a part was measured."""
    rows = [(name, _plain(value)) for name, value in sorted(part.settings.items())]
    return table("Settings", {"setting": "code key", "value": "code"}, rows)


def findings(facts: Facts) -> Table:
    """Return what a reviewer needs of each finding: its id, place, licence, redacted evidence, and how to see it.

    Each number shows some of its findings, so that a thousand of one kind do not hide three of another.
    """
    rows = [
        (
            found.id,
            found.severity,
            found.kind,
            found.source,
            found.path,
            ":".join(str(place) for place in (found.line, found.column) if place),
            found.licence,
            found.evidence,
            found.trace,
            found.accepted,
        )
        for found in shown_findings(facts.findings)
    ]
    head = {
        "id": "code",
        "severity": "status",
        "kind": "text",
        "source": "code",
        "path": "code",
        "line": "number",
        "licence": "text",
        "evidence": "code",
        "command that shows it": "code",
        "accepted because": "text",
    }
    return _without_empty(table("Findings", head, rows))


def shown_findings(found: tuple[AuditFinding, ...]) -> list[AuditFinding]:
    """The first findings of each number in turn, `MAX_FINDINGS` in all; open ones first, in the order of the file."""
    seen: Counter[str] = Counter()

    def turns() -> Iterator[tuple[bool, int, int]]:
        for index, finding in enumerate(found):
            yield bool(finding.accepted), seen[finding.number], index
            seen[finding.number] += 1

    chosen = sorted(turns())[:MAX_FINDINGS]
    return [found[index] for _, index in sorted((accepted, index) for accepted, _, index in chosen)]


def finding_counts(facts: Facts) -> Table:
    """Return how many findings there are of each number and severity, and how many of them nobody accepted."""
    counts = Counter((finding.number, finding.severity) for finding in facts.findings)
    left = Counter((finding.number, finding.severity) for finding in facts.findings if not finding.accepted)
    rows = [(*key, f"{count:,}", f"{left[key]:,}") for key, count in sorted(counts.items())]
    head = {"number": "text", "severity": "status", "findings": "number", "not accepted": "number"}
    return table("Findings", head, rows)


def _without_empty(content: Table) -> Table:
    """The table without columns that have no text in any row."""
    kept = [column for column in range(len(content.head)) if any(row[column] for row in content.rows)]
    if not content.rows:
        return content
    return Table(
        content.title,
        tuple(content.head[column] for column in kept),
        tuple(content.kinds[column] for column in kept),
        tuple(tuple(row[column] for column in kept) for row in content.rows),
    )
