"""Contracts of the files in which `evaluate` describes the test split.

Used by: evaluate, which writes them, and report.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import model_validator

from codex_ml.core.contract import Contract


class ScoreInterval(Contract):
    """Confidence interval of a score."""

    low: float
    high: float


class ScoreIntervals(Contract):
    """Intervals by score; the two of bits per byte are absent if bits per byte is."""

    token_accuracy: ScoreInterval
    bits_per_byte: ScoreInterval | None = None
    bits_per_byte_minus_zlib: ScoreInterval | None = None


class LossyTest(Contract):
    """Number of test documents that the tokenizer does not reproduce, and why bits per byte is absent."""

    documents: int
    reason: str


@dataclass(frozen=True)
class BitsPerByte:
    """Bits per byte, its interval, and the interval of its difference to zlib."""

    value: float
    interval: ScoreInterval
    minus_zlib: ScoreInterval


class Evaluation(Contract):
    """reports/evaluate/details.json.

    Attributes:
        bits_per_byte: absent if the tokenizer loses text; `lossy` then gives the reason.
        chats: number of documents that are chats.
        perplexity: per token; absent if it is not a finite double.
    """

    written_by = "evaluate"

    zlib_bits_per_byte: float
    bits_per_byte: float | None = None
    lossy: LossyTest | None = None
    chats: int = 0
    token_accuracy: float
    documents: int
    bytes: int
    tokens: int
    interval: ScoreIntervals
    perplexity: float | None = None

    @model_validator(mode="after")
    def _bits_or_why_not(self) -> Evaluation:
        parts = (self.bits_per_byte, self.interval.bits_per_byte, self.interval.bits_per_byte_minus_zlib)
        if [part is None for part in parts] != [self.lossy is not None] * len(parts):
            raise ValueError("expected bits_per_byte with both its intervals, or lossy")
        return self

    @property
    def bits(self) -> BitsPerByte | None:
        """Bits per byte; None where the tokenizer loses text."""
        value, interval, minus = self.bits_per_byte, self.interval.bits_per_byte, self.interval.bits_per_byte_minus_zlib
        if value is None or interval is None or minus is None:
            return None
        return BitsPerByte(value, interval, minus)


class DocumentScore(Contract):
    """One line of reports/evaluate/documents.ndjson: numerators and denominators of one document.

    Attributes:
        bytes: of UTF-8.
        nll: sum of -ln p over `tokens` targets, nats.
        correct: targets that were the most probable token.
        zlib_bits: bits of the document compressed alone.
    """

    written_by = "evaluate"

    id: str
    source: str
    path: str
    bytes: int
    tokens: int
    nll: float
    correct: int
    zlib_bits: int

    @property
    def bits_per_byte(self) -> float:
        """nll / ln 2 / bytes."""
        return self.nll / math.log(2) / self.bytes


@dataclass(frozen=True)
class SourceScore:
    """One row of reports/evaluate/by_source.csv; without the model's bits per byte if the tokenizer loses text."""

    source: str
    bits_per_byte: float | None
    zlib_bits_per_byte: float
    documents: int
