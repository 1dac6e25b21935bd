"""The filter of the endpoint with the repository's own policy: what an answer makes of the end of its prompt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from codex_ml.policy.filters import load_filter
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
        ('password = "', 'kV7#mQ2x" rest', '<SECRET:assigned-password:TAG>" rest', "assigned-password"),
        ("word " * 200 + 'password = "kV7', '#mQ2x" rest', '<SECRET:assigned-password:TAG>" rest', "assigned-password"),
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


def test_the_stricter_of_two_decisions_brings_its_reason() -> None:
    assert stricter(("allow", ""), ("redact", "b")) == ("redact", "b")
    assert stricter(("refuse", "a"), ("redact", "b")) == ("refuse", "a")
    assert stricter(("redact", "a"), ("redact", "b")) == ("redact", "a")
    assert stricter((None, ""), (None, "")) == (None, "")
