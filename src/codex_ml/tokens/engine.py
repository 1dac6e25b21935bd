"""Bulk encoding with the fastest engine that gives the same ids as `tokenizers`, proven on texts of each run.

    gigatoken    if installed (an extra); each form of BPE that it supports
    tiktoken     byte-level BPE in which the order of the ids is the order of the merges
    tokenizers   every tokenizer; the reference

The engine does not change any byte of the result, so its name is only logged. Used by: TextTokenizer.encode_documents.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.cores import cores
from codex_ml.core.errors import one_line
from codex_ml.tokens.confined_tokenizer import HALF, ConfinedTokenizer, TextRefused

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger("codex_ml")
Ids = NDArray[np.uint32]
Engine = Callable[[list[str]], Iterable[Ids]]

BATCH_CHARACTERS = 1 << 20
WORTH_IT = 1 << 17  # characters; for fewer, the proof takes longer than the encoding
PROOF_CHARACTERS = 1 << 16
PROOF_SHARE = 2000  # characters per document, so that the proof covers many documents
HARD_TEXTS = [
    "", " ", "\0", "\U0010fffe\U0010ffff", "a\0b", "\r\n\r\r\n", "\t\t \t", " " * 1000, "\n" * 300,
    "a" * 1000, "=" * 1000, "0123456789" * 30, "I'm we'll they'RE 'S it's'",
    "e\u0301\u00e9 \u1112\u1161\u11ab \u00a0\u2003\u3000\u0085\u2028\u200b\ufeff", "\ufffd\uffff\U0010ffff",
    "\U0001f468\u200d\U0001f469\u200d\U0001f466", "\u0915\u094d\u0937 \u4e2d\u6587 \u0660\u00b2\u2167",
    "\x1c\x1d\x1e\x1f\x0b\x0c\x7f",
    *("".join(f"a{chr(c)}1 {chr(c)}\n{chr(c)}." for c in range(start, start + 0x1000, 61) if not 0xD800 <= c < 0xE000)
      for start in range(0, 0x20000, 0x1000)),
]  # fmt: skip


def encode_all(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[Ids]:
    """Ids of each text, in order, without special tokens: (n,) uint32.

    Args:
        tokenizer: `encode_special_tokens` must be set, so that special tokens in text are data.
        texts: read as needed; memory does not grow with their number.
    """
    batches = _batches(texts)
    first = next(batches, [])
    confined = isinstance(tokenizer, ConfinedTokenizer)
    large = sum(map(len, first)) >= WORTH_IT and not confined
    engine = choose_engine(tokenizer, first) if large else tokenizers_engine(tokenizer)
    if confined and first:
        log.info("tokens: encoded one by one in a process with limits, because the tokenizer's rules are not known")
    for batch in chain([first], batches):
        with panics_as_errors():
            yield from engine(batch)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    held = 0
    for text in texts:
        batch.append(text)
        held += len(text) + 64  # so that a batch of empty documents ends too
        if held >= BATCH_CHARACTERS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def choose_engine(tokenizer: Tokenizer, sample: list[str]) -> Engine:
    """The first engine that gives the ids of `tokenizers` for the sample, the special tokens' texts and HARD_TEXTS."""
    judge = tokenizers_engine(tokenizer)
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    proof = [*HARD_TEXTS, *special, "".join(special), " ".join(f"x{token}y {token}" for token in special)]
    left = PROOF_CHARACTERS
    for text in sample:
        proof.append(text[: min(left, PROOF_SHARE)])
        left -= len(proof[-1])
        if left <= 0:
            break
    expected: list[Ids] | None = None
    for name, make in (("gigatoken", gigatoken_engine), ("tiktoken", tiktoken_engine)):
        if importlib.util.find_spec(name) is None:
            continue
        try:
            with panics_as_errors():
                if (engine := make(tokenizer)) is None:
                    continue
                expected = list(judge(proof)) if expected is None else expected
                found = list(engine(proof))
        except Exception as error:  # skip this engine; if the reference fails too, encoding with it raises
            log.info("tokens: %s cannot be used for this vocabulary (%s)", name, one_line(error))
            continue
        if len(found) == len(expected) and all(np.array_equal(x, y) for x, y in zip(found, expected, strict=True)):
            log.info("tokens: encoded by %s, proven equal to tokenizers on %d texts", name, len(proof))
            return engine
        log.info("tokens: %s is not used: its ids differ from those of tokenizers for this vocabulary", name)
    log.info("tokens: encoded by tokenizers")
    return judge


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raise as TextRefused: a panic of the Rust library, which is not an Exception; its TypeError for a lone surrogate.

    The library takes only text that UTF-8 can hold.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, TypeError) and "must be" in str(error) and "Text" in str(error):
            raise TextRefused(HALF) from None
        if type(error).__name__ != "PanicException":
            raise
        raise TextRefused(f"the tokenizer's rules cannot be applied to a text: {one_line(error)}") from None


def tokenizers_engine(tokenizer: Tokenizer) -> Engine:
    """The reference: `encode_batch_fast`, which computes no offsets."""

    def encode(texts: list[str]) -> Iterator[Ids]:
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return (np.array(encoding.ids, dtype=np.uint32) for encoding in encodings)

    return encode


@lru_cache(maxsize=2)
def gigatoken_engine(tokenizer: Tokenizer) -> Engine | None:
    """gigatoken on the same tokenizer.json without its special tokens, so that their text is data."""
    description = json.loads(tokenizer.to_str())
    if description["model"]["type"] != "BPE" or _cuts_text(description):
        return None
    import gigatoken

    engine = gigatoken.Tokenizer.from_json(json.dumps({**description, "added_tokens": []}))

    def encode(texts: list[str]) -> list[Ids]:
        layout = engine.encode_batch(texts).layout
        offsets, ids = np.asarray(layout.offsets.data), np.asarray(layout.content.data)
        return [ids[a:b] for a, b in pairwise(offsets)]

    return encode


@lru_cache(maxsize=2)
def tiktoken_engine(tokenizer: Tokenizer) -> Engine | None:
    """tiktoken with one rank per token; None if the vocabulary is not byte-level BPE with ids in merge order."""
    description = json.loads(tokenizer.to_str())
    pattern = _byte_level_pattern(description)
    if pattern is None or (ranks := byte_ranks(description["model"])) is None:
        return None
    import tiktoken

    # With an empty set of special tokens, tiktoken's search for them matches at every letter (measured: 4.6 MB/s
    # instead of 7.2). No call allows this one, so text that spells it is encoded as ordinary text.
    nobody = {"\U0010fffe\U0010ffff": max(ranks.values()) + 1}
    engine = tiktoken.Encoding("trained", pat_str=pattern, mergeable_ranks=ranks, special_tokens=nobody)

    def one(text: str) -> Ids:
        return engine.encode_to_numpy(text, disallowed_special=())

    def encode(texts: list[str]) -> list[Ids]:
        return list(_map(one, texts))

    return encode


def _map(function: Callable[[str], Ids], texts: list[str]) -> Iterator[Ids]:
    """Apply the function to all texts on all cores, in order: tiktoken releases the GIL while it encodes."""
    if (threads := cores()) == 1 or len(texts) < 2 * threads:
        yield from map(function, texts)
        return
    share = -(-len(texts) // (8 * threads))
    with ThreadPoolExecutor(threads) as pool:
        parts = [texts[start : start + share] for start in range(0, len(texts), share)]
        waiting = deque(pool.submit(lambda part: [function(text) for text in part], part) for part in parts)
        while waiting:
            yield from waiting.popleft().result()


GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


def _cuts_text(description: dict[str, Any]) -> bool:
    """Whether text can become added tokens that are not special; only `tokenizers` encodes those exactly."""
    return any(not token["special"] for token in description["added_tokens"])


def _byte_level_pattern(description: dict[str, Any]) -> str | None:
    """The regular expression of a byte-level pre-tokenizer; None for any other pre-tokenizer."""
    model, cut = description["model"], description["pre_tokenizer"]
    plain = not any(
        model.get(key)
        for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")
    )
    if model["type"] != "BPE" or description["normalizer"] or not plain or _cuts_text(description) or not cut:
        return None
    if cut["type"] == "ByteLevel":
        return GPT2_PATTERN if cut["use_regex"] and not cut["add_prefix_space"] else None
    steps = cut.get("pretokenizers", [])
    if cut["type"] != "Sequence" or [step["type"] for step in steps] != ["Split", "ByteLevel"]:
        return None
    split, level = steps
    exact = split["behavior"] == "Isolated" and not split["invert"]
    if not exact or level["use_regex"] or level["add_prefix_space"]:
        return None
    return split["pattern"].get("Regex")


def byte_letters() -> dict[str, int]:
    """Letter of the byte-level alphabet -> byte (`bytes_to_unicode` of GPT-2's encoder.py)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


def byte_ranks(model: dict[str, Any]) -> dict[bytes, int] | None:
    """Bytes -> id of a byte-level BPE; None unless each merge makes a token with a higher id than the one before."""
    letters, vocabulary = byte_letters(), model["vocab"]
    if any(letter not in vocabulary for letter in letters):
        return None
    last = max(vocabulary[letter] for letter in letters)
    made = set(letters)
    for pair in model["merges"]:
        left, right = pair if isinstance(pair, list) else pair.split(" ")
        number = vocabulary.get(left + right)
        if number is None or number <= last or left not in made or right not in made:
            return None
        last = number
        made.add(left + right)
    return {bytes(letters[c] for c in token): vocabulary[token] for token in made}
