"""A tokenizer: one token per byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def train_bytes(texts: Callable[[], Iterator[str]], vocab_size: int) -> Any:
    """Return a `tokenizers.Tokenizer` with at most `vocab_size` tokens, without special tokens.

    Args:
        texts: each call starts a new pass over the train documents. This tokenizer learns nothing from them.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
