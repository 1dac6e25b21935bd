"""Train SentencePiece models, convert them to tokenizer.json, and prove that both give the same ids.

Used by: tokenizer.training, tokenizer.local_tokenizer, tokenizer.trials.
"""

from __future__ import annotations

import io
import logging
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import CheckFailed, UserError, one_line
from codex_ml.tokenizer.sentencepiece_file import (
    NORMAL,
    OUT_OF_REACH,
    UNKNOWN,
    USER_DEFINED,
    SentencePieceModel,
    on_grid,
    read_model,
)  # fmt: skip

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger("codex_ml")

BLANK = "\u2581"  # represents a space inside pieces
RESERVED = "\u2585\0"  # the trainer skips every sentence that holds one, so text is split at them
THREADS = 4  # fixed, not the number of cores: Unigram adds the sums of its threads, so the number changes the result
SQUEEZED = 1 << 20  # limit of leading spaces that decoding removes; encoding keeps none of them
PROOF_CHARACTERS = 2000  # per encoded text: float32 sums of sentencepiece are exact up to 2**24 * GRID nats
# Hangul written in jamo is missing: tokenizers applies compiled rules only to short graphemes (known upstream)
HARD = (
    "a  b   c    d     e\t\tf\r\n\n\n  g", "<unk><s></s><pad><0x0A><0xFF>", "nul\0inside", "x , y . z !", "",
    "\u2603 \U0001f469\u200d\U0001f467", " leading and trailing ", "e\u0301 \ufb01 \u00a0 \u3000",
    "\ufeff\u202e\ufffd", "\n  white space, leading\t", "\u0085 \r and trailing \x0b\x1c", " \n ",
    "\u2581 a\u2581\u2581b",
)  # fmt: skip


def train_sentencepiece(texts: Iterable[str], kind: str, size: int) -> tuple[Tokenizer, bytes]:
    """Train on whole documents; return the tokenizer, and the .model file whose ids it must give (see `prove_equal`).

    There is no normalisation, no dummy prefix and no squeezing of spaces. There is byte fallback, and no document is
    skipped for its length. sentencepiece holds the text of train in memory.

    Args:
        kind: sentencepiece_bpe or sentencepiece_unigram.
        size: number of pieces, with the unknown piece and 256 bytes; a small text may give fewer.

    Raises:
        UserError: when there is no text, or the vocabulary cannot hold the characters.
    """
    unigram = kind == "sentencepiece_unigram"
    # A letter that no text holds would not be a piece. Then the text `<0x0A>` would have no path but the byte piece.
    letters = [c for c in string.printable if not c.isspace()] if unigram else []
    data = _train(
        chain(_sentences(texts), letters),
        vocab_size=size,
        model_type="unigram" if unigram else "bpe",
        byte_fallback=True,
        required_chars="".join(letters),
    )
    data = on_grid(data) if unigram else data
    return to_tokenizer(read_model(data, Path("the new model"))), data


def train_on_counts(counts: Mapping[str, int], size: int, *, alphabet: Sequence[str]) -> list[tuple[str, float]]:
    """Unigram pieces and their scores from word -> count, best first. Every letter of `alphabet` is a piece.

    Raises:
        UserError: when the vocabulary cannot hold the characters.
    """
    weighed = Counter(counts)
    weighed.update(alphabet)  # a letter that no text holds would not become a piece
    data = _train(
        (f"{word}\t{count}" for word, count in sorted(weighed.items())),
        vocab_size=size + 1,  # sentencepiece's own unknown piece is removed below
        model_type="unigram",
        input_format="tsv",
        character_coverage=1.0,
        split_by_unicode_script=False,
        split_by_number=False,
    )
    model = read_model(on_grid(data), Path("the new model"))
    return [(text, score) for text, score, kind in model.pieces if kind == NORMAL]


def _train(sentences: Iterable[str], **options: Any) -> bytes:
    import sentencepiece

    writer = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=writer,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=1 << 30,
            hard_vocab_limit=False,
            num_threads=THREADS,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
            **options,
        )
    except (RuntimeError, OSError) as error:
        reason = str(error)
        if "sentences_.empty()" in reason:
            raise UserError("tokenizer: the train split has no text to train on; add documents with text") from None
        if "required_chars" in reason or "vocab_size" in reason.lower() or "vocabulary size" in reason.lower():
            raise UserError(
                f"tokenizer.vocab_size {options['vocab_size']} is too small for the characters of this text; "
                f"use a larger one (sentencepiece: {one_line(error)})"
            ) from None
        raise CheckFailed(f"sentencepiece could not train: {one_line(error)}") from None
    return writer.getvalue()


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """Whole documents, split only at characters that the trainer reserves. At run time these become bytes."""
    left_out = 0
    for text in texts:
        parts = re.split(f"[{RESERVED}]", text)
        left_out += len(parts) - 1
        yield from filter(None, parts)
    if left_out:
        log.info("tokenizer: sentencepiece reserves U+2585 and NUL: %d of these characters were skipped", left_out)


def to_tokenizer(model: SentencePieceModel) -> Tokenizer:
    """The tokenizer of the `tokenizers` library with the same ids. The caller still has to mark special pieces.

    Raises:
        UserError: when the model has no unknown piece.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers

    unk = next((i for i, (_, _, kind) in enumerate(model.pieces) if kind == UNKNOWN), None)
    if unk is None:
        raise UserError("the SentencePiece model has no unknown piece")
    if model.unigram:
        # a piece that text must not become needs a lower score than every other path
        scored = [(text, s if kind in (NORMAL, USER_DEFINED) else OUT_OF_REACH) for text, s, kind in model.pieces]
        tokenizer = Tokenizer(models.Unigram(scored, unk_id=unk, byte_fallback=model.byte_fallback))
    else:
        vocabulary = {text: i for i, (text, _, _) in enumerate(model.pieces)}
        tokenizer = Tokenizer(
            models.BPE(
                vocab=vocabulary,
                merges=_merges(model),
                unk_token=model.pieces[unk][0],
                fuse_unk=True,
                byte_fallback=model.byte_fallback,
            )
        )
    steps: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.squeeze:  # spaces only: the library's Strip would remove line breaks and all other white space too
        # sentencepiece strips the end after it escaped the spaces. Without the look-behind, 80,000 of U+2581 before a
        # letter took two minutes.
        last = f"(?<![ {BLANK}])[ {BLANK}]+" if model.escape else "(?<! ) +"
        steps += [normalizers.Replace(Regex(expression), by) for expression, by in ((" {2,}", " "), (r"\A ", ""))]
        steps.append(normalizers.Replace(Regex(rf"{last}\z"), ""))
    if model.dummy_prefix:
        steps.append(normalizers.Prepend(" "))
    if model.escape:
        steps.append(normalizers.Replace(" ", BLANK))
    tokenizer.normalizer = normalizers.Sequence(steps)
    fallback = [decoders.ByteFallback()] if model.byte_fallback else []
    prefix = SQUEEZED if model.squeeze else int(model.dummy_prefix)
    strip = [decoders.Strip(" ", prefix, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace(BLANK, " "), *fallback, decoders.Fuse(), *strip])
    return tokenizer


def _merges(model: SentencePieceModel) -> list[tuple[str, str]]:
    """All pairs of pieces that join to a piece, the best piece first: sentencepiece merges any such pair."""
    normal = {text: (-score, i) for i, (text, score, kind) in enumerate(model.pieces) if kind in (NORMAL, USER_DEFINED)}
    merges = []
    for text in sorted(normal, key=normal.__getitem__):
        ways = [(text[:i], text[i:]) for i in range(1, len(text)) if text[:i] in normal and text[i:] in normal]
        merges += sorted(ways, key=lambda way: (normal[way[0]], normal[way[1]]))
    return merges


def prove_equal(tokenizer: Tokenizer, data: bytes, texts: Iterable[str]) -> None:
    """Compare the ids of the tokenizer with those that sentencepiece gives for the .model file `data`.

    Raises:
        CheckFailed: names the first difference.
    """
    import sentencepiece

    judge = sentencepiece.SentencePieceProcessor(model_proto=data)
    for text in texts:
        for start in range(0, max(len(text), 1), PROOF_CHARACTERS):
            part = text[start : start + PROOF_CHARACTERS]
            if (ours := tokenizer.encode(part, add_special_tokens=False).ids) != (theirs := judge.encode(part)):
                at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), 0)
                raise CheckFailed(
                    f"tokenizer.json and tokenizer.model encode {part[:60]!r} differently from token {at} on "
                    f"({ours[at : at + 4]} and {theirs[at : at + 4]}); please report it, and use byte_bpe meanwhile"
                )
