"""Numbers of likelihood against definitions of lm-evaluation-harness, written out here, and a calibration error by hand."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from codex_ml.evaluate.metrics.likelihood_metrics import BINS, LIKELIHOOD, needs_whole_text
from codex_ml.evaluate.metrics.protocol import ScoredDocument
from codex_ml.evaluate.metrics.registry import Metrics

LN2 = 0.6931471805599453
METRICS = Metrics(LIKELIHOOD)


def scored(text, nll, *, tokens=4, top1=1, top5=2, confidences=(), hits=()):
    calibration = np.zeros((BINS, 3))
    for confidence, hit in zip(confidences, hits, strict=True):
        row = min(int(confidence * BINS), BINS - 1)
        calibration[row] += (1, confidence, hit)
    size = len(text.encode())
    words = len(re.split(r"\s+", text))
    return ScoredDocument(nll, tokens, top1, top5, size, words, 8.0 * size, 5.0 * size, calibration)


def values(items):
    sums = np.array([METRICS.measure(item) for item in items]).sum(0)
    return {metric.name: METRICS.value(metric, sums[METRICS.places(metric)]) for metric in METRICS.chosen}


def test_perplexities_and_bits_per_byte_are_those_of_lm_evaluation_harness():
    """`weighted_perplexity` is exp(-sum LL / sum weights); `bits_per_byte` is that exponent / ln 2, per byte."""
    texts, losses = ["def f(x):\n    return x", " naïve ", "猫"], [20.0, 7.5, 3.25]
    got = values([scored(text, loss) for text, loss in zip(texts, losses, strict=True)])
    size = 22 + 8 + 3
    assert sum(len(text.encode()) for text in texts) == size
    words = 4 + 3 + 1  # an edge of white space counts an empty word: len(re.split(r"\s+", text))
    assert got["byte_perplexity"] == pytest.approx(math.exp(30.75 / size), rel=1e-15)
    assert got["word_perplexity"] == pytest.approx(math.exp(30.75 / words), rel=1e-15)
    assert got["perplexity"] == pytest.approx(math.exp(30.75 / 12), rel=1e-15)
    assert got["bits_per_byte"] == pytest.approx(30.75 / LN2 / size, rel=1e-15)
    assert got["byte_perplexity"] == pytest.approx(2 ** got["bits_per_byte"], rel=1e-12)


def test_bits_per_byte_of_one_to_four_byte_characters_and_carriage_returns():
    """137 bytes and 11.75 nats are 0.123734794 bits per byte."""
    text = "aé猫𝄞\r\n" * 11 + "seven.."[:5]
    assert len(text.encode()) == 137
    assert values([scored(text, 11.75)])["bits_per_byte"] == pytest.approx(0.123734794, abs=5e-10)


def test_accuracies_are_shares_of_the_targets():
    got = values([scored("a", 1.0, tokens=10, top1=3, top5=6), scored("b", 1.0, tokens=30, top1=5, top5=9)])
    assert (got["token_accuracy"], got["top5_accuracy"]) == (8 / 40, 15 / 40)


def test_baselines_and_the_distance_to_them():
    got = values([scored("x" * 10, 10.0), scored("y" * 30, 20.0)])
    assert (got["zlib_bits_per_byte"], got["ngram_bits_per_byte"]) == (8.0, 5.0)
    bits = 30 / LN2 / 40
    assert got["bits_per_byte_minus_zlib"] == pytest.approx(bits - 8, rel=1e-12)
    assert got["bits_per_byte_minus_ngram"] == pytest.approx(bits - 5, rel=1e-12)


def test_calibration_error_equals_a_computation_per_token():
    """Guo et al. 2017, equation 3, over the tokens themselves and not over sums of bins."""
    random = np.random.default_rng(7)
    confidences = random.uniform(size=600)
    hits = random.uniform(size=600) < confidences**2
    bins = np.digitize(confidences, np.linspace(0, 1, BINS + 1)[1:-1])
    expected = sum(
        (bins == b).mean() * abs(hits[bins == b].mean() - confidences[bins == b].mean()) for b in range(BINS)
    )
    parts = [(confidences[i : i + 200], hits[i : i + 200]) for i in range(0, 600, 200)]
    items = [scored("t", 1.0, confidences=conf, hits=hit) for conf, hit in parts]
    assert values(items)["calibration_error"] == pytest.approx(expected, rel=1e-12)
    assert expected > 0.1


def test_a_model_that_is_sure_and_right_has_no_calibration_error():
    assert values([scored("t", 0.0, confidences=[1.0] * 5, hits=[1] * 5)])["calibration_error"] == 0
    assert values([scored("t", 0.0, confidences=[1.0] * 5, hits=[0] * 5)])["calibration_error"] == 1


def test_nothing_to_divide_by_is_no_number_and_too_much_is_infinite():
    empty = values([scored("", 1.0, tokens=0)])
    assert all(
        math.isnan(empty[name]) for name in ("bits_per_byte", "perplexity", "token_accuracy", "calibration_error")
    )
    assert values([scored("a", 1e6, tokens=1)])["perplexity"] == math.inf


def test_aggregates_take_any_number_of_leading_axes():
    rows = np.array([METRICS.measure(scored("abc" * n, 2.0 * n)) for n in range(1, 7)])
    for metric in METRICS.chosen:
        own = rows[:, METRICS.places(metric)]
        got = METRICS.aggregate(metric, own.reshape(2, 3, -1))
        assert got.shape == (2, 3)
        assert got[1, 2] == pytest.approx(float(METRICS.aggregate(metric, own[5])), nan_ok=True)


def test_which_numbers_a_tokenizer_that_loses_text_takes_away():
    lost = {metric.name for metric in LIKELIHOOD if needs_whole_text(metric.columns)}
    assert lost == {
        "bits_per_byte", "byte_perplexity", "word_perplexity", "bits_per_byte_minus_zlib", "bits_per_byte_minus_ngram"
    }  # fmt: skip
