"""Exact match, F1, ROUGE and edit similarity: values by hand, and of rouge-score where its tokens are ours."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from codex_ml.evaluate.metrics.protocol import Pair
from codex_ml.evaluate.metrics.registry import load_metrics

# output, reference, exact match and F1 after the normalisation of SQuAD; by hand
ANSWERS = [
    ("", "", 1, 1),
    ("", "dog", 0, 0),
    ("dog", "", 0, 0),
    ("The", "The", 1, 1),  # of a lone article nothing is left, so it stays as it is
    ("an", "the", 0, 0),
    ("An", "an", 0, 0),  # nothing is left of either; they differ as they are
    ("!", "!", 1, 1),
    ("a dog", "the dog", 1, 1),
    ("dog\t\n", " dog", 1, 1),
    ("DOG!", "dog", 1, 1),
    ("one two three four", "two three five", 0, 4 / 7),  # P 2/4, R 2/3
    ("no no no", "no", 0, 1 / 2),  # P 1/3, R 1/1
    ("ขอบคุณ", "ขอบคุณ", 1, 1),
    ("धन्यवाद मित्र", "धन्यवाद", 0, 2 / 3),
    ("犬", "猫", 0, 0),
]


@pytest.mark.parametrize(("output", "reference", "exact", "f1"), ANSWERS)
def test_answers_are_compared_as_squad_does(value_of, output, reference, exact, f1):
    assert value_of("exact_match_squad", (output, reference)) == exact
    assert value_of("token_f1", (output, reference)) == pytest.approx(f1, rel=1e-15)


def test_a_mean_over_pairs_is_the_mean_of_their_values(value_of):
    pairs = [answer[:2] for answer in ANSWERS]
    assert value_of("token_f1", *pairs) == pytest.approx(math.fsum(answer[3] for answer in ANSWERS) / len(ANSWERS))


@pytest.mark.parametrize(
    ("output", "reference", "raw", "stripped"),
    [("x\n", "x\n", 1, 1), ("x", "x\n", 0, 1), (" x", "x", 0, 1), ("X", "x", 0, 0), ("", "", 1, 1), ("", " ", 0, 1)],
)
def test_exact_match_raw_and_stripped(value_of, output, reference, raw, stripped):
    assert value_of("exact_match", (output, reference)) == raw
    assert value_of("exact_match_stripped", (output, reference)) == stripped


def test_operators_count_in_the_tokens_of_code(value_of):
    """rouge-score and the tokens of SQuAD drop both operators and see equal texts."""
    pair = ("a += b", "a -= b")
    for name in ("rouge1", "rougeL"):
        assert value_of(name, pair) == 3 / 4
    assert value_of("rouge2", pair) == 1 / 3
    assert value_of("token_f1", pair) == 1
    assert value_of("rouge1", ("+ - * /", "+ - * /")) == 1


ROUGE = [
    ("the small boat", "the old small boat", (6 / 7, 2 / 5, 6 / 7)),
    ("one two three", "three two one", (1, 0, 1 / 3)),
    ("a a a", "a", (1 / 2, 0, 1 / 2)),
    ("", "stone", (0, math.nan, 0)),  # ROUGE-2 has nothing to count
    ("", "", (math.nan,) * 3),
    ("tree", "tree", (1, math.nan, 1)),
    ("one\ntwo three", "one two\nthree", (1, 1, 1)),  # lines are white space
]


@pytest.mark.parametrize(("output", "reference", "values"), ROUGE)
def test_rouge_by_hand(value_of, output, reference, values):
    got = tuple(value_of(name, (output, reference)) for name in ("rouge1", "rouge2", "rougeL"))
    assert got == pytest.approx(values, rel=1e-15, nan_ok=True)


def test_a_pair_without_ngrams_does_not_count(value_of):
    assert value_of("rouge2", ("tree", "tree"), ("one two", "one two"), ("", "")) == 1


@pytest.mark.parametrize(
    "text", ["ขอบคุณ", "धन्यवाद मित्र", "猫が好き", "ünïcode größe", "x = {y: [1]}", "Ünder_score 5", "שלום עולם", "😀 😀"]
)
def test_a_text_is_like_itself_in_any_script(value_of, text):
    for name in ("rouge1", "rouge2", "rougeL", "token_f1", "edit_similarity", "exact_match"):
        assert value_of(name, (text, text)) == 1


def test_rouge_equals_rouge_score_on_lower_case_words():
    random.seed(11)
    vocabulary = [f"w{number}" for number in range(12)]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    metrics = load_metrics(["rouge1", "rouge2", "rougeL"])
    columns = [metrics.columns("pair").index(name) for name in ("rouge1", "rouge2", "rougeL")]
    for _ in range(300):
        output, reference = (" ".join(random.choices(vocabulary, k=random.randint(2, 30))) for _ in range(2))
        expected = scorer.score(reference, output)
        row = metrics.measure(Pair("", output, reference, "text"))
        assert [row[column] for column in columns] == pytest.approx(
            [expected[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")], rel=1e-12
        )


@pytest.mark.parametrize(
    ("output", "reference", "similarity"),
    [("kitten", "sitting", 1 - 3 / 7), ("", "", 1), ("", "abc", 0), ("猫x", "犬x", 1 / 2), ("flaw", "lawn", 1 - 2 / 4)],
)
def test_edit_similarity_is_one_minus_levenshtein_by_the_longer(value_of, output, reference, similarity):
    assert value_of("edit_similarity", (output, reference)) == pytest.approx(similarity, rel=1e-15)


def test_weighted_accuracy_weighs_exact_matches():
    metrics = load_metrics(["weighted_accuracy"])
    pairs = [Pair("", "yes ", "yes", "text", 3.0), Pair("", "no", "yes", "text", 1.0), Pair("", "a", "b", "text", 0.0)]
    rows = [metrics.measure(pair) for pair in pairs]
    metric = metrics["weighted_accuracy"]
    assert metrics.aggregate(metric, np.sum(rows, axis=0)) == 3 / 4
    assert math.isnan(metrics.aggregate(metric, rows[2]))
