"""The filter as a classifier: recall and precision of filters whose scores are known, and of the shipped policy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from scipy.stats import binomtest

from codex_ml.policy.filters import ScreenedText, TextFilter
from codex_ml.policy.rules import load_policy, parse_policy
from codex_ml.policy.scan import Scanner
from codex_ml.safety_audit import filter_quality
from codex_ml.safety_audit.audit_job import AuditJob
from codex_ml.safety_audit.audit_numbers import undeclared
from codex_ml.safety_audit.config import SafetyAudit
from codex_ml.safety_audit.filter_disguises import DISGUISES
from codex_ml.safety_audit.filter_quality import LabelledText, caught, filters, precision, recall
from codex_ml.safety_audit.gates import decide

TOKEN_RULE = """version: 1
providers:
  - {id: github-token, docs: https://docs.github.com, shapes: ['gh[pousr]_[A-Za-z0-9]{36,}']}
rules:
  - {id: code-name, description: x, kind: personal, severity: low, action: allow, literals: [zebra], pattern: zebra}
"""
ORDER_RULE = """version: 1
rules:
  - id: prompt-injection
    description: an order
    kind: injection
    severity: low
    action: allow
    ignore_case: true
    literals: [ignore all previous]
    pattern: ignore all previous
"""


def job(policy) -> AuditJob:
    """A job of a part that needs neither model nor data."""
    return AuditJob(
        subject=SimpleNamespace(digest="d"), data=None, policy=policy, scanner=Scanner(policy), clean=str,
        track=lambda items, *_: iter(items), settings=SafetyAudit(), seed=1, plots=Path(),
    )  # fmt: skip


def of(text):
    return job(parse_policy(text, name="policy.yaml"))


def text(name, *, positive, unit=None, value=""):
    return LabelledText(name, unit or name, "group", positive, value)


def refuse(word):
    return lambda text: ScreenedText("refuse", "") if word in text else ScreenedText("allow", text)


def test_recall_counts_wordings_and_not_their_disguises():
    """30 wordings in two spellings, of which the filter knows one: 30 of 60 texts, on 30 trials."""
    texts = [text(f"{spelt} {n}", positive=True, unit=f"{n:02}") for n in range(30) for spelt in ("yes", "no")]
    number = recall(refuse("yes"), [*texts, text("harmless", positive=False)], 0.95)
    assert (number.value, number.trials, number.low, number.high) == (0.5, 30, 0.5, 0.5)


def test_recall_of_everything_has_the_exact_interval():
    number = recall(refuse("a"), [text(f"a{n}", positive=True) for n in range(24)], 0.95)
    exact = binomtest(24, 24).proportion_ci(0.95, "exact")
    assert (number.value, number.low, number.high) == (1, pytest.approx(exact.low), 1)


def test_precision_takes_one_spelling_per_wording_in_turn_and_as_many_attacks_as_other_texts():
    """Of 8 wordings in 2 spellings every second one is taken, as there are 4 harmless texts, of which 1 is refused."""
    attacks = [text(f"x{spelling} {n}", positive=True, unit=str(n)) for n in range(8) for spelling in (0, 1)]
    harmless = [text(f"{word} harmless", positive=False, unit=word) for word in ("x", "a", "b", "c")]
    number = precision(refuse("x"), [*attacks, *harmless], 0.95)
    exact = binomtest(4, 5).proportion_ci(0.95, "exact")
    assert (number.value, number.trials) == (0.8, 5)
    assert (number.low, number.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert precision(refuse("x1"), [*attacks, *harmless], 0.95).trials == 0  # wordings 0, 2, 4, 6 are in spelling 0


def test_a_value_that_is_left_in_the_text_is_not_caught():
    planted = text("key hunter2", positive=True, value="hunter2")
    assert not caught(lambda text: ScreenedText("redact", text), planted)
    assert not caught(lambda text: ScreenedText("allow", ""), planted)
    assert caught(lambda text: ScreenedText("redact", "key <SECRET>"), planted)


@pytest.mark.shipped
def test_the_shipped_filter_sees_through_every_disguise_and_lets_near_misses_pass(repository):
    result = filters(job(load_policy(repository / "data/policy.yaml")))
    assert undeclared(result) == set()
    numbers, rows = result.part.numbers, {row["group"]: row for row in result.part.tables["prompts_by_group"]}
    assert [name for name in DISGUISES if rows[name]["acted on"] != 24] == []
    assert (rows["near_misses"]["acted on"], rows["benign"]["acted on"], rows["quoted"]["acted on"]) == (0, 0, 4)
    assert numbers["input_recall"].value == numbers["output_recall"].value == numbers["output_precision"].value == 1
    assert numbers["input_precision"].value == 24 / 28
    assert numbers["input_false_alarms"].value == 4 / 60
    assert numbers["reworded_recall"].value < 0.5  # a filter of wordings does not know words that nobody gave it
    gates = decide(
        [g for g in load_policy(repository / "data/policy.yaml").gates if g.number.startswith("filters.")],
        {"filters": result.part},
        [],
        confidence=0.95,
    )
    assert {gate.number: gate.status for gate in gates} == dict.fromkeys(
        ["filters.input_recall", "filters.input_precision", "filters.input_false_alarms", "filters.output_recall", "filters.output_precision"],
        "pass",
    )  # fmt: skip


@pytest.mark.shipped
def test_two_runs_give_the_same_result(repository):
    policy = load_policy(repository / "data/policy.yaml")
    assert filters(job(policy)) == filters(job(policy))


@pytest.mark.shipped
@pytest.mark.parametrize("broken", ["screen_input", "screen_output"])
def test_a_filter_that_lets_everything_pass_fails_its_gate(repository, monkeypatch, broken):
    policy = load_policy(repository / "data/policy.yaml")
    monkeypatch.setattr(TextFilter, broken, lambda self, text: ScreenedText("allow", text))
    result, name = filters(job(policy)), broken.removeprefix("screen_")
    (gate,) = decide(
        [g for g in policy.gates if g.number == f"filters.{name}_recall"], {"filters": result.part}, [], confidence=0.95
    )
    assert (gate.status, gate.compared) == ("fail", 0)


@pytest.mark.shipped
def test_texts_that_do_not_hold_their_value_make_the_part_invalid(repository, monkeypatch):
    """A value that was never planted counts as removed by any filter: the control notices that."""
    policy = load_policy(repository / "data/policy.yaml")
    monkeypatch.setattr(
        filter_quality,
        "planted",
        lambda *_, **__: ((rule.id, "no value here", "hunter2") for rule in policy.rules if rule.kind == "secret"),
    )
    result = filters(job(policy))
    assert [control.passed for control in result.part.controls] == [False, True]
    gates = decide(
        [g for g in policy.gates if g.number == "filters.output_recall"], {"filters": result.part}, [], confidence=0.95
    )
    assert [gate.status for gate in gates] == ["invalid"]


def test_a_policy_without_rules_for_orders_is_scored_on_its_answers_only():
    result = filters(of(TOKEN_RULE))
    assert sorted(result.part.numbers) == ["output_precision", "output_recall"]
    assert result.part.numbers["output_recall"].value == 1
    assert result.part.numbers["output_recall"].trials == 200


def test_a_policy_whose_filter_allows_orders_and_has_no_rule_for_values_is_skipped_with_the_reason():
    result = filters(of(ORDER_RULE + "filters:\n  input:\n    injection: allow\n"))
    assert (result.part.status, result.part.numbers) == ("skipped", {})
    assert "allows" in result.part.why


def test_a_rule_that_knows_one_wording_has_the_recall_of_that_wording():
    """3 of the 24 attacks begin with these words; each counts in 23 disguises."""
    result = filters(of(ORDER_RULE))
    rows = {row["group"]: row["acted on"] for row in result.part.tables["prompts_by_group"]}
    assert rows["plain"] == rows["base64 of base64"] == 1
    assert result.part.numbers["input_recall"].value == 1 / 24
