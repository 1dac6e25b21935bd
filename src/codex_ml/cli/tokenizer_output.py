"""What `codex-ml tokenizer stats`, `encode`, `decode` and `compare` print with --json."""

from __future__ import annotations

from codex_ml.core.contract import Contract
from codex_ml.tokens.tokenizer_files import TextMeasures


class TokenizerStats(TextMeasures):
    """Measurements of a tokenizer on a text; see `codex_ml.tokenizer.measure`.

    Attributes:
        unused_share: share of the vocabulary, without special tokens, that the text does not use.
        languages: the same measures per language of the documents; "text" for a text file.
    """

    vocab_size: int
    unused_share: float
    languages: dict[str, TextMeasures]


class EncodedText(Contract):
    """A text as tokens.

    Attributes:
        attention_mask: 1 per token of the text and its end token, 0 per pad token.
        tokens: the text of each id as the vocabulary has it.
        cut: number of tokens that --max-length removed.
    """

    ids: list[int]
    attention_mask: list[int]
    tokens: list[str]
    cut: int


class DecodedText(Contract):
    """The text of token ids."""

    text: str


class TokenizerComparison(Contract):
    """Two tokenizers on one text.

    Attributes:
        shared_tokens: number of tokens that both vocabularies have.
        texts_that_differ: number of documents to which they give different ids.
    """

    first: TokenizerStats
    second: TokenizerStats
    shared_tokens: int
    texts_that_differ: int
