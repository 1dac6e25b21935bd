"""Byte-level BPE: train, save in the Hugging Face layout, encode in bulk. No torch, no transformers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from codex_ml.errors import UserError
from codex_ml.io import write_json

END, PAD = "<|endoftext|>", "<|pad|>"
BATCH_DOCUMENTS = 64


def train_byte_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train on whole documents; the merges see the pieces of GPT-2's regular expression, as GGUF readers expect.

    Returns:
        a tokenizer whose ids are 0 = END, 1 = PAD, then the 256 bytes, then the merges; at most `vocab_size` of them.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, which `AutoTokenizer` reads."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,  # it would eat blanks before punctuation: decode would not be lossless
        "split_special_tokens": True,  # a document that spells <|endoftext|> is data, never control
    }
    write_json(folder / "tokenizer_config.json", config)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load for bulk encoding; the text of special tokens is encoded as the plain text it is.

    Raises:
        UserError: when the file is missing or is no tokenizer.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(f"{file} is missing; `dvc repro tokenizer` makes it")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except BaseException as error:  # the Rust library raises PanicException, which is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise UserError(f"{file} is no tokenizer that can be read: {str(error)[:200]}") from None
    tokenizer.encode_special_tokens = True
    return tokenizer


def special_id(tokenizer: Tokenizer, token: str) -> int:
    """Id of END or PAD.

    Raises:
        UserError: when the tokenizer has no such token.
    """
    if (number := tokenizer.token_to_id(token)) is None:
        raise UserError(f"the tokenizer has no token {token}; `dvc repro tokenizer` makes one that has")
    return int(number)


def encode_documents(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[NDArray[np.uint32]]:
    """Token ids of each text, in order: (n_tokens,) uint32, without special tokens."""
    iterator = iter(texts)
    while batch := list(islice(iterator, BATCH_DOCUMENTS)):
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            yield np.array(encoding.ids, dtype=np.uint32)


def measure(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, float]:
    """Numbers of a tokenizer on held-out text.

    Returns:
        vocab_size; bytes_per_token; lossless, the share of texts with decode(encode(text)) == text.
    """
    size = tokens = lossless = count = 0
    for text, ids in _with_ids(tokenizer, texts):
        count, tokens, size = count + 1, tokens + len(ids), size + len(text.encode("utf-8"))
        lossless += tokenizer.decode(ids.tolist(), skip_special_tokens=False) == text
    return {
        "vocab_size": tokenizer.get_vocab_size(),
        "bytes_per_token": round(size / tokens, 4),
        "lossless": round(lossless / count, 6),
    }


def _with_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[tuple[str, NDArray[np.uint32]]]:
    iterator = iter(texts)
    while batch := list(islice(iterator, BATCH_DOCUMENTS)):
        yield from zip(batch, encode_documents(tokenizer, batch), strict=True)
