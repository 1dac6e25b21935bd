"""Measure a tokenizer on held-out text: compression, lost text, and the share of the vocabulary that is used.

Used by: stages/tokenizer.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee
from typing import Any

import numpy as np

from codex_ml.core.errors import UserError
from codex_ml.tokens.lossless import share_of
from codex_ml.tokens.text_tokenizer import TextTokenizer

WORD = re.compile(r"\w+")


@dataclass
class _Sums:
    texts: int = 0
    size: int = 0  # UTF-8 bytes
    tokens: int = 0
    words: int = 0
    unknown: int = 0
    lossless: int = 0

    def numbers(self) -> dict[str, float]:
        return {
            "bytes_per_token": round(self.size / max(self.tokens, 1), 4),
            "tokens_per_word": round(self.tokens / max(self.words, 1), 4),
            "unk_share": round(self.unknown / max(self.tokens, 1), 6),
            "lossless": share_of(self.lossless, self.texts),
        }


def tokenizer_metrics(tokenizer: TextTokenizer, documents: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Measurements of a tokenizer on held-out text. Memory does not grow with the text.

    Args:
        documents: (language, text) per document.

    Returns:
        vocab_size; bytes_per_token, in UTF-8; tokens_per_word: all tokens / runs of letters, digits and _;
        unused_share: of the vocabulary without special tokens; unk_share: of the tokens; lossless: share of texts with
        decode(encode(text)) == text, code point by code point. `languages` holds the same measurements per language,
        without vocab_size and unused_share.

    Raises:
        UserError: when there is no document.
    """
    used = np.zeros(tokenizer.vocab_size, dtype=bool)
    sums: dict[str, _Sums] = {}
    whole = _Sums()
    for (language, text), ids in _with_ids(tokenizer, documents):
        used[ids] = True
        unknown = 0 if tokenizer.unk is None else int((ids == tokenizer.unk).sum())
        lossless = tokenizer.decode(ids) == text
        size, words = len(text.encode("utf-8")), sum(1 for _ in WORD.finditer(text))
        for part in (whole, sums.setdefault(language, _Sums())):
            part.texts += 1
            part.size += size
            part.tokens += len(ids)
            part.words += words
            part.unknown += unknown
            part.lossless += lossless
    if not whole.texts:
        raise UserError("there is no held-out document to measure the tokenizer on")
    ordinary = np.ones(tokenizer.vocab_size, dtype=bool)
    ordinary[list(tokenizer.special.values())] = False
    return {
        "vocab_size": tokenizer.vocab_size,
        **whole.numbers(),
        "unused_share": round(float((ordinary & ~used).sum() / max(ordinary.sum(), 1)), 6),
        "languages": {language: sums[language].numbers() for language in sorted(sums)},
    }


def _with_ids(tokenizer: TextTokenizer, documents: Iterable[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], Any]]:
    ahead, behind = tee(documents)  # holds one batch of the encoder
    yield from zip(behind, tokenizer.encode_documents(text for _, text in ahead), strict=True)
