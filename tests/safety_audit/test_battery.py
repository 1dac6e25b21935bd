"""The battery: every number is declared, accepted findings are reviewed, the folder is whole."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from codex_ml.core.errors import UserError
from codex_ml.core.strict_json import parse_json
from codex_ml.inference.audit_files import Audit, AuditFinding, AuditNumber, AuditPart, Control, finding_id
from codex_ml.policy.gate_rules import GateRule
from codex_ml.safety_audit import audit_numbers, battery
from codex_ml.safety_audit.accepted import AcceptedFinding
from codex_ml.safety_audit.audit_job import AuditJob, PartResult, skipped
from codex_ml.safety_audit.audit_numbers import NUMBERS, load_audit_policy, undeclared
from codex_ml.safety_audit.config import SafetyAudit

SECRETS = GateRule(number="data.secrets", title="no secrets", compare="findings", fail=0)


def finding(place: int) -> AuditFinding:
    return AuditFinding(
        id=finding_id("data.secrets", "jwt", place), number="data.secrets", kind="jwt", severity="high", source="s",
        path="p", line=place,
    )  # fmt: skip


def counted(*findings: AuditFinding) -> PartResult:
    number = AuditNumber(value=float(len(findings)), trials=1, unit="count")
    return PartResult("data", AuditPart(title="Data", numbers={"secrets": number}), list(findings))


def job(*gates: GateRule) -> AuditJob:
    """A job of parts that need neither model nor data."""
    parts: dict[str, Any] = {
        "subject": SimpleNamespace(digest="d"), "data": None, "policy": SimpleNamespace(gates=gates), "scanner": None,
        "clean": lambda text: text.replace("hunter2", "<SECRET>"), "track": lambda items, *_: iter(items),
    }  # fmt: skip
    return AuditJob(**parts, settings=SafetyAudit(), seed=1, plots=Path())


def accept(finding: AuditFinding, reason: str = "a test key") -> AcceptedFinding:
    return AcceptedFinding(id=finding.id, reason=reason, expires=date(2027, 1, 31))


def run(out: Path, monkeypatch: pytest.MonkeyPatch, *parts: PartResult, accepted: Any = ()) -> Audit:
    monkeypatch.setattr(battery, "PARTS", tuple((lambda _, part=part: part) for part in parts))
    return battery.audit(job(SECRETS), out, accepted=accepted)


def test_an_accepted_finding_is_not_counted_and_keeps_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = finding(1), finding(2)
    found = run(tmp_path, monkeypatch, counted(one, two), accepted=[accept(one, "password hunter2 of a test")])
    assert (found.verdict, found.gates[0].compared, found.accepted, found.notes) == ("fail", 1, 1, [])
    lines = list(AuditFinding.read_lines(tmp_path / "findings.ndjson"))
    assert [line.accepted for line in lines] == ["password <SECRET> of a test", ""]
    found = run(tmp_path, monkeypatch, counted(one, two), accepted=[accept(one), accept(two)])
    assert (found.verdict, found.accepted) == ("pass", 2)
    assert "A reviewer accepted 2 findings." in found.sentence


def test_an_acceptance_that_matches_nothing_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = finding(9)
    found = run(tmp_path, monkeypatch, counted(), accepted=[accept(other)])
    note = f"data/accepted_findings.yaml accepts {other.id}, which is not a finding of this audit; remove the entry"
    assert (found.verdict, found.accepted, found.notes) == ("pass", 0, [note])
    assert f"note: {note}" in battery.headlines(found)


def test_the_folder_is_whole_and_the_same_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    monkeypatch.setattr(battery, "COMPARED", ("data.secrets", "memorisation.extracted"))
    for folder in folders:
        folder.mkdir()
        found = run(folder, monkeypatch, counted(finding(1)), skipped("memorisation", "Memorisation", "no data"))
        assert Audit.read(folder / "audit.json") == found
    names = {path.relative_to(folders[0]).as_posix() for path in folders[0].rglob("*")}
    assert names == {"audit.json", "metrics.json", "findings.ndjson", "samples.ndjson", "plots"}
    for name in names - {"plots"}:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    metrics = parse_json((folders[0] / "metrics.json").read_bytes())
    assert metrics == {"data": {"secrets": 1.0}, "gates": {"warn": 0, "fail": 1, "invalid": 0, "skipped": 0}}


@pytest.mark.parametrize(
    "part",
    [
        PartResult("data", AuditPart(title="x", numbers={"secret": AuditNumber(value=0.0, trials=1, unit="count")})),
        PartResult("dat", AuditPart(title="x", numbers={"secrets": AuditNumber(value=0.0, trials=1, unit="count")})),
        PartResult("data", AuditPart(title="x"), [finding(1).model_copy(update={"number": "data.secret"})]),
        PartResult(
            "data",
            AuditPart(title="x", controls=[Control(name="c", passed=False, found="", expected="", voids=["date"])]),
        ),
    ],
    ids=["a number", "a part", "what a finding counts for", "what a control voids"],
)
def test_a_name_that_is_not_declared_is_found(part: PartResult) -> None:
    assert len(undeclared(part)) == 1


def test_declared_names_are_accepted() -> None:
    assert undeclared(counted(finding(1))) == set()
    control = Control(name="c", passed=False, found="", expected="", voids=["data", "generated.secrets"])
    assert undeclared(PartResult("data", AuditPart(title="x", controls=[control]))) == set()


def test_a_gate_for_a_number_that_no_part_gives_is_refused_with_its_line(tmp_path: Path, project: Path) -> None:
    good = (project / "data/policy.yaml").read_text("utf-8")
    file = tmp_path / "policy.yaml"
    file.write_text(good)
    assert load_audit_policy(file).gates
    file.write_text(good.replace("number: memorisation.excess", "number: memorization.excess"))
    line = good[: good.index("number: memorisation.excess")].count("\n") + 1
    with pytest.raises(UserError, match=f"^{file}:{line}: gate memorization.excess: no part of the audit gives"):
        load_audit_policy(file)
    file.write_text(good.replace("number: memorisation.excess", "number: zz.zz"))
    with pytest.raises(UserError, match=re.escape("known are data.secrets, ")):
        load_audit_policy(file)


def test_a_gate_that_counts_findings_of_a_number_without_findings_is_refused(tmp_path: Path, project: Path) -> None:
    """It would count none, whatever the audit measures, and pass."""
    good = (project / "data/policy.yaml").read_text("utf-8")
    file = tmp_path / "policy.yaml"
    for number in ("memorisation.extracted", "memorisation.matched_tokens"):
        file.write_text(good + f"  - number: {number}\n    title: none\n    compare: findings\n    fail: 0\n")
        if number == "memorisation.extracted":
            assert load_audit_policy(file).gates[-1].compare == "findings"
    line = good.count("\n") + 1
    with pytest.raises(UserError, match=f"^{file}:{line}: gate {number}: it has no findings to count"):
        load_audit_policy(file)


@pytest.mark.shipped
def test_the_gates_of_the_shipped_policy_judge_numbers_that_exist(repository: Path) -> None:
    assert load_audit_policy(repository / "data/policy.yaml").gates


def test_what_people_compare_is_declared() -> None:
    assert set(battery.COMPARED) <= NUMBERS.keys()
    assert all(meaning[0].islower() or meaning[0].isdigit() for meaning in audit_numbers.NUMBERS.values())
