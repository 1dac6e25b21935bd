"""What `tokenizer` measures of the tokenizer.

Used by: tokenizer, which writes it, and report.
"""

from __future__ import annotations

from codex_ml.core.contract import Contract


class TextMeasures(Contract):
    """A tokenizer on validation texts; see `codex_ml.tokenizer.measure`."""

    bytes_per_token: float
    tokens_per_word: float
    unk_share: float
    lossless: float


class LostText(Contract):
    """Documents of each split that decode to another text, and the share of all characters that is lost."""

    train: int
    val: int
    test: int
    characters: float


class TokenizerDetails(Contract):
    """reports/tokenizer/details.json.

    Attributes:
        lossless: share of the documents of all splits that decode to their own text.
        unused_share: share of the vocabulary that no validation text uses, special tokens left out.
        languages: the same measures by language of the document.
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
