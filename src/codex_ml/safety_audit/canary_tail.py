"""Exposure beyond the ceiling, extrapolated from the distribution of the references' scores.

Carlini et al. 2019 (arXiv:1802.08232, section 5.3) fit a skew-normal distribution to the scores of the references; the
exposure of a canary is -log2 of the probability of a score at most as high as its own. The fit is by moments, so that
it moves with the scores and not with the tolerance of an optimizer.

Used by: safety_audit.exposure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FITS = 0.1  # p-value of the Kolmogorov-Smirnov test below which the fit is rejected, as in the paper
MEASURED = 1e-6  # a smaller probability has few digits in scipy, or is 0 there: with shape 1000 half a deviation away


@dataclass(frozen=True)
class Tail:
    """A skew-normal distribution fitted to scores in bits.

    Attributes:
        shape, loc, scale: its parameters, as scipy.stats.skewnorm names them.
        distance, p: largest distance between the distribution and the references' own, and the p-value of this
            distance by the Kolmogorov-Smirnov test. The test does not know that the distribution was fitted to these
            references, so its p is too large rather than too small.
    """

    shape: float
    loc: float
    scale: float
    distance: float
    p: float

    @property
    def fits(self) -> bool:
        return self.p >= FITS

    def exposure(self, bits: float) -> float:
        """-log2 of the probability of a score of at most `bits`, also where that probability is below any float."""
        return -self._log_probability((bits - self.loc) / self.scale) / math.log(2)

    def _log_probability(self, z: float) -> float:
        """ln of the integral of f(t) = 2 phi(t) Phi(shape t) from -inf to z.

        In the tail f falls by a factor e within 1 / rate of z. The integral is f(z) times that of f(z - v) / f(z), in
        steps of 1 / rate, which no rounding reaches.
        """
        from scipy.integrate import quad
        from scipy.special import log_ndtr
        from scipy.stats import skewnorm

        if z > -1 and (probability := float(skewnorm.cdf(z, self.shape))) > MEASURED:
            return math.log(probability)

        def log_density(t: float) -> float:
            return math.log(2) - t * t / 2 - math.log(2 * math.pi) / 2 + float(log_ndtr(self.shape * t))

        rate = -z * (1 + max(self.shape, 0.0) ** 2)
        top = log_density(z)
        area, _ = quad(lambda v: math.exp(log_density(z - v / rate) - top), 0, math.inf)
        return top + math.log(area / rate)


def fitted_tail(references: NDArray[np.float64]) -> Tail | None:
    """Fit the scores of the references; None where they do not vary, as those of a uniform model.

    Args:
        references: (n,) bits.
    """
    from scipy.stats import kstest, skewnorm

    if not np.isfinite(references).all() or np.ptp(references) == 0:
        return None
    shape, loc, scale = (float(value) for value in skewnorm.fit(references, method="MM"))
    if not math.isfinite(shape):  # more skewed than a skew-normal distribution can be
        return None
    test = kstest(references, skewnorm(shape, loc, scale).cdf)
    return Tail(shape, loc, scale, float(test.statistic), float(test.pvalue))
