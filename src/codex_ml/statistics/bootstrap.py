"""Confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

CHUNK = 256  # resamples at a time


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float


def bootstrap_ratio(
    numerators: ArrayLike, denominators: ArrayLike, *, resamples: int, confidence: float, seed: int
) -> Interval:
    """Percentile bootstrap of sum(numerators) / sum(denominators), resampling documents.

    Efron and Tibshirani 1993, section 13.3. Tokens of one document are not independent, so whole documents are drawn.

    Args:
        numerators, denominators: (n_documents,), one entry a document.
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
    """Exact interval of a binomial proportion (Clopper and Pearson 1934), by bisection on the distribution function."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes of {trials} trials")
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else _solve(lambda p: 1 - _binomial_cdf(successes - 1, trials, p), tail)
    high = 1.0 if successes == trials else 1 - _solve(lambda q: _binomial_cdf(successes, trials, 1 - q), tail)
    return Interval(low, high)


def _solve(increasing, target: float) -> float:  # type: ignore[no-untyped-def]
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < target else (low, middle)
    return (low + high) / 2


def _binomial_cdf(k: int, n: int, p: float) -> float:
    if p <= 0:
        return 1.0
    if p >= 1:
        return 1.0 if k >= n else 0.0
    logs = (
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(k + 1)
    )
    return math.fsum(math.exp(value) for value in logs)
