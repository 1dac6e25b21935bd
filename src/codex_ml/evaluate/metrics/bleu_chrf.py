"""Corpus BLEU and chrF, as sacrebleu defines them, from its statistics per segment, which add up.

A `Pair` holds one output and one reference, so references cannot reach sacrebleu in the wrong shape: there, one list
per segment instead of one per set of references scores silently wrong (80.9 instead of 54.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from codex_ml.evaluate.metrics.lexing import CHARACTERS, SIGNATURE, words
from codex_ml.evaluate.metrics.protocol import Pair

_ORDERS = 4  # of BLEU
_CHAR_ORDERS, _BETA = 6, 2  # chrF2, the default of sacrebleu


class CorpusBleu:
    """BLEU with n-grams of 1 to 4 tokens of `words`, exponential smoothing, mixed case (Papineni et al. 2002), 0..100.

    It is 0 where the outputs have no 4-gram at all; `short_rate` says how many pairs are that short.
    """

    name = "bleu"
    inputs: Literal["pair"] = "pair"
    columns = (
        "bleu_output_tokens",
        "bleu_reference_tokens",
        *(f"bleu_matches_{n}" for n in range(1, _ORDERS + 1)),
        *(f"bleu_ngrams_{n}" for n in range(1, _ORDERS + 1)),
    )
    higher_is_better = True
    bounds = (0.0, 100.0)

    @cached_property
    def _bleu(self) -> Any:
        from sacrebleu.metrics.bleu import BLEU

        return BLEU(tokenize="none", force=True)  # force: no warning about separated full stops

    @cached_property
    def signature(self) -> str:
        self.measure(Pair("", "a", "a", "text"))  # sacrebleu knows its signature after it has seen a reference
        return f"{self._bleu.get_signature()}|{SIGNATURE}"

    def measure(self, item: Pair) -> Sequence[float]:
        output, reference = " ".join(words(item.output)), " ".join(words(item.reference))
        score = self._bleu.corpus_score([output], [[reference]])
        return [score.sys_len, score.ref_len, *score.counts, *score.totals]

    def aggregate(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        written, wanted = sums[..., 0], sums[..., 1]
        matches, totals = sums[..., 2 : 2 + _ORDERS], sums[..., 2 + _ORDERS :]
        # The first order without a match counts 1/2 of a match, the next one 1/4, and so on. A sum below 1 counts as 0:
        # intervals take derivatives, and so ask for sums a little beside whole numbers.
        none = matches < 1 / 2
        smoothed = np.where(none, 0.5 ** np.cumsum(none, axis=-1), matches)
        with np.errstate(divide="ignore", invalid="ignore"):
            score = np.exp(np.log(100 * smoothed / totals).mean(-1))
            score = score * np.where(written < wanted, np.exp(1 - wanted / written), 1.0)
        score = np.where(np.abs(score - 100) < 1e-9, 100.0, score)  # rounding may give 100.00000000000004
        return np.where(~none.all(-1) & (totals > 1 / 2).all(-1), score, 0.0)


class CorpusChrf:
    """chrF2: F2 of character n-grams of 1 to 6, without white space, averaged over orders (Popovic 2015), 0..100."""

    name = "chrf"
    inputs: Literal["pair"] = "pair"
    columns = tuple(
        f"chrf_{part}_{n}" for n in range(1, _CHAR_ORDERS + 1) for part in ("output", "reference", "matches")
    )
    higher_is_better = True
    bounds = (0.0, 100.0)

    @cached_property
    def signature(self) -> str:
        from sacrebleu.metrics.chrf import CHRF

        chrf = CHRF(char_order=_CHAR_ORDERS, beta=_BETA)
        chrf.corpus_score(["a"], [["a"]])
        return f"{chrf.get_signature()}|first:{CHARACTERS}"

    def measure(self, item: Pair) -> Sequence[float]:
        from sacrebleu.metrics.helpers import extract_all_char_ngrams

        output, reference = (
            extract_all_char_ngrams(text[:CHARACTERS], _CHAR_ORDERS) for text in (item.output, item.reference)
        )
        numbers: list[float] = []
        for own, true in zip(output, reference, strict=True):
            # sacrebleu does not count n-grams of the output where the reference has none of this order
            numbers += [own.total() if true else 0, true.total(), (own & true).total()]
        return numbers

    def aggregate(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        own, true, matches = np.moveaxis(sums.reshape(*sums.shape[:-1], _CHAR_ORDERS, 3), -1, 0)
        there = (own > 1 / 2) & (true > 1 / 2)
        orders = np.maximum(there.sum(-1), 1)
        precision = np.divide(matches, own, out=np.zeros_like(own), where=there).sum(-1) / orders
        recall = np.divide(matches, true, out=np.zeros_like(true), where=there).sum(-1) / orders
        below = _BETA**2 * precision + recall
        score = np.divide((1 + _BETA**2) * precision * recall, below, out=np.zeros_like(below), where=below > 0)
        return 100 * score


BLEU_CHRF = (CorpusBleu(), CorpusChrf())
