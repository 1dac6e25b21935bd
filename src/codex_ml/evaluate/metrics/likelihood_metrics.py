"""Metrics of teacher-forced likelihood: cost of the text, accuracy, calibration, and the baselines beside the model.

Definitions are those of lm-evaluation-harness: sums of nats over all items, divided by all tokens, words or bytes. So
byte_perplexity = 2 ** bits_per_byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codex_ml.evaluate.metrics.protocol import SHARE, ScoredDocument, ratio
from codex_ml.inference.likelihood import BINS


@dataclass(frozen=True)
class PerUnit:
    """Bits or accuracy per unit: scale * sum of `above` / sum of `below`.

    Attributes:
        minus: a column whose sum is subtracted from the scaled sum of `above`; "" for none.
    """

    name: str
    above: str
    below: str
    scale: float = 1.0
    minus: str = ""
    bounds: tuple[float, float] = (0.0, math.inf)
    higher_is_better: bool = False
    inputs: Literal["score"] = "score"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.above, self.below, *([self.minus] if self.minus else []))

    @property
    def signature(self) -> str:
        scaled = "nll/ln2" if self.above == "nll" else self.above
        return f"({scaled}-{self.minus})/{self.below}" if self.minus else f"{scaled}/{self.below}"

    def measure(self, item: ScoredDocument) -> Sequence[float]:
        return [float(getattr(item, column)) for column in self.columns]

    def aggregate(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        above = sums[..., 0] * self.scale
        values = ratio(above - sums[..., 2] if self.minus else above, sums[..., 1])
        return np.maximum(values, self.bounds[0])  # a model without loss may have one of -1e-9 by rounding


@dataclass(frozen=True)
class Perplexity:
    """exp(nats per unit); infinite where the mean exceeds 709 nats, the largest exponent of a double.

    Its interval is exp of the interval of nats per unit.
    """

    name: str
    below: str
    bounds: tuple[float, float] = (0.0, math.inf)
    higher_is_better: bool = False
    inputs: Literal["score"] = "score"

    @property
    def columns(self) -> tuple[str, ...]:
        return ("nll", self.below)

    @property
    def signature(self) -> str:
        return f"exp(nll/{self.below})"

    def measure(self, item: ScoredDocument) -> Sequence[float]:
        return [float(item.nll), float(getattr(item, self.below))]

    def exponent(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return nats per unit (...) for sums (..., 2)."""
        return ratio(sums[..., 0], sums[..., 1])

    def aggregate(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):
            return np.exp(self.exponent(sums))


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error (Guo et al. 2017): the mean over targets of |confidence - accuracy| of their bin.

    Confidence is the probability of the most probable token; a target is correct if it is that token.
    """

    name: str = "calibration_error"
    bounds: tuple[float, float] = SHARE
    higher_is_better: bool = False
    inputs: Literal["score"] = "score"
    signature: str = f"ece|bins:{BINS} equal width|top-1"
    columns: tuple[str, ...] = tuple(
        f"bin_{number}_{part}" for number in range(BINS) for part in ("tokens", "confidence", "correct")
    )

    def measure(self, item: ScoredDocument) -> Sequence[float]:
        return np.asarray(item.calibration, dtype=np.float64).reshape(-1).tolist()

    def aggregate(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        bins = sums.reshape(*sums.shape[:-1], BINS, 3)
        gaps = np.abs(bins[..., 1] - bins[..., 2]).sum(-1)
        return ratio(gaps, bins[..., 0].sum(-1))


_BITS = 1 / math.log(2)  # per nat
_ANY = (-math.inf, math.inf)

LIKELIHOOD = (
    PerUnit("bits_per_byte", "nll", "bytes", _BITS),
    Perplexity("perplexity", "tokens"),
    Perplexity("word_perplexity", "words"),
    Perplexity("byte_perplexity", "bytes"),
    PerUnit("token_accuracy", "top1", "tokens", bounds=SHARE, higher_is_better=True),
    PerUnit("top5_accuracy", "top5", "tokens", bounds=SHARE, higher_is_better=True),
    CalibrationError(),
    PerUnit("zlib_bits_per_byte", "zlib_bits", "bytes"),
    PerUnit("ngram_bits_per_byte", "ngram_bits", "bytes"),
    PerUnit("bits_per_byte_minus_zlib", "nll", "bytes", _BITS, "zlib_bits", _ANY),
    PerUnit("bits_per_byte_minus_ngram", "nll", "bytes", _BITS, "ngram_bits", _ANY),
)


def needs_whole_text(columns: Sequence[str]) -> bool:
    """Whether a metric divides the cost of the tokens by the text: absent where the tokenizer loses text."""
    return "nll" in columns and not {"bytes", "words"}.isdisjoint(columns)
