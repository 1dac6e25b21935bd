"""What an output is like without its reference: diversity, repetition, and outputs too short to say anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codex_ml.evaluate.metrics.lexing import SIGNATURE, ngrams, words
from codex_ml.evaluate.metrics.mean import Mean
from codex_ml.evaluate.metrics.protocol import SHARE, Metric, Pair, ratio

BUDGET = 32  # tokens per segment of distinct-n
REPEATED = 4  # tokens of an n-gram of the repetition rate
SHORT = 4  # tokens; a text with fewer has no 4-gram for BLEU


@dataclass(frozen=True)
class Distinct:
    """Different n-grams / all n-grams (Li et al. 2016), in segments of BUDGET tokens.

    The share falls with the length of a text, so each output is cut into disjoint segments of the same length (mean
    segmental type-token ratio, Johnson 1944); the rest at its end does not count.
    """

    n: int
    higher_is_better: bool = True
    bounds: tuple[float, float] = SHARE
    inputs: Literal["pair"] = "pair"

    @property
    def name(self) -> str:
        return f"distinct_{self.n}"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.name, f"{self.name}_ngrams")

    @property
    def signature(self) -> str:
        return f"{self.n}-grams|segments of {BUDGET} tokens|{SIGNATURE}"

    def measure(self, item: Pair) -> Sequence[float]:
        tokens = words(item.output)
        starts = range(0, len(tokens) - BUDGET + 1, BUDGET)
        different = sum(len(set(ngrams(tokens[start : start + BUDGET], self.n))) for start in starts)
        return [float(different), float(len(starts) * (BUDGET - self.n + 1))]

    def aggregate(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return ratio(sums[..., 0], sums[..., 1])


def repetition(item: Pair) -> float | None:
    """1 - different / all n-grams of REPEATED tokens (seq-rep-4, Welleck et al. 2020); None without an n-gram."""
    runs = ngrams(words(item.output), REPEATED)
    return 1 - len(set(runs)) / len(runs) if runs else None


def is_short(item: Pair) -> float:
    """Whether output or reference has fewer than SHORT tokens."""
    return float(min(len(words(item.output)), len(words(item.reference))) < SHORT)


def is_empty(item: Pair) -> float:
    """Whether the output is blank."""
    return float(not item.output.strip())


REPETITION: tuple[Metric, ...] = (
    *(Distinct(n) for n in (1, 2, 3)),
    Mean("repetition_rate", repetition, f"seq-rep-{REPEATED}|{SIGNATURE}", counts_all=False, higher_is_better=False),
    Mean("short_rate", is_short, f"output or reference below {SHORT} tokens|{SIGNATURE}", higher_is_better=False),
    Mean("empty_rate", is_empty, "output is blank", higher_is_better=False),
)
