"""Findings: a long list ends with what it leaves out, an id names one content, and no part of a secret is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codex_ml.inference.audit_files import AuditFinding, AuditNumber, AuditPart, finding_id
from codex_ml.policy.gate_rules import GateRule
from codex_ml.safety_audit import finding_list
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.copy_findings import report_copies
from codex_ml.safety_audit.extraction_findings import extraction_findings
from codex_ml.safety_audit.finding_list import FindingList
from codex_ml.safety_audit.gates import decide
from codex_ml.safety_audit.generated import generated_text
from codex_ml.safety_audit.insecure_code import insecure_code
from codex_ml.safety_audit.sampled_texts import sampled_texts
from codex_ml.safety_audit.trace import trace

from .byte_audit import Quoter, audit_job, document, stream, written

# of one length, so that nothing else differs
SECRETS = ("Kx7#mQ2!vR9$", "Zw4%nT8&bY1*")  # pragma: allowlist secret
COUNT = GateRule(number="part.leaks", title="no leaks", compare="findings", fail=0)


def finding(place: int, number: str = "part.leaks") -> AuditFinding:
    return AuditFinding(
        id=finding_id(number, "leak", place), number=number, kind="leak", severity="high", source="s", path=str(place)
    )


def listed(monkeypatch: pytest.MonkeyPatch, *findings: AuditFinding, most: int = 2) -> list[AuditFinding]:
    monkeypatch.setattr(finding_list, "MOST_LISTED", most)
    return FindingList(findings).all()


def test_a_list_keeps_the_first_of_each_number_and_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    other = finding(9, "part.other")
    found = listed(monkeypatch, finding(3), other, finding(1), finding(2), finding(0))
    assert found[:3] == [finding(3), other, finding(1)]
    (rest,) = found[3:]
    assert (rest.kind, rest.number, rest.evidence[-3:]) == ("unlisted", "part.leaks", ": 2")
    assert listed(monkeypatch, finding(3), other, finding(1)) == [finding(3), other, finding(1)]


def test_accepting_all_listed_findings_does_not_pass_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    found = listed(monkeypatch, *map(finding, range(5)))
    part = {"part": AuditPart(title="Part", numbers={"leaks": AuditNumber(value=5, trials=9, unit="count")})}
    accepted = [one.model_copy(update={"accepted": "known"}) for one in found]
    for seen, status in ((2, "fail"), (3, "pass")):
        (gate,) = decide([COUNT], part, [*accepted[:seen], *found[seen:]], confidence=0.95)
        assert gate.status == status


def test_the_id_of_the_rest_names_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rests = [listed(monkeypatch, *map(finding, (0, 1, *left)))[-1].id for left in ((2, 3), (2, 4), (2, 3, 4), (2, 3))]
    assert len(set(rests)) == 3
    assert rests[0] == rests[3]


# An acceptance is for one content: the place is the same in each pair, and one value differs.

CODE = "import os\n\n\ndef show(name):\n    password = '{}'\n    os.system('cat ' + name)\n"
TEXT = "def connect(host):\n    return open_the_connection(host, port=8080, retries=3)\n\npassword = '{}'\n"


def of_insecure_code(folder: Path, secret: str) -> list[AuditFinding]:
    job = audit_job(folder, train=[document(0, "x = 1\n")], texts=written(CODE.format(secret), cut=False))
    return [one for one in insecure_code(job).findings if one.kind == "S605"]


def of_copied(folder: Path, secret: str) -> list[AuditFinding]:
    job = audit_job(folder, train=[document(0, TEXT.format(secret))], texts=written(TEXT.format(secret)[:70]))
    return report_copies(job).findings


def of_secrets_in_train(folder: Path, secret: str) -> list[AuditFinding]:
    job = audit_job(folder, train=[document(0, TEXT.format(secret))], texts=written(f"password = '{secret}'\n"))
    return [one for one in generated_text(job).findings if one.number == "generated.secrets_in_train"]


def of_memorisation(folder: Path, secret: str) -> list[AuditFinding]:
    from codex_ml.inference.likelihood import Window
    from codex_ml.safety_audit.extraction_tables import TRAIN

    from .test_extraction_tables import YES, np, side, window

    job = audit_job(folder, train=[document(0, TEXT.format(secret))])
    rows = job.data.train_rows
    assert rows is not None
    at = replace(window(start=1), window=Window(rows.tokens[1:13].astype(np.int64), np.ones(11, dtype=bool)))
    return extraction_findings(job, side(TRAIN, [(at, YES)]), tries=1000)


@pytest.mark.parametrize("part", [of_insecure_code, of_copied, of_secrets_in_train, of_memorisation])
def test_another_value_at_the_same_place_is_another_finding(
    tmp_path: Path, part: Callable[[Path, str], list[AuditFinding]]
) -> None:
    (first,), (second,), (again,) = (part(tmp_path, secret) for secret in (*SECRETS, SECRETS[0]))
    assert first == again
    assert first.id != second.id
    place = {"source", "path", "line", "column", "number", "kind"}
    assert first.model_dump(include=place) == second.model_dump(include=place)
    assert not any(secret in one.model_dump_json() for one in (first, second) for secret in SECRETS)


@pytest.mark.parametrize("part", [of_insecure_code, of_copied, of_secrets_in_train, of_memorisation])
def test_a_guess_of_a_value_cannot_be_confirmed_with_the_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: Callable[[Path, str], list[AuditFinding]]
) -> None:
    """The placeholders in the id have a key: with the same guess and another key, the id is another one."""
    (first,) = part(tmp_path, SECRETS[0])
    guess = [one.id for one in with_key(monkeypatch, b"a guess of the key", part, tmp_path)]
    assert guess != [first.id]


def with_key(monkeypatch: pytest.MonkeyPatch, key: bytes, part: Any, folder: Path) -> list[AuditFinding]:
    from . import byte_audit

    redact = byte_audit.redact
    monkeypatch.setattr(byte_audit, "redact", lambda text, found, _: redact(text, found, key))
    found: list[AuditFinding] = part(folder, SECRETS[0])
    return found


# What is shown begins and ends anywhere in a text, also inside a secret.


def parts_of(secret: str, size: int = 4) -> list[str]:
    return [secret[at : at + size] for at in range(len(secret) - size + 1)]


@pytest.mark.parametrize("known", [True, False])
def test_a_place_shows_no_part_of_a_secret_wherever_it_begins(tmp_path: Path, known: bool) -> None:
    lines = [f"value_{n} = {n}\npassword = '{secret}'\n" for n, secret in enumerate(SECRETS)]
    text = "# begin\n" * 9 + lines[0] + "# middle\n" * 9 + lines[1] + "# end\n" * 12
    job = audit_job(tmp_path, train=[document(0, text)])
    if not known:  # then the text is that of the tokens
        job = replace(job, data=replace(job.data, train=None))
    shown = [place.evidence for place in trace(job, range(1, len(text) + 1))]
    assert [part for part in {*parts_of(SECRETS[0]), *parts_of(SECRETS[1])} for one in shown if part in one] == []
    assert shown[0].startswith("# begin")
    assert all(len(one) <= 80 for one in shown)
    assert sum("assigned-password" in one for one in shown) > 100


def test_a_copy_that_ends_inside_a_secret_shows_no_part_of_it(tmp_path: Path) -> None:
    text = TEXT.format(SECRETS[0])
    inside = text.index(SECRETS[0]) + 8
    job = audit_job(tmp_path, train=[document(0, text)], texts=written(text[inside - 55 : inside]))
    (found,) = report_copies(job).findings
    assert found.evidence.startswith("55 tokens in sample 0: ")
    assert [part for part in parts_of(SECRETS[0]) if part in found.model_dump_json()] == []


def test_a_prompt_that_ends_inside_a_secret_of_its_document_is_stored_without_it(tmp_path: Path) -> None:
    text = f"a = 1\npassword = '{SECRETS[0]}'\n" + "# more\n" * 20
    inside = text.index(SECRETS[0]) + 8
    job = prompted(tmp_path, text, prefix_tokens=inside)
    sample = sampled_texts(job)[1]
    assert sample.prompt == text[:inside]
    assert sample.redacted_prompt(job) == text[: text.index(SECRETS[0])]
    outside = text.index("# more") + 6
    sample = sampled_texts(prompted(tmp_path, text, prefix_tokens=outside))[1]
    assert sample.redacted_prompt(job) == job.clean(text[:outside])


def prompted(folder: Path, text: str, **settings: int) -> AuditJob:
    return audit_job(folder, model=Quoter("", "a = 1\n"), held_out=stream(text), samples=2, sample_tokens=8, **settings)
