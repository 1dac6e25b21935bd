"""Distinct-n over equal lengths, and the share of repeated n-grams; values by hand."""

from __future__ import annotations

import math

import pytest

ABC = " ".join("abcdefghijklmnopqrstuvwxyzABCDEF")  # 32 different tokens


def test_distinct_n_counts_different_ngrams_in_segments_of_32_tokens(value_of):
    assert [value_of(f"distinct_{n}", (ABC, "")) for n in (1, 2, 3)] == [1, 1, 1]
    same = "a " * 32
    assert [value_of(f"distinct_{n}", (same, "")) for n in (1, 2, 3)] == [1 / 32, 1 / 31, 1 / 30]
    pairs = "a b " * 16
    assert [value_of(f"distinct_{n}", (pairs, "")) for n in (1, 2, 3)] == [2 / 32, 2 / 31, 2 / 30]


def test_distinct_n_does_not_fall_with_the_length_of_a_text(value_of):
    assert value_of("distinct_1", (f"{ABC} {ABC} {ABC} rest", "")) == 1
    assert value_of("distinct_1", (f"{ABC} " + "a " * 32, "")) == 33 / 64


def test_a_text_below_the_budget_does_not_count(value_of):
    assert math.isnan(value_of("distinct_1", ("a " * 31, "")))
    assert value_of("distinct_1", ("a " * 31, ""), (ABC, "")) == 1


@pytest.mark.parametrize(
    ("output", "rate"),
    [
        ("a b c d", 0),
        ("a a a a a", 1 / 2),  # two 4-grams, one of them different
        ("x y " * 10, 1 - 2 / 17),
        ("a b c", math.nan),
        ("", math.nan),
    ],
)
def test_repetition_rate_is_the_share_of_4grams_that_were_there_before(value_of, output, rate):
    assert value_of("repetition_rate", (output, "")) == pytest.approx(rate, rel=1e-15, nan_ok=True)


def test_repetition_rate_is_a_mean_over_outputs_with_a_4gram(value_of):
    assert value_of("repetition_rate", ("a a a a a", ""), ("a b c d", ""), ("a", "")) == 1 / 4


def test_blank_outputs_and_short_texts_are_counted(value_of):
    assert value_of("empty_rate", ("", "x"), (" \n", "x"), ("x", "")) == 2 / 3
    assert value_of("short_rate", ("a b c d", "a b c"), ("a b c d", "a b c d")) == 1 / 2
