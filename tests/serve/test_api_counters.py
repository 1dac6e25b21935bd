"""The numbers of /metrics have all their digits: a rate over rounded counters is wrong."""

from __future__ import annotations

import pytest

from codex_ml.serve.api_counters import Counters


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1_234_567, "1234567"), (2**53 + 1, "9007199254740993"), (1234567.0, "1234567"), (0.125, "0.125"),
     (1234567.25, "1234567.25")],
)  # fmt: skip
def test_a_number_has_all_its_digits(value: float, text: str) -> None:
    lines = Counters().as_text({"prompt_tokens_total": ("counter", "Tokens of prompts", value)}).splitlines()
    assert lines[:3] == [
        "# HELP codex_ml_serve_prompt_tokens_total Tokens of prompts",
        "# TYPE codex_ml_serve_prompt_tokens_total counter",
        f"codex_ml_serve_prompt_tokens_total {text}",
    ]
