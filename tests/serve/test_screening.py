"""The filter of the endpoint with the repository's own policy: what an answer makes of the end of its prompt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from codex_ml.policy.filters import TextFilter, load_filter
from codex_ml.policy.rules import parse_policy
from codex_ml.serve.api_counters import Counters
from codex_ml.serve.screening import Screening, stricter

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def screening() -> Screening:
    return Screening(load_filter(DATA / "policy.yaml", DATA / "detectors.lock", DATA / "redaction_key"), "", Counters())


@pytest.mark.shipped
@pytest.mark.parametrize(
    ("before", "answer", "left", "rule"),
    [
        ("id = AKIA", "QW3RTYU4IOPA5DFG rest", "<SECRET:aws-access-key:TAG> rest", "aws-access-key"),
        ("# settings\nid = AKIAQW", "3RTYU4IOPA5DFG rest", "<SECRET:aws-access-key:TAG> rest", "aws-access-key"),
        ('password = "', 'kV7#mQ2x" rest', '<SECRET:assigned-secret:TAG>" rest', "assigned-secret"),
        ("word " * 200 + 'password = "kV7', '#mQ2x" rest', '<SECRET:assigned-secret:TAG>" rest', "assigned-secret"),
    ],
)
def test_the_end_of_a_prompt_and_an_answer_are_read_together(screening, before, answer, left, rule) -> None:
    alone, decision, _ = screening.answer(answer, "")
    assert (alone, decision) == (answer, "allow"), "neither half is a value"
    assert screening.prompt([before]) == ([before], "allow", "")
    whole, decision, why = screening.answer(answer, before)
    assert re.fullmatch(left.replace("TAG", "[0-9a-f]{8}"), whole)
    assert (decision, why) == ("redact", f"redacted: {rule}")
    gate = screening.gate(before)
    assert "".join(map(gate.push, answer)) + gate.finish() == whole
    assert (gate.decision, gate.why) == (decision, why)


POLICY = """
version: 1
detectors: []
providers:
  - {id: github-token, docs: "https://docs.github.com", action: redact, shapes: ['gh[pousr]_[A-Za-z0-9]{36,}']}
rules:
  - id: code-name
    description: Name of a project that is not public
    kind: personal
    severity: low
    action: redact
    literals: [zebrawood]
    pattern: zebrawood
filters:
  input: {personal: allow}
  output: {personal: refuse}
"""


def test_a_value_that_only_answers_may_not_hold_does_not_hide_the_end_of_the_prompt() -> None:
    screening = Screening(TextFilter(parse_policy(POLICY), b"a key of the tests"), "", Counters())
    before, rest = "for zebrawood: ghp_a1B2c3D4", "e5F6g7H8i9J0kLmNoPqRsTuVwXyZ0123456789"
    assert screening.prompt([before]) == ([before], "allow", "")
    left, decision, _ = screening.answer(f"{rest} ok", before)
    assert re.fullmatch("<SECRET:github-token:[0-9a-f]{8}> ok", left)
    assert decision == "redact"
    assert screening.answer("a word", before) == ("a word", "allow", "")
    assert screening.answer("zebrawood", before) == ("", "refuse", "the text holds code-name")


def test_the_stricter_of_two_decisions_brings_its_reason() -> None:
    assert stricter(("allow", ""), ("redact", "b")) == ("redact", "b")
    assert stricter(("refuse", "a"), ("redact", "b")) == ("refuse", "a")
    assert stricter(("redact", "a"), ("redact", "b")) == ("redact", "a")
    assert stricter((None, ""), (None, "")) == (None, "")
