"""BLEU and chrF from sums of statistics equal sacrebleu on the whole corpus, and on every resample of it."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import sacrebleu

from codex_ml.evaluate.metrics.lexing import words
from codex_ml.evaluate.metrics.protocol import Pair
from codex_ml.evaluate.metrics.registry import load_metrics
from codex_ml.statistics.bootstrap import interval

OUTPUTS = ["one two three four five", "a b c d e f", "k l m n"]
REFERENCES = ["one two three four five", "a b x d e f", "k l m n o"]


def corpus(seed, size, length):
    random.seed(seed)
    signs = ["foo", "bar", "(", ")", "+", "x1", "naïve", "猫", "नमस्ते", "=", "'a'"]
    outputs = [" ".join(random.choices(signs, k=random.randint(0, length))) for _ in range(size)]
    changed = [" ".join(w for w in output.split() if random.random() < 0.8) for output in outputs]
    return outputs, changed


def rows_of(name, outputs, references):
    metrics = load_metrics([name])
    rows = np.array([metrics.measure(Pair("", *pair, "text")) for pair in zip(outputs, references, strict=True)])
    return metrics[name], rows


def spaced(texts):
    return [" ".join(words(text)) for text in texts]


def bleu_of(outputs, references):
    return sacrebleu.corpus_bleu(spaced(outputs), [spaced(references)], tokenize="none", force=True).score


def chrf_of(outputs, references):
    return sacrebleu.corpus_chrf(outputs, [references]).score


@pytest.mark.parametrize(("name", "of_sacrebleu"), [("bleu", bleu_of), ("chrf", chrf_of)])
@pytest.mark.parametrize("length", [2, 5, 40])  # outputs without 4-grams, with few, with many
def test_corpus_scores_and_resamples_equal_sacrebleu(name, of_sacrebleu, length):
    outputs, references = corpus(length, 20, length)
    metric, rows = rows_of(name, outputs, references)
    draws = np.random.default_rng(5).integers(0, 20, size=(40, 20))
    got = metric.aggregate(rows[draws].sum(1))
    expected = [of_sacrebleu([outputs[i] for i in draw], [references[i] for i in draw]) for draw in draws]
    assert np.abs(got - expected).max() < 1e-9
    assert metric.aggregate(rows.sum(0)) == pytest.approx(of_sacrebleu(outputs, references), abs=1e-9)


@pytest.mark.parametrize(("name", "of_sacrebleu"), [("bleu", bleu_of), ("chrf", chrf_of)])
def test_single_segments_equal_sacrebleu(name, of_sacrebleu):
    outputs, references = corpus(3, 60, 9)
    metric, rows = rows_of(name, outputs, references)
    expected = [of_sacrebleu([output], [reference]) for output, reference in zip(outputs, references, strict=True)]
    assert np.abs(metric.aggregate(rows) - expected).max() < 1e-9


def test_bleu_of_three_sentences_by_hand():
    """5 + 5 + 4 of 15 tokens, 4 + 3 + 3 of 12 pairs, 3 + 1 + 2 of 9 and 2 + 0 + 1 of 6; 15 tokens against 16."""
    metric, rows = rows_of("bleu", OUTPUTS, REFERENCES)
    assert rows.sum(0).tolist() == [15, 16, 14, 10, 6, 3, 15, 12, 9, 6]
    by_hand = 100 * math.exp(1 - 16 / 15) * (14 / 15 * 10 / 12 * 6 / 9 * 3 / 6) ** 0.25
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        assert metric.aggregate(rows[order].sum(0)) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("text", ["grey stone", "stone", "one two three"])
def test_identical_short_texts_have_no_bleu_but_are_marked(value_of, text):
    assert value_of("bleu", (text, text)) == 0
    assert value_of("short_rate", (text, text)) == 1
    assert value_of("chrf", (text, text)) == 100
    assert value_of("exact_match", (text, text)) == 1


def test_identical_texts_have_100_and_not_a_little_more(value_of):
    assert value_of("bleu", ("x = 1 + 2", "x = 1 + 2")) == 100
    assert value_of("chrf", ("a b c d e f", "a b c d e f")) == 100
    assert value_of("short_rate", ("a b c d", "a b c d")) == 0


def test_an_empty_output_scores_zero_and_is_marked(value_of):
    pair = ("", "grey stone wall here")
    assert (value_of("bleu", pair), value_of("chrf", pair)) == (0, 0)
    assert (value_of("empty_rate", pair), value_of("short_rate", pair)) == (1, 1)
    assert (value_of("bleu", ("", "")), value_of("chrf", ("", ""))) == (0, 0)


def test_what_sacrebleu_does_to_code_and_to_references_in_the_wrong_shape(value_of):
    """Tokens of space-separated words see no match in f(a,b)[0]; the wrong shape gets a higher score, silently."""
    assert sacrebleu.corpus_bleu(["foo(a,b)[0]"], [["foo(a,c)[0]"]], tokenize="none", force=True).score == 0
    assert value_of("bleu", ("foo(a,b)[0]", "foo(a,c)[0]")) > 50
    assert sacrebleu.corpus_bleu(OUTPUTS, [[text] for text in REFERENCES]).score == pytest.approx(100)
    assert value_of("bleu", *zip(OUTPUTS, REFERENCES, strict=True)) < 70


def test_references_in_the_wrong_shape_are_refused():
    with pytest.raises(TypeError, match="reference must be a text, found list"):
        Pair("", OUTPUTS[0], [REFERENCES[0]], "text")


def test_signatures_are_those_of_sacrebleu_and_say_which_tokens():
    metrics = load_metrics(["bleu", "chrf"])
    version = sacrebleu.__version__
    assert metrics["bleu"].signature == (
        f"nrefs:1|case:mixed|eff:no|tok:none|smooth:exp|version:{version}|tokens:words+signs|case:mixed|first:65536"
    )
    assert metrics["chrf"].signature == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}|first:65536"


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_equal_pairs_have_an_interval_of_no_width(name):
    """Intervals take derivatives at the bound of 100; cut values there would give each pair an influence."""
    outputs = [f"{'word ' * length}end of it" for length in range(1, 31)]
    metric, rows = rows_of(name, outputs, outputs)
    found = interval(rows, metric.aggregate, resamples=200, confidence=0.95, seed=1)
    assert found.low == pytest.approx(100, abs=1e-6) and found.high == pytest.approx(100, abs=1e-6)


def test_bleu_without_4gram_matches_has_an_interval_around_it():
    """A sum of 0 is smoothed; a derivative there must not jump."""
    outputs = [f"a b c{i} d{i} " * (1 + i % 5) for i in range(40)]
    references = [f"a b x{i} y{i} " * (1 + i % 4) for i in range(40)]
    metric, rows = rows_of("bleu", outputs, references)
    assert rows.sum(0)[4:6].tolist() == [0, 0]  # no run of three or four tokens
    value = float(metric.aggregate(rows.sum(0)))
    found = interval(rows, metric.aggregate, resamples=400, confidence=0.95, seed=1)
    assert value - 8 < found.low < value < found.high < value + 8
