"""The extrapolated exposure, against distributions whose tail has a closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm, skewnorm

from codex_ml.safety_audit.canary_tail import Tail, fitted_tail


def tail(shape):
    return Tail(shape, loc=50.0, scale=4.0, distance=0.01, p=0.9)


@pytest.mark.parametrize("z", [1.0, -0.5, -1.0, -1.001, -3.0, -10.0, -40.0])
def test_the_tail_equals_its_closed_form_however_far_out(z):
    """With shape 0 it is the normal distribution; with shape 1 its square; with shape -1 that of the mirrored square."""
    log_normal = norm.logcdf(z)
    closed = {0.0: log_normal, 1.0: 2 * log_normal, -1.0: log_normal + math.log(2 - math.exp(log_normal))}
    for shape, expected in closed.items():
        assert tail(shape).exposure(50 + 4 * z) == pytest.approx(-expected / math.log(2), rel=1e-7)


@pytest.mark.parametrize("shape", [-6.0, 0.3, 2.0, 8.0])
def test_the_tail_equals_scipy_where_scipy_has_digits(shape):
    for z in (0.5, -0.9, -1.2):
        probability = skewnorm.cdf(z, shape)
        if probability > 1e-6:
            assert tail(shape).exposure(50 + 4 * z) == pytest.approx(-math.log2(probability), rel=1e-6)


@pytest.mark.parametrize(("shape", "z"), [(50.0, -0.9), (1000.0, -0.1), (1000.0, -0.9), (5.0, -0.99)])
def test_the_tail_of_a_skewed_distribution_is_a_number_where_scipy_gives_zero(shape, z):
    """Bounds of ln P from the Mills ratio: with a = 1 + shape^2, P is just below phi(z) phi(shape z) 2 / (shape z^2 a)."""
    top = math.log(2) + norm.logpdf(z) + norm.logcdf(shape * z) - math.log(-z * (1 + shape**2))
    found = -tail(shape).exposure(50 + 4 * z) * math.log(2)
    assert top - 0.2 < found < top


def test_the_fit_has_the_moments_of_the_references():
    references = np.sort(skewnorm.rvs(3, loc=60, scale=9, size=1000, random_state=1))
    found = fitted_tail(references)
    mean, variance = skewnorm.stats(found.shape, found.loc, found.scale, moments="mv")
    assert (mean, variance) == pytest.approx((references.mean(), references.var()), rel=1e-9)
    assert found.fits
    assert found.distance < 0.04
    # An extrapolation: 8.9 bits where the true distribution has 7.9.
    assert found.exposure(55) == pytest.approx(-math.log2(skewnorm.cdf(55, 3, 60, 9)), rel=0.15)


@pytest.mark.parametrize(
    "references",
    [
        np.full(1000, 80.1),  # those of a uniform model
        np.array([1.0, np.nan, 3.0]),
        np.random.Generator(np.random.PCG64(1)).exponential(9, 1000),  # more skewed than the distribution can be
    ],
    ids=["equal", "not finite", "too skewed"],
)
def test_without_a_distribution_nothing_is_extrapolated(references):
    assert fitted_tail(references) is None


def test_a_fit_that_the_references_contradict_is_rejected():
    two_peaks = np.concatenate([np.linspace(0, 1, 500), np.linspace(9, 10, 500)])
    found = fitted_tail(two_peaks)
    assert not found.fits
    assert found.distance > 0.2
