"""Texts of any script, and code, have tokens."""

from __future__ import annotations

import pytest

from codex_ml.evaluate.metrics.lexing import CHARACTERS, ngrams, words


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \n\t", []),
        ("a_1 += f(x)", ["a_1", "+", "=", "f", "(", "x", ")"]),
        ("don't  stop\n", ["don", "'", "t", "stop"]),
        ("ünïcode naïve", ["ünïcode", "naïve"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),  # vowel signs and virama belong to the word
        ("e\u0301te\u0301 a", ["e\u0301te\u0301", "a"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),  # a letter with its marks
        ("猫が好き", ["猫", "が", "好", "き"]),
        ("x猫1", ["x", "猫", "1"]),
        ("a→b 😀", ["a", "→", "b", "😀"]),
        ("ß \ud800", ["ß", "\ud800"]),  # a lone surrogate is a character like others
    ],
)
def test_words_and_signs(text, tokens):
    assert list(words(text)) == tokens


def test_ngrams_are_the_runs_of_tokens():
    assert ngrams(("a", "b", "c"), 2) == [("a", "b"), ("b", "c")]
    assert ngrams(("a",), 2) == []


def test_only_the_first_characters_of_a_huge_text_count():
    assert len(words("+" * (1 << 22))) == CHARACTERS
    assert words("x" * (1 << 22)) == ("x" * CHARACTERS,)
