"""Membership scores of a text, by hand."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from codex_ml.inference.targets import Targets
from codex_ml.safety_audit.membership_scores import membership_scores


def targets(nll: list[float], mean: list[float], deviation: list[float]) -> Targets:
    flags = np.zeros(len(nll), dtype=bool)
    nats, other, spread = (np.array(column, dtype=np.float32) for column in (nll, mean, deviation))
    return Targets(nats, flags, flags, np.zeros(len(nll), dtype=np.float32), other, spread)


def test_scores_are_those_of_the_papers() -> None:
    """Ten tokens: two are the least probable fifth. Normalised, -(ln p - mean) / deviation, other two are."""
    nll = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    mean, deviation = [-4.0] * 10, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0, 10.0, 10.0]
    found = membership_scores(targets(nll, mean, deviation), "some text")
    assert found["loss"] == 5.5
    assert found["zlib"] == 55 / len(zlib.compress(b"some text", 9))
    assert found["min_k"] == 9.5
    assert found["min_k_plus"] == ((7 - 4) / 0.5 + (8 - 4) / 1) / 2


def test_probable_text_has_low_scores() -> None:
    known, new = (membership_scores(targets([nats] * 6, [-2.0] * 6, [1.0] * 6), "abc") for nats in (0.1, 5.0))
    assert all(known[name] < new[name] for name in known)


@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_the_least_probable_fifth_of_a_short_text_is_at_least_one_token(tokens: int) -> None:
    nll = [float(number) for number in range(1, tokens + 1)]
    found = membership_scores(targets(nll, [0.0] * tokens, [1.0] * tokens), "a")
    assert found["min_k"] == found["min_k_plus"] == tokens


def test_a_uniform_prediction_normalises_to_zero() -> None:
    """Rounding leaves a deviation of about 1e-6; the difference from the mean is as small."""
    found = membership_scores(targets([4.0, 4.0], [-4.000001, -3.999999], [2e-6, 1e-6]), "a")
    assert found["min_k_plus"] == 0


def test_text_without_tokens_or_without_the_spread_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        membership_scores(targets([], [], []), "")
    plain = targets([1.0], [0.0], [1.0])
    with pytest.raises(ValueError, match="mean and deviation"):
        membership_scores(Targets(plain.nll, plain.top1, plain.top5, plain.confidence), "a")
