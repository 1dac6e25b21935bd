"""Confidence intervals: the percentile bootstrap and the exact binomial interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

CHUNK = 256  # resamples per draw


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float


def bootstrap_ratio(
    numerators: ArrayLike, denominators: ArrayLike, *, resamples: int, confidence: float, seed: int
) -> Interval:
    """Return the percentile-bootstrap interval of sum(numerators) / sum(denominators), resampling documents.

    Efron and Tibshirani 1993, section 13.3. Tokens of one document are not independent, so whole documents are drawn.

    Args:
        numerators, denominators: (n_documents,), one entry per document.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    random = np.random.Generator(np.random.PCG64(seed))
    even = np.full(len(above), 1 / len(above))
    ratios = np.empty(resamples)
    for start in range(0, resamples, CHUNK):
        counts = random.multinomial(len(above), even, size=min(CHUNK, resamples - start)).astype(np.float64)
        ratios[start : start + len(counts)] = (counts @ above) / (counts @ below)
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Interval(float(low), float(high))


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Return the exact interval of a binomial proportion (Clopper and Pearson 1934).

    Raises:
        ValueError: unless 0 <= successes <= trials and trials is at least 1.
    """
    from scipy.stats import binomtest  # imported here, because it takes 0.9 s and only the audit needs it

    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes of {trials} trials")
    interval = binomtest(successes, trials).proportion_ci(confidence, method="exact")
    return Interval(float(interval.low), float(interval.high))
