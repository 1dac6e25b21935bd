"""The estimate before the work: every part has an entry, and more work takes longer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from codex_ml.safety_audit import cost
from codex_ml.safety_audit.audit_job import AuditData, AuditJob
from codex_ml.safety_audit.audit_numbers import NUMBERS
from codex_ml.safety_audit.config import SafetyAudit
from codex_ml.safety_audit.cost import Rates, Work, estimate, work_of


def job(**settings: Any) -> AuditJob:
    subject = SimpleNamespace(training=None, tokenizer=SimpleNamespace(chat_template=None))
    parts: dict[str, Any] = {"subject": subject, "policy": None, "scanner": None, "clean": str}
    return AuditJob(
        **parts,
        data=AuditData(),
        settings=SafetyAudit(**settings),
        seed=1,
        plots=Path(),
        track=lambda items, *_: iter(items),
    )


def test_every_part_that_gives_a_number_has_an_entry() -> None:
    assert set(work_of(job())) == {name.split(".")[0] for name in NUMBERS}


def test_a_part_without_its_documents_costs_nothing() -> None:
    work = work_of(job(samples=10, sample_tokens=7))
    assert (work["data"], work["memorisation"]) == (Work(), Work())
    assert work["generated"].written == 70


def test_only_a_chat_model_is_asked_for_refusals() -> None:
    one = job(sample_tokens=30)
    assert work_of(one)["refusals"] == Work()
    one.subject.tokenizer.chat_template = "a template"
    assert work_of(one)["refusals"].written == 48 * 30


def test_seconds_are_work_by_rate() -> None:
    rates = Rates(scored=100.0, written=10.0, scanned=1000.0, searched=50.0)
    assert rates.seconds(Work()) == 0
    assert rates.seconds(Work(scored=200, written=20, scanned=500, searched=150, seconds=0.25)) == pytest.approx(7.75)


def test_the_line_says_the_time_the_sizes_and_the_longest_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "measured_rates", lambda _: Rates(1.0, 100.0, 1.0, 1.0))
    work = {"generated": Work(written=9000), "memorisation": Work(scored=5), "data": Work(seconds=60)}
    monkeypatch.setattr(cost, "work_of", lambda _: work)
    assert estimate(job(windows=400, samples=50)) == (
        "about 2 min 35 s (size small: 400 windows of train and as many of held-out text, 50 texts; longest part: "
        "generated, 1 min 30 s)"
    )


def test_what_cannot_be_probed_costs_nothing() -> None:
    foreign = replace(job(), data=AuditData())
    rates = Rates(1.0, 1.0, cost._scanned_rate(foreign), cost._searched_rate(foreign))
    assert rates.seconds(Work(scanned=10**9, searched=10**9)) == 0
