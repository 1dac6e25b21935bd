"""The classifier that reads the text alone: it finds a difference that is there, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize

from codex_ml.safety_audit.blind_baseline import COLUMNS, RIDGE, blind_scores, fit_logistic, text_features

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"]


def texts(count: int, seed: int, words: list[str] = WORDS, size: int = 20) -> list[str]:
    random = np.random.Generator(np.random.PCG64(seed))
    return [" ".join(random.choice(words, size)) for _ in range(count)]


def test_texts_of_one_kind_are_not_told_apart() -> None:
    areas = [blind_scores(texts(120, seed), texts(60, seed + 100), seed=1).area() for seed in range(4)]
    error = np.sqrt(181 / (12 * 120 * 60))
    assert all(abs(area - 0.5) < 3 * error for area in areas)


def test_a_word_that_only_one_set_has_is_found() -> None:
    marked = [f"{text} copyright" for text in texts(60, 2)]
    assert blind_scores(texts(120, 1), marked, seed=1).area() > 0.99


def test_length_alone_is_found() -> None:
    same = ["alpha"]
    assert blind_scores(texts(60, 1, same, 20), texts(60, 2, same, 24), seed=1).area() > 0.99


def test_members_have_the_low_scores_on_either_side() -> None:
    one, two = texts(40, 1), [text.upper() for text in texts(40, 2)]
    assert blind_scores(one, two, seed=1).area() > 0.99
    assert blind_scores(two, one, seed=1).area() > 0.99


def test_scores_follow_the_seed_and_nothing_else() -> None:
    one, two = texts(50, 1), texts(40, 2)
    first, again, other = (blind_scores(one, two, seed=seed) for seed in (1, 1, 2))
    assert first.positives.tolist() == again.positives.tolist()
    assert first.positives.tolist() != other.positives.tolist()


def test_too_few_texts_for_the_folds_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        blind_scores(texts(50, 1), texts(4, 2), seed=1)


def test_features_are_shares_of_words_and_byte_pairs() -> None:
    (row, empty) = text_features(["a a b", ""])
    assert sorted(row[:COLUMNS][row[:COLUMNS] > 0]) == pytest.approx([np.sqrt(1 / 3), np.sqrt(2 / 3)])
    pairs = row[COLUMNS : 2 * COLUMNS]  # "a " twice, " a", " b"
    assert sorted(pairs[pairs > 0]) == pytest.approx([np.sqrt(1 / 4), np.sqrt(1 / 4), np.sqrt(2 / 4)])
    assert row[-2] == pytest.approx(np.log(6))
    assert np.isfinite(empty).all()


def test_the_fit_is_the_minimum_of_its_loss() -> None:
    """Against a derivative by differences, and another minimiser without derivatives."""
    random = np.random.Generator(np.random.PCG64(3))
    features, positive = random.normal(size=(60, 2)), random.random(60) < 0.3
    sign, share = np.where(positive, 1, -1), np.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum())

    def loss(w: np.ndarray) -> float:
        margin = sign * (features @ w[:2] + w[2])
        return float((share * np.log1p(np.exp(-margin))).sum() + RIDGE * (w[:2] ** 2).sum())

    found = fit_logistic(features, positive)
    other = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12}).x
    assert found == pytest.approx(other, abs=1e-3)
    assert check_grad(loss, lambda _: np.zeros(3), found) < 1e-4
