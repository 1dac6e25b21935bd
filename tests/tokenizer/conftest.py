"""Tokenizers of every kind, trained on a corpus of invented code."""

from __future__ import annotations

import pytest

from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.training import train_tokenizer
from codex_ml.tokens.text_tokenizer import load_tokenizer

END, PAD = "<|endoftext|>", "<|pad|>"
TRAINED = ("byte_bpe", "unigram", "wordpiece", "sentencepiece_bpe", "sentencepiece_unigram", "whitespace")
LOSSLESS = ("byte_bpe", "unigram", "sentencepiece_bpe", "sentencepiece_unigram")

CORPUS = [
    f"def function_{i}(value):\n    return value + {i}  # {'tie ' * (i % 3)}{END if i % 7 == 0 else ''}\n"
    for i in range(200)
]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """trained(kind, **settings) -> folder, made once."""
    made = {}

    def train(kind, *, vocab_size=420, texts=CORPUS, **settings):
        key = (kind, vocab_size, tuple(texts), *sorted(settings.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp(kind)
            train_tokenizer(lambda: iter(texts), Tokenizer(kind=kind, vocab_size=vocab_size, **settings), folder)
            made[key] = folder
        return made[key]

    return train


@pytest.fixture(scope="session")
def loaded(trained):
    """loaded(kind, **settings) -> TextTokenizer."""
    return lambda kind, **settings: load_tokenizer(trained(kind, **settings))
