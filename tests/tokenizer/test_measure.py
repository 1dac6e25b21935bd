"""Measurements of a tokenizer, checked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codex_ml.core.errors import UserError
from codex_ml.tokenizer.measure import tokenizer_metrics


def test_byte_tokens_have_one_byte_per_token(loaded):
    tokenizer = loaded("byte_bpe", vocab_size=258, texts=["z"])
    numbers = tokenizer_metrics(tokenizer, [("python", "ab cd"), ("german", "\u00e4 b"), ("python", "")])
    assert numbers == {
        "vocab_size": 258, "bytes_per_token": 1.0, "tokens_per_word": 9 / 4, "unk_share": 0.0, "lossless": 1.0,
        "unused_share": round((256 - 7) / 256, 6),  # used: a b c d, the space, and the two bytes of the umlaut
        "languages": {
            "german": {"bytes_per_token": 1.0, "tokens_per_word": 2.0, "unk_share": 0.0, "lossless": 1.0},
            "python": {"bytes_per_token": 1.0, "tokens_per_word": 2.5, "unk_share": 0.0, "lossless": 1.0},
        },
    }  # fmt: skip


def test_unknown_words_and_lost_text_are_counted(loaded):
    tokenizer = loaded("whitespace", vocab_size=258, texts=["a b c d"])
    numbers = tokenizer_metrics(tokenizer, [("text", "a b x y"), ("text", "a"), ("text", "a\tb"), ("text", "d")])
    assert numbers["unk_share"] == 0.25  # 2 of 8
    assert numbers["lossless"] == 0.5
    assert numbers["unused_share"] == 0.25  # c, of a b c d


def test_the_lossless_share_compares_code_points(loaded):
    tokenizer = loaded("byte_bpe")

    class Lossy:
        def decode(self, ids, **options):
            return tokenizer.backend.decode(ids, **options).replace(" ,", ",")

        def __getattr__(self, name):
            return getattr(tokenizer.backend, name)

    lossy = replace(tokenizer, backend=Lossy())
    assert tokenizer_metrics(lossy, [("x", text) for text in ("a , b", "c", "d", "e")])["lossless"] == 0.75


def test_an_empty_held_out_set_is_refused(loaded):
    with pytest.raises(UserError, match="no held-out document"):
        tokenizer_metrics(loaded("byte_bpe"), [])
