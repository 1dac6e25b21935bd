"""The n-gram baseline against a dictionary implementation, and as a distribution."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter, defaultdict

import numpy as np
import pytest

from codex_ml.evaluate.ngram import HIGHEST_ORDER, train_ngram

TEXTS = ["def f(x):\n    return x\n", "def g(y):\n    return y + 1\n", "a", "", "naïve café 語\r\n", "aaaaaaaaaa"]


class Dictionaries:
    """Witten-Bell interpolation as its formula reads, with a dictionary per context."""

    def __init__(self, texts, order):
        self.order = order
        self.after = defaultdict(Counter)
        for text in texts:
            data = text.encode()
            for i, byte in enumerate(data):
                for length in range(min(i, order - 1) + 1):
                    self.after[data[i - length : i]][byte] += 1

    def probability(self, byte, context):
        lower = self.probability(byte, context[1:]) if context else 1 / 256
        if not (seen := self.after.get(context)):
            return lower
        return (seen[byte] + len(seen) * lower) / (seen.total() + len(seen))

    def bits(self, data):
        contexts = (data[max(0, i - self.order + 1) : i] for i in range(len(data)))
        return [-math.log2(self.probability(byte, context)) for byte, context in zip(data, contexts, strict=True)]


@pytest.mark.parametrize("order", range(1, HIGHEST_ORDER + 1))
def test_every_byte_costs_what_the_formula_says(order):
    naive, model = Dictionaries(TEXTS, order), train_ngram(TEXTS, order)
    for text in [*TEXTS, "def f(y):\n    return z", "never seen: 0123456789", "\x00\U0010ffff"]:
        assert model.byte_bits(text.encode()) == pytest.approx(naive.bits(text.encode()), abs=1e-9)


@pytest.mark.parametrize(
    "context", [b"", b"d", b"def ", b"    return ", b"aaaaaaaaaaaaaaaaaaaa", b"\xff\xfe", b"f(x):\n  \xe8"]
)
def test_the_probabilities_of_all_bytes_sum_to_one(context):
    model = train_ngram(TEXTS, 5)
    bits = [model.byte_bits(context + bytes([byte]))[-1] for byte in range(256)]
    assert math.fsum(2.0**-b for b in bits) == pytest.approx(1, abs=1e-12)


def test_the_first_byte_of_each_document_has_an_empty_context():
    """After "ab" and "ab", b never follows b: the second document starts anew. p(b) = (2 + 2/256) / (4 + 2)."""
    model = train_ngram(["ab", "ab"], 2)
    assert model.bits("b") == pytest.approx(-math.log2((2 + 2 / 256) / 6))
    assert model.tables[2].codes.tolist() == [0x6162]


def test_a_context_is_read_but_not_counted():
    model = train_ngram(TEXTS, 4)
    whole, prompt = "def f(x):\n    return é", "def f(x):"
    assert model.bits(whole[len(prompt) :], context=prompt) == pytest.approx(model.bits(whole) - model.bits(prompt))
    assert model.bits("", context=prompt) == model.bits("") == 0


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_long_text_costs_the_same_in_pieces(size, monkeypatch):
    model, text = train_ngram(TEXTS, 5), "def f(x):\n    return café\n"
    whole = [model.bits(text), model.bits(text, context="# é")]
    monkeypatch.setattr("codex_ml.evaluate.ngram.SCORED_BYTES", size)
    assert [model.bits(text), model.bits(text, context="# é")] == pytest.approx(whole, abs=1e-9)
    assert whole[0] == pytest.approx(sum(Dictionaries(TEXTS, 5).bits(text.encode())))


def test_a_model_of_no_text_is_uniform():
    model = train_ngram([], 3)
    assert (model.bits("abc"), model.train_bytes, model.documents) == (24, 0, 0)


def test_at_most_the_limit_is_counted_and_the_choice_does_not_depend_on_the_order_of_the_texts():
    random = np.random.default_rng(4)
    texts = ["".join(map(chr, random.integers(97, 123, size=random.integers(1, 200)))) for _ in range(100)]
    first = train_ngram(texts, 3, limit=3_000)
    shuffled = train_ngram([texts[i] for i in random.permutation(100)], 3, limit=3_000)
    assert 2_700 < first.train_bytes <= 3_000
    assert first.signature == shuffled.signature
    assert all(np.array_equal(a.codes, b.codes) for a, b in zip(first.tables, shuffled.tables, strict=True))
    assert first.bits("hello") == shuffled.bits("hello")


def test_of_a_text_above_the_limit_its_beginning_is_counted():
    assert train_ngram(["abcdef" * 10], 2, limit=7).train_bytes == 7


def test_the_signature_says_order_smoothing_and_train_text():
    assert train_ngram(TEXTS, 6).signature == "order:6|smoothing:witten-bell|train_documents:5|train_bytes:79"


@pytest.mark.parametrize("order", [0, -1, 9])
def test_an_order_that_does_not_fit_is_refused(order):
    with pytest.raises(ValueError, match="between 1 and 8"):
        train_ngram(TEXTS, order)


def test_memory_is_bounded_by_the_limit():
    """Two million bytes are offered and a quarter is counted. Random text is the worst case: all n-grams differ."""
    random = np.random.default_rng(6)
    texts = (random.integers(97, 117, size=10_000, dtype=np.uint8).tobytes().decode() for _ in range(200))
    tracemalloc.start()
    model = train_ngram(texts, 6, limit=500_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert model.train_bytes == 500_000
    assert peak < 75 * 500_000
