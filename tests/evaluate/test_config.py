"""Values of the section `evaluate` that are refused before any work, each with one line."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from codex_ml.cli.param_rules import validate_params
from codex_ml.core.errors import UserError
from codex_ml.evaluate.config import LONGEST_NGRAM, Code, Evaluate, benchmark_name
from codex_ml.evaluate.ngram import HIGHEST_ORDER

BELOW = "only files below data/benchmarks are a dep of evaluate, found {}; move the file there"
HUMAN_EVAL = ["data/benchmarks/HumanEval.jsonl.gz"]
WRONG = [
    ({"completions": {"documents": -1}}, "completions.documents: input should be greater than or equal to 0; found -1"),
    ({"completions": {"max_tokens": 0}}, "completions.max_tokens: input should be greater than 0; found 0"),
    (
        {"completions": {"split_at": "word"}},
        "completions.split_at: input should be 'line', 'token' or 'function'; found 'word'",
    ),
    (
        {"completions": {"temperature": -0.1}},
        "completions.temperature: input should be greater than or equal to 0; found -0.1",
    ),
    (
        {"completions": {"temperature": 1e-40}},
        "completions.temperature: a temperature above 0 must be at least 0.001, found 1e-40; 0 is greedy",
    ),
    ({"completions": {"top_k": -1}}, "completions.top_k: input should be greater than or equal to 0; found -1"),
    ({"completions": {"top_p": 0}}, "completions.top_p: input should be greater than 0; found 0"),
    ({"completions": {"top_p": 1.5}}, "completions.top_p: input should be less than or equal to 1; found 1.5"),
    (
        {"completions": {"repetition_penalty": 1e-40}},
        "completions.repetition_penalty: expected 0.01 to 100, found 1e-40; it divides logits, and a factor beyond 100 "
        "would decide alone; 1 means none",
    ),
    ({"completions": {"repetition_penalty": 101}}, "completions.repetition_penalty: expected 0.01 to 100, found 101; "),
    (
        {"completions": {"stop": [""]}},
        "completions.stop: an empty string is part of every text, so nothing would be generated; remove it",
    ),
    (
        {"completions": {"stop": ["a\ufffd"]}},
        "completions.stop: the character U+FFFD stands for bytes that are not text; remove it",
    ),
    ({"completions": {"stop": ["#", "#"]}}, "completions.stop: # is listed twice; remove one"),
    (
        {"completions": {"max_tokens": 256}},
        "completions.max_tokens 256 leaves no room for a prompt in a row (pack.seq_len 256); lower it, or set "
        "evaluate.completions.documents to 0",
    ),
    (
        {"completions": {"documents": 0, "max_tokens": 65}},
        "completions.max_tokens has no effect with evaluate.completions.documents 0; remove it, or write 64, its default",
    ),
    (
        {"completions": {"top_p": 0.9}},
        "completions.top_p has no effect with evaluate.completions.temperature 0.0; remove it, or write 1.0, its default",
    ),
    (
        {"completions": {"top_k": 5}},
        "completions.top_k has no effect with evaluate.completions.temperature 0.0; remove it, or write 0, its default",
    ),
    ({"benchmarks": ["HumanEval.jsonl"]}, "benchmarks: " + BELOW.format("HumanEval.jsonl")),
    ({"benchmarks": ["data/benchmarks/../x.jsonl"]}, "benchmarks: " + BELOW.format("data/benchmarks/../x.jsonl")),
    (
        {"benchmarks": ["data/benchmarks/x.csv"]},
        "benchmarks: expected a name that ends in .jsonl or .jsonl.gz, found data/benchmarks/x.csv",
    ),
    (
        {"benchmarks": ["data/benchmarks/a/x.jsonl", "data/benchmarks/b/x.jsonl.gz"]},
        "benchmarks: two files have the name x, and results are named by it; rename one",
    ),
    ({"benchmarks": HUMAN_EVAL * 2}, f"benchmarks: {HUMAN_EVAL[0]} is listed twice; remove one"),
    ({"code": {"samples": 0}}, "code.samples: input should be greater than 0; found 0"),
    ({"code": {"k": [0]}}, "code.k.0: input should be greater than 0; found 0"),
    ({"code": {"memory_mb": 63}}, "code.memory_mb: input should be greater than or equal to 64; found 63"),
    ({"code": {"cpu_seconds": 0}}, "code.cpu_seconds: input should be greater than 0; found 0"),
    (
        {"code": {"samples": 5}, "benchmarks": HUMAN_EVAL},
        "code: temperature 0 gives the same program 5 times; use samples: 1, or a temperature above 0",
    ),
    (
        {"code": {"temperature": 0.8}},
        "code.temperature has no effect with evaluate.benchmarks []; remove it, or write 0.0, its default",
    ),
    (
        {"code": {"max_tokens": 256}, "benchmarks": HUMAN_EVAL},
        "code.max_tokens 256 leaves no room for a prompt, because the model sees model.max_positions 256 tokens; "
        "lower it",
    ),
    (
        {"compare_to": "data/baselines"},
        "compare_to: only folders below data/baselines are a dep of evaluate; copy the ",
    ),
    ({"metrics": "chrf"}, "metrics: input should be a valid list; found 'chrf'"),
]


@pytest.mark.parametrize(("section", "message"), WRONG)
def test_a_value_that_cannot_be_used_is_refused_in_one_line(section: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        validate_params({"evaluate": section})
    assert f"evaluate.{message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_benchmark_that_fetch_does_not_bring_is_refused() -> None:
    sections: dict[str, Any] = {"evaluate": {"benchmarks": ["data/benchmarks/sample/HumanEval.jsonl.gz"]}}
    with pytest.raises(UserError, match=r"is empty; remove its files from evaluate\.benchmarks \(without other files"):
        validate_params(sections | {"fetch": {"benchmarks": False}})
    validate_params(sections | {"fetch": {"benchmarks": True}})


def test_the_highest_order_of_the_setting_is_that_of_the_model() -> None:
    assert LONGEST_NGRAM == HIGHEST_ORDER
    assert Evaluate().ngram_order <= HIGHEST_ORDER


@pytest.mark.parametrize(("k", "message"), [((2,), "k 2 needs at least as many samples"), ((1, 1), "listed twice")])
def test_pass_at_k_needs_k_different_samples(k: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Code(k=k, samples=1)


def test_a_benchmark_has_the_name_of_its_file() -> None:
    names = map(benchmark_name, ("a/HumanEval.jsonl.gz", "a/b.c.jsonl", "mbpp.jsonl"))
    assert list(names) == ["HumanEval", "b.c", "mbpp"]
