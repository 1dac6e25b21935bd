"""A classifier that tells train text from held-out text without the model, from the text alone.

If it can, the two sets differ as texts, and a membership score that tells them apart proves nothing about the model
(Das et al. 2024, "Blind Baselines Beat Membership Inference Attacks for Foundation Models", arXiv:2406.16201).

The classifier is a logistic regression on hashed words and byte pairs, the length of the text, and how well it
compresses. Both sets have the same weight in its loss. Each text is scored by a classifier that was trained on the
other folds, and the texts of one unit, such as a repository, are in one fold: else the style of a repository would
tell the sets apart. Scores of different folds have different zero points, so each is replaced by its rank in the fold.

Used by: the part membership of safety_audit.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from codex_ml.statistics.roc import Scores

FOLDS = 5
COLUMNS = 1024  # into which words, and byte pairs, are hashed
WORDS = re.compile(r"\w+|[^\w\s]")
RIDGE = 0.1  # of the squared weights
MOST_TEXTS = 2000  # of each set; 33 MB of features per thousand texts of both

Floats = NDArray[np.float64]


def blind_scores(
    members: Sequence[str],
    held_out: Sequence[str],
    *,
    units: tuple[Sequence[str], Sequence[str]] | None = None,
    seed: int,
) -> Scores:
    """Score texts by how much they look like those of the other folds' members; low scores say "member".

    Args:
        members, held_out: texts; of more than `MOST_TEXTS` the first ones are read.
        units: the unit of each text, at least `FOLDS` per set; None: each text is a unit.

    Raises:
        ValueError: with fewer units.
    """
    members, held_out = members[:MOST_TEXTS], held_out[:MOST_TEXTS]
    names = units or (list(map(str, range(len(members)))), list(map(str, range(len(held_out)))))
    names = names[0][:MOST_TEXTS], names[1][:MOST_TEXTS]
    if min(len(set(side)) for side in names) < FOLDS:
        raise ValueError(f"{len(members)} and {len(held_out)} texts have too few units for {FOLDS} folds")
    member = np.arange(len(members) + len(held_out)) < len(members)
    features = text_features([*members, *held_out])
    fold = _folds(names, seed)
    scores = np.empty(len(member))
    for number in range(FOLDS):
        inside, rest = fold == number, fold != number
        average, spread = features[rest].mean(axis=0), features[rest].std(axis=0)
        scaled = (features - average) / np.where(spread > 0, spread, 1.0)
        weights = fit_logistic(scaled[rest], member[rest])
        found = -(scaled[inside] @ weights[:-1])
        scores[inside] = _ranks(found) / inside.sum()
    return Scores.of(scores[member], scores[~member], units=names)


def text_features(texts: Sequence[str]) -> Floats:
    """Features of texts: (n, 2 * COLUMNS + 2) float64.

    Shares of hashed words and of hashed byte pairs, log of the length in bytes, and the ratio of compression.
    """
    features = np.zeros((len(texts), 2 * COLUMNS + 2))
    for row, text in zip(features, texts, strict=True):
        data = text.encode("utf-8", "surrogatepass")
        words = np.array([zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in WORDS.findall(text)], np.int64)
        code = np.frombuffer(data, dtype=np.uint8).astype(np.int64)
        pairs = code[:-1] * 257 + code[1:]
        for begin, hashes in ((0, words), (COLUMNS, pairs)):
            counts = np.bincount(hashes % COLUMNS, minlength=COLUMNS)
            row[begin : begin + COLUMNS] = np.sqrt(counts / max(1, len(hashes)))
        row[-2:] = np.log1p(len(data)), len(zlib.compress(data, 9)) / max(1, len(data))
    return features


def fit_logistic(features: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Fit a logistic regression with both classes of equal weight: (columns + 1,), the last one is the intercept.

    Minimises the mean over both classes of log(1 + exp(-margin)) plus RIDGE times the squared weights.
    """
    from scipy.optimize import minimize  # imported here, because only this part needs it

    sign = np.where(positive, 1.0, -1.0)
    share = np.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum())

    def loss(weights: Floats) -> tuple[float, Floats]:
        margin = sign * (features @ weights[:-1] + weights[-1])
        pull = -share * sign * np.exp(-np.logaddexp(0, margin))  # derivative by the prediction
        gradient = np.append(features.T @ pull + 2 * RIDGE * weights[:-1], pull.sum())
        value = float(share @ np.logaddexp(0, -margin)) + RIDGE * float(weights[:-1] @ weights[:-1])
        return value, gradient

    found: Floats = minimize(loss, np.zeros(features.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return found


def _folds(units: Sequence[Sequence[str]], seed: int) -> NDArray[np.int64]:
    """The fold of each text, at random, with the same share of the units of each set in each fold: (n,)."""
    random = np.random.Generator(np.random.PCG64(seed))
    folds = []
    for names in units:
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        fold = random.permutation(len(numbers)) % FOLDS
        folds.append(fold[[numbers[name] for name in names]])
    return np.concatenate(folds)


def _ranks(values: Floats) -> Floats:
    """Ranks from 1, of equal values their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks
