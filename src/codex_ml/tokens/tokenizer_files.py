"""The measurements that the stage `tokenizer` writes.

Used by: tokenizer, which writes them, and report.
"""

from __future__ import annotations

from codex_ml.core.contract import Contract


class TextMeasures(Contract):
    """Measurements of a tokenizer on validation texts; see `codex_ml.tokenizer.measure`."""

    bytes_per_token: float
    tokens_per_word: float
    unk_share: float
    lossless: float


class LostText(Contract):
    """Number of documents per split that decode to a different text, and the share of all characters that is lost."""

    train: int
    val: int
    test: int
    characters: float


class TokensPerByte(Contract):
    """Tokens per UTF-8 byte of a split, before pieces were added to a vocabulary and after."""

    before: float
    after: float


class VocabularyGrowth(Contract):
    """What tokenizer.add_pieces did: the number of new pieces, and the tokens per byte of train and val."""

    pieces: int
    train: TokensPerByte
    val: TokensPerByte


class TokenizerDetails(Contract):
    """reports/tokenizer/details.json.

    Attributes:
        lossless: share of the documents of all splits that decode to their own text.
        unused_share: share of the vocabulary, without special tokens, that no validation text uses.
        languages: the same measures per language of the document.
        growth: absent without tokenizer.add_pieces.
    """

    written_by = "tokenizer"

    vocab_size: int
    bytes_per_token: float
    tokens_per_word: float
    unk_share: float
    unused_share: float
    lossless: float
    lost: LostText
    languages: dict[str, TextMeasures]
    growth: VocabularyGrowth | None = None
