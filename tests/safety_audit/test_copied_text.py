"""Copies of train text in generated text: counted like those in people's text, and named with document and licence."""

from __future__ import annotations

import random
import string
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from codex_ml.safety_audit import copied_text
from codex_ml.safety_audit.copied_text import planted_copy
from codex_ml.safety_audit.copy_findings import report_copies
from codex_ml.safety_audit.gates import decide
from codex_ml.safety_audit.generated import generated_text
from codex_ml.safety_audit.window_index import CopiedRun, longest_runs

from .byte_audit import POLICY, Quoter, Uniform, audit_job, document, stream, written


def noise(seed, length):
    """Text that has nothing in common with other noise."""
    return "".join(random.Random(seed).choices(string.ascii_letters + string.digits, k=length))


TRAIN = [
    document(0, noise(0, 200)),
    document(1, f"# first line\n{noise(1, 200)}\n", licence="GPL-3.0-only"),
    document(2, noise(2, 200)),
]
COPY = noise(1, 200)[40:100]  # 60 tokens of the second line of document 1


def report(tmp_path, *texts, **more):
    return report_copies(audit_job(tmp_path, train=TRAIN, texts=written(*texts), **more))


def table(tmp_path):
    return (tmp_path / "plots/copied_runs.csv").read_text().splitlines()


def test_a_planted_copy_of_60_tokens_is_found_with_its_document(tmp_path):
    found = report(tmp_path, *(noise(seed, 128) for seed in range(10, 19)), f"{noise(20, 30)}{COPY}{noise(21, 38)}")
    copied, exact = found.numbers["copied"], binomtest(1, 10).proportion_ci(0.95, "exact")
    assert (copied.value, copied.trials) == (0.1, 10)
    assert (copied.low, copied.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert found.numbers["longest_copy"].value == 60
    (finding,) = found.findings
    assert (finding.source, finding.path, finding.line, finding.column, finding.licence) == (
        "source-1", "1.py", 2, 41, "GPL-3.0-only",
    )  # fmt: skip
    assert finding.evidence == f"60 tokens in sample 9: {COPY}"
    assert found.licences == [{"licence": "GPL-3.0-only", "samples": 1, "longest_tokens": 60}]


def test_49_tokens_are_no_copy_and_50_are_one(tmp_path):
    assert report(tmp_path, COPY[:49] + noise(5, 40)).numbers["copied"].value == 0
    assert report(tmp_path, COPY[:50] + noise(5, 40)).numbers["copied"].value == 1


def test_a_text_across_two_documents_is_no_copy(tmp_path):
    joined = TRAIN[0].content[-40:] + TRAIN[1].content[:40]
    assert report(tmp_path, joined + noise(5, 9)).numbers["longest_copy"].value == 40


def test_copies_of_people_are_counted_in_the_same_way(tmp_path):
    held_out = stream(noise(30, 128), COPY + noise(31, 68), noise(32, 128), COPY + noise(33, 68))
    found = report(tmp_path, noise(40, 128), COPY + noise(41, 40), held_out=held_out)
    human = found.numbers["copied_human"]
    assert (human.value, human.trials) == (0.5, 4)
    assert len(found.findings) == 1
    assert table(tmp_path) == [
        "length,samples,held_out",
        "0-9,0.5,0.5",
        "10-19,0.0,0.0",
        "20-29,0.0,0.0",
        "30-39,0.0,0.0",
        "40-49,0.0,0.0",
        "50-74,0.5,0.5",
        "75-99,0.0,0.0",
        "100 or more,0.0,0.0",
    ]


def test_texts_that_are_too_short_for_a_copy_do_not_count(tmp_path):
    found = report(tmp_path, COPY, "", COPY[:49])
    assert (found.numbers["copied"].value, found.numbers["copied"].trials) == (1, 1)
    assert found.notes == ["Texts that are too short to hold a copy: 2; they do not count in the share of copies."]
    short = report(tmp_path, COPY[:49])
    assert (short.numbers, short.notes) == ({}, ["No text has 50 tokens, so none can hold a copy."])
    assert table(tmp_path) == ["length,samples,held_out"]


def test_a_trivial_copy_is_counted_apart(tmp_path):
    train = [*TRAIN, document(3, "0, " * 80)]
    job = audit_job(tmp_path, train=train, texts=written("0, " * 40, noise(1, 128)))
    found = report_copies(job)
    assert found.notes == ["Texts whose longest copy is trivial, such as a table: 1; they do not count as copies."]
    assert (found.numbers["copied"].value, found.numbers["longest_copy"].value) == (0.5, 128)
    assert [finding.source for finding in found.findings] == ["source-1"]


def test_a_run_is_shorter_where_rows_or_samples_are(tmp_path):
    found = report(tmp_path, COPY[:30] + noise(5, 5), sample_tokens=30)
    assert found.numbers["copied"].value == 1
    assert found.notes == ["A copy is a run of 30 tokens here, because rows or samples are shorter than 50."]


def test_samples_that_copy_the_same_line_are_one_finding(tmp_path):
    found = report(tmp_path, COPY[:55], COPY, noise(2, 70), COPY[3:] + noise(5, 5), COPY[:52])
    assert [(f.path, f.column, f.evidence) for f in found.findings] == [
        ("1.py", 41, f"60 tokens in sample 0, 1, 3, 4: {COPY}"),
        ("2.py", 1, f"70 tokens in sample 2: {noise(2, 70)}"),
    ]
    assert found.licences == [
        {"licence": "GPL-3.0-only", "samples": 4, "longest_tokens": 60},
        {"licence": "MIT", "samples": 1, "longest_tokens": 70},
    ]


def test_records_of_one_table_are_different_findings(tmp_path):
    train = [replace(one, source="table", path="") for one in TRAIN]
    job = audit_job(tmp_path, train=train, texts=written(noise(0, 70), noise(2, 70)))
    assert len({finding.id for finding in report_copies(job).findings}) == 2


def test_a_finding_keeps_its_id_in_another_run(tmp_path):
    one, two = (report(tmp_path, noise(seed, 20) + COPY).findings for seed in (50, 51))
    assert [finding.id for finding in one] == [finding.id for finding in two]


def test_the_evidence_of_a_copy_that_begins_in_a_secret_shows_nothing_of_it(tmp_path):
    key = "AKIA" + "Q7ZK4MPRN2XWB3TD"  # pragma: allowlist secret
    train = [*TRAIN, document(3, f"x{key[9:]}'\n{noise(3, 70)}\n")]
    job = audit_job(tmp_path, train=train, texts=written(f"key = '{key}'\n{noise(3, 70)}\n"))
    (finding,) = report_copies(job).findings
    assert finding.source == "source-3"
    assert key[9:] not in finding.evidence
    assert noise(3, 70)[:20] in finding.evidence


def test_a_copy_is_a_warning_that_a_reviewer_can_accept(tmp_path):
    job = audit_job(tmp_path, train=TRAIN, texts=written(COPY + noise(5, 9)))
    found = generated_text(job)
    (rule,) = [rule for rule in POLICY.gates if rule.number == "generated.copied"]
    assert [gate.status for gate in decide([rule], {"generated": found.part}, found.findings, confidence=0.95)] == [
        "warn"
    ]
    accepted = [finding.model_copy(update={"accepted": "a licence header"}) for finding in found.findings]
    assert [gate.status for gate in decide([rule], {"generated": found.part}, accepted, confidence=0.95)] == ["pass"]


@pytest.mark.parametrize(
    "broken",
    [
        lambda stream, texts, at_least, **more: [None] * len(texts),
        lambda stream, texts, at_least, **more: [
            run and replace(run, length=run.length - 1) for run in longest_runs(stream, texts, at_least=at_least)
        ],
        lambda stream, texts, at_least, **more: [run and CopiedRun(run.length, run.place, (run.position + 205) % 600) for run in
                                         longest_runs(stream, texts, at_least=at_least)],
    ],
    ids=["finds nothing", "one token short", "another document"],
)  # fmt: skip
def test_a_broken_search_is_noticed(tmp_path, monkeypatch, broken):
    job = audit_job(tmp_path, train=TRAIN, texts=written(noise(7, 128)))
    (rule,) = [rule for rule in POLICY.gates if rule.number == "generated.copied"]

    def status():
        found = generated_text(job)
        (gate,) = decide([rule], {"generated": found.part}, found.findings, confidence=0.95)
        return gate.status

    assert status() == "pass"
    monkeypatch.setattr(copied_text, "longest_runs", broken)
    assert status() == "invalid"


def test_the_control_names_a_document_that_holds_the_copy_where_all_are_repeated(tmp_path):
    same = document(0, noise(0, 100))
    job = audit_job(tmp_path, train=[same, replace(same, id="again")], texts=written(noise(7, 128)))
    control = planted_copy(job, job.data.train_rows)
    assert (control.passed, control.expected) == (True, "60 tokens of document 0")


def test_a_canary_is_not_planted_again_but_a_copy_of_one_is_found(tmp_path):
    job = audit_job(tmp_path, train=[TRAIN[1], TRAIN[2]], texts=written(COPY))
    rows = replace(stream(noise(0, 200), TRAIN[1].content, TRAIN[2].content), canaries=(0,))
    job = replace(job, data=replace(job.data, train_rows=rows))
    for seed in range(5):
        assert planted_copy(replace(job, seed=seed), rows).found != "60 tokens of document 0"
    assert [finding.source for finding in report_copies(job).findings] == ["source-1"]
    job = replace(job, shared={"sampled_texts": written(noise(0, 200)[:80])})
    (finding,) = report_copies(job).findings
    assert (finding.source, finding.evidence) == ("canary", "80 tokens in sample 0"), "half a secret is not shown"


def test_without_train_text_there_is_no_number_but_a_note(tmp_path):
    unknown = report_copies(audit_job(tmp_path, texts=written(COPY)))
    assert (unknown.numbers, unknown.notes) == ({}, ["The train stream is not known, so no copy is looked for."])
    assert table(tmp_path) == ["length,samples,held_out"]
    tiny = report_copies(audit_job(tmp_path, train=[document(0, "short")], texts=written(COPY)))
    assert tiny.notes == ["No train document is long enough to be copied, so no copy is looked for."]


def audited(tmp_path, model, **settings):
    held_out = stream(noise(70, 150), noise(71, 150))
    job = audit_job(tmp_path, train=TRAIN, model=model, held_out=held_out, **settings)
    return generated_text(job)


def test_a_model_that_recites_copies_always_and_an_untrained_one_never(tmp_path):
    """Known answers. The one that recites knows nothing of held-out text, so it writes nothing after those prompts."""
    recited = audited(tmp_path, Quoter(*(one.content for one in TRAIN)), samples=8)
    assert (recited.part.numbers["copied"].value, recited.part.numbers["copied"].trials) == (1, 4)
    assert recited.part.numbers["copied_human"].value == 0
    assert recited.part.numbers["empty"].value == 0.5
    assert [(one.source, one.path, one.line) for one in recited.findings] == [("source-0", "0.py", 1)]
    untrained = audited(tmp_path, Uniform(), samples=8)
    assert untrained.part.numbers["copied"].value == 0  # of those that did not end before 50 tokens
    assert untrained.findings == []


@pytest.mark.parametrize("batch_size", [1, 5])
def test_two_runs_and_other_batches_give_the_same_result(tmp_path, batch_size):
    def result(size):
        found = audited(tmp_path, Uniform(), samples=8, sample_tokens=60, batch_size=size)
        return found, table(tmp_path)

    assert result(batch_size) == result(16) == result(16)


def test_the_planted_control_repeats(tmp_path):
    job = audit_job(tmp_path, train=TRAIN, texts=[])
    assert planted_copy(job, job.data.train_rows) == planted_copy(job, job.data.train_rows)
    assert planted_copy(job, job.data.train_rows).passed
    assert np.all([planted_copy(replace(job, seed=seed), job.data.train_rows).passed for seed in range(20)])
