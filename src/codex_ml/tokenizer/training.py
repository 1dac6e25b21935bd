"""Train a tokenizer on whole documents, with the same bytes in every process. Each kind has its own function.

In the `tokenizers` library some results depend on the order of a hash table: six runs gave six different files. So
WordPiece gets its alphabet with fixed ids, and sentencepiece trains Unigram on sorted counts.
Used by: stages/tokenizer.py.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from codex_ml.core.config import BASE_FOLDER
from codex_ml.core.errors import UserError
from codex_ml.core.io import write_bytes
from codex_ml.tokenizer.config import Tokenizer as Settings
from codex_ml.tokenizer.sample import Texts, sample_of
from codex_ml.tokens.layout import UNK, save_trained_tokenizer, special_tokens_of, write_kind
from codex_ml.tokens.tokenizer_files import VocabularyGrowth

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger("codex_ml")
PROOF_CHARACTERS = 400_000


def train_tokenizer(
    texts: Texts, settings: Settings, folder: Path, *, held_out: Texts | None = None
) -> VocabularyGrowth | None:
    """Write a tokenizer folder for `settings` (see codex_ml.tokens.layout).

    Args:
        texts: each call starts a new pass over the documents of train. Kind local reads only the first few, as a trial,
            unless it adds pieces.
        folder: an empty folder.
        held_out: texts for the proof of the SentencePiece kinds, and on which added pieces are measured; `texts` if
            None.

    Returns:
        the gain of settings.add_pieces; None without it.

    Raises:
        UserError: when there is no text, the vocabulary is too small, or a special token is already an ordinary token.
    """
    write_kind(folder, settings.kind)
    if settings.kind == "local":
        from codex_ml.tokenizer.local_tokenizer import import_tokenizer

        return import_tokenizer(BASE_FOLDER.parent.parent / settings.path, texts, settings, folder, held_out=held_out)
    if next(iter(texts()), None) is None:
        raise UserError("tokenizer: the train split has no documents to train on; add documents")
    special = special_tokens_of(settings.special_tokens, settings.chat_template)
    size = settings.vocab_size - len(special)
    if settings.kind in ("sentencepiece_bpe", "sentencepiece_unigram"):
        from codex_ml.tokenizer.sentencepiece_model import HARD, prove_equal, train_sentencepiece

        tokenizer, data = train_sentencepiece(texts(), settings.kind, size)
        prove_equal(tokenizer, data, (*HARD, *sample_of(held_out or texts, characters=PROOF_CHARACTERS)))
        write_bytes(folder / "tokenizer.model", data)
        unk: str | None = "<unk>"
    elif settings.plugins["tokenizers"]:
        from codex_ml.tokenizer.plugin_tokenizer import train_plugin

        tokenizer = train_plugin(settings.kind, texts, size)
        unk = getattr(tokenizer.model, "unk_token", None)
    else:
        train = {"byte_bpe": _byte_bpe, "unigram": _unigram, "wordpiece": _wordpiece}
        train["whitespace"] = partial(_whitespace, special=special)
        tokenizer = train[settings.kind](texts, size)
        unk = UNK if settings.kind in ("wordpiece", "whitespace") else None
    save_trained_tokenizer(tokenizer, folder, special_tokens=special, unk=unk, chat_template=settings.chat_template)
    return None


def require_size(size: int, least: int, kind: str) -> None:
    """Refuse a vocabulary that is smaller than the alphabet that its kind needs.

    Raises:
        UserError: names both numbers.
    """
    if size < least:
        raise UserError(
            f"tokenizer.vocab_size leaves {size} tokens without the special ones; {kind} needs at least {least} here: "
            f"add {least - size}"
        )


def _byte_bpe(texts: Texts, size: int) -> Tokenizer:
    """Byte-level BPE with GPT-2's regular expression. Ids: 256 bytes, then the merges, as GGUF readers expect."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    require_size(size, 256, "byte_bpe")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def _unigram(texts: Texts, size: int) -> Tokenizer:
    """Unigram (Kudo 2018) over the byte-level alphabet and GPT-2's pieces: lossless on any text, no unknown token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from codex_ml.tokenizer.sentencepiece_model import train_on_counts

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    require_size(size, len(alphabet), "unigram")
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    counts: Counter[str] = Counter()
    for text in texts():
        counts.update(piece for piece, _ in cut.pre_tokenize_str(text))
    pieces = train_on_counts(counts, size, alphabet=alphabet)
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=None, byte_fallback=False))
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _wordpiece(texts: Texts, size: int) -> Tokenizer:
    """WordPiece as in BERT, cased: words and punctuation, `##` inside words. White space is lost."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = _frequent_characters(texts(), limit=size // 4)
    require_size(size, 2 * len(alphabet) + 1, "wordpiece")
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fixed = [UNK, *alphabet, *("##" + character for character in alphabet)]  # else a hash table decides their ids
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=fixed,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    trained = Tokenizer(
        models.WordPiece(tokenizer.get_vocab(), unk_token=UNK)
    )  # without the alphabet as special tokens
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trained.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return trained


def _frequent_characters(texts: Iterable[str], *, limit: int) -> list[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    kept = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))[:limit]
    return sorted(kept)


def _whitespace(texts: Texts, size: int, special: Sequence[str]) -> Tokenizer:
    """Words between white space, by falling frequency; words of equal frequency are in code point order.

    A word that spells a special token stays unknown: in the vocabulary it would become that token.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    counts: Counter[str] = Counter()
    for text in texts():
        counts.update(text.split())
    words = sorted(counts.keys() - {UNK, *special}, key=lambda word: (-counts[word], word))[: size - 1]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([UNK, *words])}, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer
