"""The part data: what is left in the documents, what `split` reports about them, and controls that can fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from codex_ml.core.hashing import sha256_of
from codex_ml.documents.document import Document, write_documents
from codex_ml.documents.split_files import (
    BenchmarkCounts,
    BenchmarkOverlap,
    Leakage,
    LeakageMetrics,
    LedgerCounts,
    Manifest,
    PolicyCounts,
    SplitContents,
    SplitMetrics,
    SplitParts,
    SplitSize,
)
from codex_ml.inference.audit_files import Gate
from codex_ml.policy.rules import Policy, load_policy, parse_policy
from codex_ml.policy.scan import Scanner
from codex_ml.safety_audit import data_side as module
from codex_ml.safety_audit import finding_list
from codex_ml.safety_audit.audit_job import AuditJob, PartResult
from codex_ml.safety_audit.audit_numbers import undeclared
from codex_ml.safety_audit.clean_text import CLEAN_BYTES, clean_texts, false_positives
from codex_ml.safety_audit.data_side import PLANTED, SAME, data_side
from codex_ml.safety_audit.gates import decide
from codex_ml.safety_audit.split_reports import SplitReports
from codex_ml.safety_audit.split_scan import scan_split

from .byte_audit import audit_job, document

KEY = "AKIA" + "Q7ZK4MPRN2XWB3TD"  # a made-up key in the shape of an access key pragma: allowlist secret
MAIL = "jo.doe" + "@" + "mailbox.org"
CLEAN = "x = 1\n"


@pytest.fixture(autouse=True)
def little_clean_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A twentieth of the text: a second per test would add up."""
    monkeypatch.setattr(module, "false_positives", partial(false_positives, size=CLEAN_BYTES // 20))


def job(
    folder: Path, *texts: str, held_out: Sequence[Document] = (), policy: Policy | None = None, **reports: Any
) -> AuditJob:
    one = audit_job(folder, train=[document(number, text) for number, text in enumerate(texts)], policy=policy)
    if held_out:
        write_documents(folder / "test.parquet", held_out)
        one = replace(one, data=replace(one.data, held_out=folder / "test.parquet"))
    if reports:
        one = replace(one, data=replace(one.data, split=split_reports(folder, len(texts), **reports)))
    return one


def split_reports(
    folder: Path,
    documents: int,
    *,
    near_cross: int = 0,
    overlaps: Sequence[BenchmarkOverlap] = (),
    benchmarks: Sequence[str] = ("data/benchmarks/toy.jsonl",),
    state: str = "enforce",
    sha256: str = "",
) -> SplitReports:
    """Reports of `split` on folder/train.parquet."""
    BenchmarkOverlap.write_lines(folder / "overlaps.ndjson", overlaps)
    digest = sha256 or sha256_of(folder / "train.parquet")
    contents = SplitContents(
        documents=documents, bytes=0, groups=0, licences={}, languages={}, sources={}, file="train.parquet",
        sha256=digest, file_bytes=0,
    )  # fmt: skip
    manifest = Manifest(
        format="codex-ml/manifest/1",
        splits=SplitParts(train=contents, val=contents, test=contents),
        documents=9,
        bytes=0,
        dropped={},
        policy=PolicyCounts(state=state, findings={}, documents_redacted=0),
        benchmarks=BenchmarkCounts(
            files=list(benchmarks), items_found=len(overlaps), documents=len(overlaps), too_short_to_check=[]
        ),
        ledger=LedgerCounts(lines=0, contradictions=0, first=[]),
    )
    leakage = Leakage(
        exact_cross=0, group_cross=0, near_cross=near_cross, near_duplicates={}, evicted=0, quarantined=0,
        largest_family_share=0.0, random_split_leak=0.1,
    )  # fmt: skip
    size = SplitSize(documents=documents, megabytes=0.0)
    numbers = LeakageMetrics(near_cross=near_cross, evicted=0, quarantined=0, random_split_leak=0.1)
    metrics = SplitMetrics(train=size, val=size, test=size, dropped=0, leakage=numbers, policy=state, redacted=0)
    return SplitReports(metrics, leakage, manifest, folder / "overlaps.ndjson")


def measured(one: AuditJob) -> PartResult:
    found = data_side(one)
    assert undeclared(found) == set()
    return found


@pytest.fixture(scope="module")
def gates(repository: Path) -> Any:
    rules = load_policy(repository / "tests/project/data/policy.yaml").gates

    def gate(found: PartResult, name: str) -> Gate:
        rule = [rule for rule in rules if rule.number == f"data.{name}"]
        (decided,) = decide(rule, {"data": found.part}, found.findings, confidence=0.95)
        return decided

    return gate


def test_what_is_left_is_counted_by_split_rule_and_severity(tmp_path: Path, gates: Any) -> None:
    held_out = [document(9, f"# {MAIL}\n", licence="Apache-2.0")]
    found = measured(job(tmp_path, f"# {MAIL}, {MAIL}\n", CLEAN, f"a\nkey = '{KEY}' # {MAIL}\n", held_out=held_out))
    numbers = found.part.numbers
    assert [(numbers[name].value, numbers[name].trials) for name in ("secrets", "secrets_held_out")] == [(4, 3), (1, 1)]
    assert found.part.tables["findings"] == [
        {"split": "train", "rule": "aws-access-key", "severity": "critical", "findings": 1, "documents": 1},
        {"split": "train", "rule": "email", "severity": "medium", "findings": 3, "documents": 2},
        {"split": "held-out", "rule": "email", "severity": "medium", "findings": 1, "documents": 1},
    ]
    assert [(f.number, f.kind, f.source, f.path, f.line, f.column, f.licence) for f in found.findings] == [
        ("data.secrets", "email", "source-0", "0.py", 1, 3, "MIT"),
        ("data.secrets", "email", "source-0", "0.py", 1, 3 + len(MAIL) + 2, "MIT"),
        ("data.secrets", "aws-access-key", "source-2", "2.py", 2, 8, "MIT"),
        ("data.secrets", "email", "source-2", "2.py", 2, 8 + len(KEY) + 4, "MIT"),
        ("data.secrets_held_out", "email", "source-9", "9.py", 1, 3, "Apache-2.0"),
    ]
    assert len({finding.id for finding in found.findings}) == 5
    assert [gates(found, name).status for name in ("secrets", "secrets_held_out")] == ["fail", "warn"]
    stored = found.part.model_dump_json() + "".join(finding.model_dump_json() for finding in found.findings)
    assert KEY not in stored and MAIL not in stored


def test_every_field_of_a_document_is_read(tmp_path: Path) -> None:
    record = {"text": None, "prompt": f"# {MAIL}", "completion": f"'{KEY}'"}
    chat = {"text": None, "messages": f'[{{"role": "user", "content": "{MAIL}"}}]', "tools": f'["{KEY}"]'}
    named = {
        "licence": MAIL,
        "path": f"{MAIL}.py",
        "id": KEY,
        "group": MAIL,
        "meta": f'{{"by": "{MAIL}"}}',
        "source": MAIL,
    }
    documents = [
        replace(document(number, CLEAN), **fields)  # type: ignore[arg-type]
        for number, fields in enumerate((record, chat, named))
    ]
    found = measured(audit_job(tmp_path, train=documents))
    assert [finding.evidence.split("`")[1] for finding in found.findings] == [
        "prompt", "completion", "messages", "tools", "source", "path", "id", "group", "meta",
    ]  # fmt: skip
    assert not any(value in finding.model_dump_json() for finding in found.findings for value in (KEY, MAIL))
    assert MAIL not in found.part.model_dump_json()


def test_a_document_is_cleaned_as_often_whether_it_holds_one_value_or_many(tmp_path: Path) -> None:
    """1,000 addresses in one document once took 57 s, because each of them cleaned the whole document."""

    def cleaned(values: int) -> int:
        asked: list[str] = []

        def clean(text: str) -> str:
            asked.append(text)
            return one.clean(text)

        one = audit_job(tmp_path, train=[document(0, f"{MAIL}\n" * values)])
        scan = scan_split(replace(one, clean=clean), tmp_path / "train.parquet", number="data.secrets")
        assert scan.total == len({finding.id for finding in scan.findings.all()}) == values
        return len(asked)

    assert cleaned(1) == cleaned(50)


def test_the_gate_counts_findings_that_are_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gates: Any
) -> None:
    """Whoever accepts all that is listed has not accepted the rest."""
    monkeypatch.setattr(finding_list, "MOST_LISTED", 3)
    found = measured(job(tmp_path, *[f"# {MAIL}\n"] * 5))
    assert found.part.numbers["secrets"].value == 5
    assert [(finding.kind, finding.evidence) for finding in found.findings[3:]] == [
        ("unlisted", "findings of this number that are not listed: 2")
    ]
    accepted = [finding.model_copy(update={"accepted": "known"}) for finding in found.findings[:3]]
    assert gates(replace(found, findings=[*accepted, *found.findings[3:]]), "secrets").status == "fail"
    overlaps = [overlap(0, f"toy/{item}") for item in range(4)]
    hits = measured(job(tmp_path, CLEAN, overlaps=overlaps)).findings
    assert [(hit.kind, hit.number) for hit in hits[2:]] == [
        ("benchmark item", "data.benchmark_hits"),
        ("unlisted", "data.benchmark_hits"),
    ]
    assert hits[3].evidence == "findings of this number that are not listed: 1"


def test_clean_documents_pass(tmp_path: Path, gates: Any, project: Path) -> None:
    policy = load_policy(project / "data/policy.yaml")
    found = measured(job(tmp_path, CLEAN, CLEAN, held_out=[document(9, CLEAN)], policy=policy, near_cross=0))
    names = ("secrets", "secrets_held_out", "planted_recall", "false_positives", "policy_applied", "crossing")
    assert {name: gates(found, name).status for name in (*names, "benchmark_hits")} == dict.fromkeys(
        (*names, "benchmark_hits"), "pass"
    )
    planted = found.part.tables["planted"]
    assert {(row["found"], row["planted"]) for row in planted} == {(10, 10)}
    assert found.part.numbers["planted_recall"].trials == 10 * len(planted)
    assert found.findings == []


def test_a_scan_that_finds_nothing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gates: Any) -> None:
    monkeypatch.setattr(Scanner, "scan", lambda self, text: [])
    found = measured(job(tmp_path, f"# {MAIL}\n"))
    assert found.part.numbers["planted_recall"].value == 0
    control = next(control for control in found.part.controls if control.name == PLANTED)
    assert (control.passed, control.found.split(",")[0]) == (False, "0.000 of them")
    assert gates(found, "secrets").status == gates(found, "false_positives").status == "invalid"
    assert gates(found, "planted_recall").status == "fail"


def test_a_rule_that_misses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Scanner.scan
    monkeypatch.setattr(Scanner, "scan", lambda self, text: [f for f in whole(self, text) if f.rule != "email"])
    control = measured(job(tmp_path, CLEAN)).part.controls[0]
    assert not control.passed
    assert control.found.endswith(", not all of email")


def test_a_scan_that_finds_something_everywhere_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gates: Any
) -> None:
    """A policy that takes hash values for secrets finds all that is planted too."""
    policy = """
version: 1
rules:
  - {id: email, description: d, kind: personal, severity: low, action: redact, literals: ['@'], before: 70, edge: '',
     pattern: '[\\w.+-]{1,60}@[\\w-]{1,60}(?:\\.[\\w-]{1,30}){1,5}'}
  - {id: eager, description: d, kind: secret, severity: low, action: redact, literals: ['commit '],
     pattern: 'commit [0-9a-f]{40}'}
"""
    one = audit_job(tmp_path, train=[document(0, CLEAN)], policy=parse_policy(policy))
    found = measured(one)
    assert found.part.numbers["planted_recall"].value == 1
    rows = {row["rule"]: row["findings"] for row in found.part.tables["false_positives"]}
    assert rows["eager"] > 5
    assert found.part.numbers["false_positives"].value == pytest.approx(20 * sum(rows.values()), rel=0.1)
    assert gates(found, "false_positives").status == "fail"
    assert found.part.notes[0] == (
        "Nothing can be planted for these rules of the policy, so no control covers them: eager."
    )


def test_licences_are_counted_by_documents_and_bytes(tmp_path: Path) -> None:
    documents = [
        document(0, "äö\n", licence="MIT"),
        document(1, "a\n", licence="unknown"),
        document(2, "b\n", licence="MIT"),
        document(3, "c" * 11 + "\n", licence="Apache-2.0"),
    ]
    part = measured(audit_job(tmp_path, train=documents)).part
    assert part.tables["licences"] == [
        {"licence": "Apache-2.0", "documents": 1, "bytes": 12, "share": 0.571429},
        {"licence": "MIT", "documents": 2, "bytes": 7, "share": 0.333333},
        {"licence": "unknown", "documents": 1, "bytes": 2, "share": 0.095238},
    ]
    assert (part.numbers["unknown_licence"].value, part.numbers["unknown_licence"].trials) == (0.25, 4)


def overlap(number: int, item: str = "toy/1", start: int = 0) -> BenchmarkOverlap:
    return BenchmarkOverlap(
        source=f"source-{number}", path=f"{number}.py", id=f"id-{number}", benchmark="toy.jsonl", item=item,
        start=start, end=start + 5,
    )  # fmt: skip


def test_only_train_documents_with_a_benchmark_item_are_hits(tmp_path: Path, gates: Any) -> None:
    """Documents 7 and 8 were dropped by `split`; document 1 is in train, with two items."""
    overlaps = [overlap(7), overlap(1, start=6), overlap(1, "toy/2"), overlap(8)]
    found = measured(job(tmp_path, CLEAN, "x = 1\nsolve\n", overlaps=overlaps))
    assert (found.part.numbers["benchmark_hits"].value, found.part.numbers["benchmark_overlap"].value) == (1, 4)
    assert [(f.kind, f.path, f.line, f.evidence) for f in found.findings] == [
        ("benchmark item", "1.py", 2, "toy.jsonl: toy/1, 5 characters"),
        ("benchmark item", "1.py", 1, "toy.jsonl: toy/2, 5 characters"),
    ]
    assert (gates(found, "benchmark_hits").status, gates(found, "benchmark_hits").compared) == ("fail", 2)
    assert gates(measured(job(tmp_path, CLEAN, overlaps=overlaps[::3])), "benchmark_hits").status == "pass"


def test_benchmarks_that_nobody_searched_for_are_not_passed(tmp_path: Path, gates: Any) -> None:
    found = measured(job(tmp_path, CLEAN, benchmarks=()))
    assert gates(found, "benchmark_hits").status == "skipped"
    assert "No benchmark was searched for in the corpus: split.benchmarks is empty." in found.part.notes


def test_a_near_duplicate_across_the_splits_fails(tmp_path: Path, gates: Any) -> None:
    found = measured(job(tmp_path, CLEAN, near_cross=1))
    assert (found.part.numbers["crossing"].value, gates(found, "crossing").status) == (1, "fail")
    assert found.part.tables["leakage"][1] == {"what": "near-duplicate pairs across splits", "count": 1}


def test_a_policy_that_only_counted_fails(tmp_path: Path, gates: Any) -> None:
    assert gates(measured(job(tmp_path, CLEAN, state="off")), "policy_applied").status == "fail"


def test_reports_about_other_documents_prove_nothing(tmp_path: Path, gates: Any) -> None:
    found = measured(job(tmp_path, CLEAN, sha256="0" * 64))
    names = ("policy_applied", "crossing", "benchmark_hits")
    assert {gates(found, name).status for name in names} == {"invalid"}
    assert next(control for control in found.part.controls if control.name == SAME).passed is False
    assert gates(found, "secrets").status == "pass"


def test_documents_that_split_did_not_make_are_scanned_all_the_same(tmp_path: Path, gates: Any) -> None:
    found = measured(job(tmp_path, f"# {MAIL}\n"))
    assert gates(found, "secrets").status == "fail"
    assert {gates(found, name).status for name in ("policy_applied", "crossing", "benchmark_hits")} == {"skipped"}
    assert found.part.notes == ["`split` did not make these documents, so leakage and benchmarks are not known."]


def test_without_documents_the_part_is_skipped(tmp_path: Path) -> None:
    found = measured(audit_job(tmp_path))
    assert (found.part.status, found.part.why) == ("skipped", "the training documents are not known; give --train DATA")


def test_two_runs_give_the_same(tmp_path: Path) -> None:
    one = job(tmp_path, f"# {MAIL}\n", CLEAN, overlaps=[overlap(1)])
    assert data_side(one) == data_side(one)


def test_clean_text_depends_on_the_seed_only_and_has_its_size() -> None:
    texts = list(clean_texts(1))
    assert texts == list(clean_texts(1)) != list(clean_texts(2))
    assert CLEAN_BYTES <= sum(len(text.encode()) for text in texts) < CLEAN_BYTES * 1.02
    lines = "".join(texts)
    for shape in (
        "--hash=sha256:",
        "commit ",
        "sha512-",
        "ssh-ed25519 ",
        "@example.",
        "192.0.2.",
        "PUBLIC KEY",
        "git@",
    ):
        assert lines.count(shape) > 20, shape


@pytest.mark.shipped
@pytest.mark.parametrize("seed", range(2))
def test_the_policy_of_this_repository_finds_nothing_in_clean_text(repository: Path, seed: int) -> None:
    rules, texts, size = false_positives(Scanner(load_policy(repository / "data/policy.yaml")), seed=seed)
    assert (rules, size >= CLEAN_BYTES) == ([], True)
    assert texts > 100
