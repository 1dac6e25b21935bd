"""`tokenizer.add_pieces`: add pieces that are learnt from train to the vocabulary of a foreign byte-level BPE.

Old tokens keep their ids, and their merges keep their ranks; the new merges follow them. A text in which no new piece
occurs keeps its ids. Only byte-level BPE can grow like this: pieces of Unigram and of SentencePiece have scores, which
new pieces would change, and WordPiece has no merges.
Used by: tokenizer.local_tokenizer, `codex-ml check`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codex_ml.core.errors import UserError
from codex_ml.core.strict_json import dump_json
from codex_ml.tokenizer.allowed import checked_description
from codex_ml.tokenizer.foreign_files import SIZES, find_files, read_foreign_json
from codex_ml.tokenizer.pair_merges import LEAST, learn_merges
from codex_ml.tokenizer.sample import Texts
from codex_ml.tokens.confined_tokenizer import confined
from codex_ml.tokens.engine import encode_all, panics_as_errors
from codex_ml.tokens.layout import AddedPieces
from codex_ml.tokens.tokenizer_files import TokensPerByte, VocabularyGrowth

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger("codex_ml")
LONGEST = 64  # pieces; a longer word is a table or encoded data, whose pieces occur nowhere else
WORDS = 500_000  # different words in memory, about 0.7 GB while they are merged; then the rarer half is forgotten
DIGITS = 6


def require_expandable(description: dict[str, Any], file: Path) -> None:
    """Refuse a tokenizer.json that is not byte-level BPE.

    Raises:
        UserError: says what the tokenizer is, and what is allowed.
    """
    model = description["model"]
    found = model["type"]
    if found == "BPE" and model.get("byte_fallback"):
        found = "BPE of SentencePiece (byte_fallback)"
    elif found == "BPE":
        affixes = [key for key in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
        levels = [_has_byte_level(description.get(part)) for part in ("pre_tokenizer", "decoder")]
        if not affixes and all(levels):
            return
        found = f"BPE with {affixes[0]}" if affixes else "BPE of characters"
    raise _refusal(file, found)


def check_expandable(path: Path) -> None:
    """The same for a folder or a .model file whose tokenizer is not loaded; for `codex-ml check`.

    Raises:
        UserError: see `require_expandable`.
    """
    file, model_file = find_files(path)
    if model_file:
        raise _refusal(file, "a SentencePiece model")
    require_expandable(checked_description(read_foreign_json(file, SIZES["tokenizer.json"]), file), file)


def _refusal(file: Path, found: str) -> UserError:
    return UserError(
        f"tokenizer.add_pieces: {file} is {found}; only byte-level BPE, as in GPT-2, Llama 3 and Qwen, can grow; "
        "set it to 0, or name another tokenizer"
    )


def _has_byte_level(part: Any) -> bool:
    steps = [part, *(part.get("pretokenizers") or part.get("decoders") or ())] if isinstance(part, dict) else []
    return any(isinstance(step, dict) and step.get("type") == "ByteLevel" for step in steps)


def add_pieces(description: dict[str, Any], texts: Texts, most: int) -> tuple[dict[str, Any], AddedPieces]:
    """Learn up to `most` pieces from the texts.

    Args:
        description: tokenizer.json of a byte-level BPE that was tried in a child process.

    Returns:
        tokenizer.json with the new pieces; which ids they have, and of which old ids they consist.

    Raises:
        UserError: when no two pieces of a word follow each other often enough.
    """
    model, backend = description["model"], backend_of(description)
    old = backend.get_vocab(with_added_tokens=True)  # the ids that the library gives, whatever the file says
    words = count_words(backend, texts())
    spelling = {number: text for text, number in old.items()}
    merges = learn_merges(words, spelling, most)
    if not merges:
        raise UserError(
            f"tokenizer.add_pieces {most}: train has no piece to add, because no two pieces of a word follow each "
            f"other {LEAST} times; add documents, or set it to 0"
        )
    first = max(old.values()) + 1
    parts: dict[int, list[int]] = {}  # new id -> the old ids of its text, as its first merge puts them together
    for pair, number in merges:
        parts.setdefault(number, [one for side in pair for one in parts.get(side, [side])])
        spelling.setdefault(number, spelling[pair[0]] + spelling[pair[1]])
    if len(parts) < most:
        log.warning("tokenizer: WARNING: train has %d pieces to add, not tokenizer.add_pieces %d", len(parts), most)
    rules = [[spelling[left], spelling[right]] for (left, right), _ in merges]
    as_text = any(isinstance(rule, str) for rule in model["merges"])  # the older form "a b" of all merges of a file
    larger = {
        **model,
        # The library numbers added tokens after the vocabulary, unless the vocabulary holds them.
        "vocab": {**old, **{spelling[number]: number for number in parts}},
        "merges": [*model["merges"], *(map(" ".join, rules) if as_text else rules)],
    }
    added = [{**token, "id": old[token["content"]]} for token in description["added_tokens"]]
    larger_description = {**description, "model": larger, "added_tokens": added}
    return larger_description, AddedPieces(first=first, old_ids=list(parts.values()))


def backend_of(description: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a tokenizer.json, in which special tokens in text are data."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(dump_json(description, indent=None))
    backend.encode_special_tokens = True
    return confined(backend)


def count_words(backend: Tokenizer, texts: Iterable[str]) -> Counter[tuple[int, ...]]:
    """How often each word of 2 to `LONGEST` pieces occurs, cut by the tokenizer itself: its ids -> number.

    Memory is bounded: at more than `WORDS` different words those are forgotten that occurred no more often than the
    median. What is forgotten depends on the order of the texts, which is fixed.
    """
    counts: Counter[bytes] = Counter()
    for text in texts:
        with panics_as_errors():
            encoding = backend.encode(text, add_special_tokens=False)
        ids = np.array(encoding.ids, dtype=np.uint32)
        edges = np.flatnonzero(np.diff(np.array(encoding.word_ids, dtype=np.int64), prepend=-1, append=-1))
        lengths = np.diff(edges)
        several = (lengths > 1) & (lengths <= LONGEST)
        for start, length in zip(edges[:-1][several].tolist(), lengths[several].tolist(), strict=True):
            counts[ids[start : start + length].tobytes()] += 1
        if len(counts) > WORDS:
            median = sorted(counts.values())[len(counts) // 2]
            counts = Counter({word: count for word, count in counts.items() if count > median})
    return Counter({tuple(np.frombuffer(word, dtype=np.uint32).tolist()): count for word, count in counts.items()})


def growth_of(before: Tokenizer, after: Tokenizer, splits: dict[str, Texts], pieces: int) -> VocabularyGrowth:
    """Tokens per byte of each split with the old and with the larger vocabulary.

    Args:
        splits: train and val -> their texts.
        pieces: number of the new pieces.
    """
    rates = {
        split: TokensPerByte(before=_tokens_per_byte(before, texts()), after=_tokens_per_byte(after, texts()))
        for split, texts in splits.items()
    }
    for split, rate in rates.items():
        log.info("tokenizer: %d added pieces: %s tokens per byte %s -> %s", pieces, split, rate.before, rate.after)
    return VocabularyGrowth(pieces=pieces, **rates)


def _tokens_per_byte(backend: Tokenizer, texts: Iterable[str]) -> float:
    size = 0

    def measured() -> Iterator[str]:
        nonlocal size
        for text in texts:
            size += len(text.encode("utf-8"))
            yield text

    tokens = sum(map(len, encode_all(backend, measured())))
    return round(tokens / max(size, 1), DIGITS)
