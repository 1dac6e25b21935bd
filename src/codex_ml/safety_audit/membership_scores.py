"""Scores that say how likely a text was in the training data; a low score says "member".

    loss        mean of -ln p over the tokens (Yeom et al. 2018)
    zlib        sum of -ln p, per byte of the text compressed with zlib (Carlini et al. 2021)
    min_k       mean of -ln p over the 20 % least probable tokens (Shi et al. 2024, Min-K% Prob)
    min_k_plus  the same of -(ln p - mean) / deviation, where mean and deviation are those of ln p under the model's
                prediction of the token (Zhang et al. 2025, Min-K%++)
    reference   loss minus the loss of a reference model (Carlini et al. 2021); only where there is one

Used by: the part membership of safety_audit.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.inference.targets import Targets
from codex_ml.safety_audit.audit_windows import AuditWindow
from codex_ml.statistics.roc import Scores

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

FLAT = 1e-3  # a smaller deviation is rounding: the prediction is uniform over some tokens, and ln p is its own mean
K = 0.2  # share of the tokens that min_k and min_k_plus look at
REFERENCE = "reference"
SCORES = ("loss", "zlib", "min_k", "min_k_plus")

Documents = Sequence[tuple[AuditWindow, Targets]]  # one window per document, and what the model says of its tokens


def membership_scores(targets: Targets, text: str) -> dict[str, float]:
    """Score one text by the model alone: the names of `SCORES`.

    Args:
        targets: of all tokens of the text, at least one, with `mean` and `deviation`.

    Raises:
        ValueError: without tokens, or without mean and deviation.
    """
    if targets.mean is None or targets.deviation is None or not len(targets.nll):
        raise ValueError("expected at least one token, with mean and deviation")
    nll = targets.nll.astype(np.float64)
    deviation = targets.deviation.astype(np.float64)
    surprise = np.divide(nll + targets.mean, deviation, out=np.zeros_like(nll), where=deviation > FLAT)
    return {
        "loss": _loss(targets),
        "zlib": float(nll.sum()) / len(zlib.compress(text.encode("utf-8", "surrogatepass"), 9)),
        "min_k": _mean_of_largest(nll),
        "min_k_plus": _mean_of_largest(surprise),
    }


def _loss(targets: Targets) -> float:
    return float(targets.nll.astype(np.float64).mean())


def _mean_of_largest(values: NDArray[Any]) -> float:
    """The mean of the largest fifth of the values, at least one of them.

    >>> _mean_of_largest(np.array([1.0, 5.0, 3.0]))
    5.0
    """
    count = max(1, int(len(values) * K))
    return float(np.sort(values)[-count:].mean())


def one_per_document(windows: Sequence[AuditWindow], targets: Sequence[Targets], most: int) -> Documents:
    """The first window of each document with its targets, of at most this many documents.

    Args:
        windows: with the groups of their documents, see `with_groups`.
    """
    first: dict[int, tuple[AuditWindow, Targets]] = {}
    for window, scored in zip(windows, targets, strict=True):
        first.setdefault(window.document, (window, scored))
    return list(first.values())[:most]


def text_of(tokenizer: TextTokenizer, window: AuditWindow) -> str:
    """The text of the tokens that are scored: all but the first."""
    return tokenizer.decode(window.window.tokens[1:])


def compared_scores(
    tokenizer: TextTokenizer,
    inside: Documents,
    outside: Documents,
    *,
    reference: tuple[Documents, Documents] | None = None,
) -> tuple[dict[str, Scores], str]:
    """Score the documents of train and the held-out documents.

    Args:
        reference: the same windows of both sides, with what the reference model says of their tokens. Where a loss is
            not finite, only the score of the reference is left out.

    Returns:
        (name of the score -> scores of both sides; "", or the reason for which there are none)
    """
    if not inside or not outside:
        return {}, f"there is no window of {'held-out' if inside else 'train'} text"
    columns = [
        [membership_scores(targets, text_of(tokenizer, window)) for window, targets in side]
        for side in (inside, outside)
    ]
    values = {name: [[scores[name] for scores in side] for side in columns] for name in SCORES}
    if not _finite(values):
        return {}, "the model gives no finite score for some text"
    if reference:
        differences = [
            [scores["loss"] - _loss(targets) for scores, (_, targets) in zip(side, known, strict=True)]
            for side, known in zip(columns, reference, strict=True)
        ]
        values |= {REFERENCE: differences} if _finite({REFERENCE: differences}) else {}
    units = units_of(inside), units_of(outside)
    return {name: Scores.of(*both, units=units) for name, both in values.items()}, ""


def _finite(values: Mapping[str, Sequence[Sequence[float]]]) -> bool:
    return all(np.isfinite(side).all() for both in values.values() for side in both)


def units_of(documents: Documents) -> list[str]:
    """The unit of each document: its group, or itself."""
    return [window.unit for window, _ in documents]


def best_score(found: Mapping[str, Scores]) -> str:
    """The name of the score with the largest area."""
    return max(found, key=lambda name: found[name].area())
