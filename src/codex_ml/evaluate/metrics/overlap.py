"""How much of the reference an output reproduces: exact match, token F1, ROUGE and edit similarity."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codex_ml.evaluate.metrics.lexing import CHARACTERS, SIGNATURE, ngrams, words
from codex_ml.evaluate.metrics.mean import Mean
from codex_ml.evaluate.metrics.protocol import SHARE, Pair, ratio

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def exact(item: Pair) -> float:
    """Whether the output is the reference, character by character."""
    return float(item.output == item.reference)


def exact_stripped(item: Pair) -> float:
    """Whether the output is the reference, without white space at both ends."""
    return float(item.output.strip() == item.reference.strip())


def squad(text: str) -> str:
    """Normalise an answer as SQuAD 1.1 does: lower case, no ASCII punctuation, no English articles, single spaces.

    A text of which nothing is left stays as it is, without white space at both ends: "A" is an answer, too.
    """
    text = text[:CHARACTERS]
    plain = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION))
    return " ".join(plain.split()) or text.strip()


def exact_squad(item: Pair) -> float:
    """Whether output and reference are the same answer."""
    return float(squad(item.output) == squad(item.reference))


def f1_of_bags(output: Sequence[object], reference: Sequence[object]) -> float:
    """Harmonic mean of precision and recall of two bags: 1 if both are empty, 0 if one is."""
    if not output or not reference:
        return float(len(output) == len(reference))
    common = (Counter(output) & Counter(reference)).total()
    return 2 * common / (len(output) + len(reference))


def rouge_n(item: Pair, n: int) -> float | None:
    """ROUGE-N as F1 of n-grams (Lin 2004); None where neither text has an n-gram."""
    output, reference = ngrams(words(item.output), n), ngrams(words(item.reference), n)
    return f1_of_bags(output, reference) if output or reference else None


def rouge_l(item: Pair) -> float | None:
    """ROUGE-L as F1 of the longest common subsequence of the whole texts (Lin 2004); None where both have no token."""
    from rapidfuzz.distance import LCSseq

    ids: dict[str, int] = {}  # numbers, because rapidfuzz compares texts by their hash
    output, reference = ([ids.setdefault(w, len(ids)) for w in words(text)] for text in (item.output, item.reference))
    if not output and not reference:
        return None
    return 2 * LCSseq.similarity(output, reference) / (len(output) + len(reference))


def edit_similarity(item: Pair) -> float:
    """1 - Levenshtein distance / length of the longer text, in characters; 1 if both are empty."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.normalized_similarity(item.output[:CHARACTERS], item.reference[:CHARACTERS])


@dataclass(frozen=True)
class WeightedAccuracy:
    """Sum of the weights of pairs that match exactly without outer white space / sum of all weights."""

    name: str = "weighted_accuracy"
    inputs: Literal["pair"] = "pair"
    columns: tuple[str, ...] = ("weighted_correct", "weight")
    higher_is_better: bool = True
    bounds: tuple[float, float] = SHARE
    signature: str = "exact:stripped|weight of the record, else 1"

    def measure(self, item: Pair) -> Sequence[float]:
        return [item.weight * exact_stripped(item), item.weight]

    def aggregate(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return ratio(sums[..., 0], sums[..., 1])


_SQUAD = f"normalised:squad 1.1, nothing left: as it is|first:{CHARACTERS}"

OVERLAP = (
    Mean("exact_match", exact, "exact:raw"),
    Mean("exact_match_stripped", exact_stripped, "exact:stripped"),
    Mean("exact_match_squad", exact_squad, f"exact|{_SQUAD}"),
    Mean(
        "token_f1", lambda item: f1_of_bags(squad(item.output).split(), squad(item.reference).split()), f"f1|{_SQUAD}"
    ),
    Mean("rouge1", lambda item: rouge_n(item, 1), f"f1 of 1-grams|{SIGNATURE}", counts_all=False),
    Mean("rouge2", lambda item: rouge_n(item, 2), f"f1 of 2-grams|{SIGNATURE}", counts_all=False),
    Mean("rougeL", rouge_l, f"f1 of lcs of the whole text|{SIGNATURE}", counts_all=False),
    Mean("edit_similarity", edit_similarity, f"1-levenshtein/longer|characters|first:{CHARACTERS}"),
    WeightedAccuracy(),
)
