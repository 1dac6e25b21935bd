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


class TokenizerDetails(Contract):
    """reports/tokenizer/details.json.

    Attributes:
        lossless: share of the documents of all splits that decode to their own text.
        unused_share: share of the vocabulary, without special tokens, that no validation text uses.
        languages: the same measures per language of the document.
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
