"""Score lists of texts of your own from Python, with the metrics that the pipeline uses.

>>> text_metrics(["x = 1"], ["x = 2"], names=["exact_match", "rouge1"])
{'exact_match': 0.0, 'rouge1': 0.6666666666666666}
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codex_ml.core.errors import UserError
from codex_ml.evaluate.metrics.protocol import Pair
from codex_ml.evaluate.metrics.registry import load_metrics


def text_metrics(
    outputs: Sequence[str], references: Sequence[str], *, names: Sequence[str] = (), language: str = "text"
) -> dict[str, float]:
    """Return the metrics of generated text for outputs and their references, by name.

    Args:
        references: one text per output, in the same order.
        names: the metrics; none: all on pairs.
        language: of all outputs, such as "python".

    Returns:
        NaN for a metric that counts none of the pairs.

    Raises:
        UserError: when the numbers of texts differ, something is not a text, or a name is not a metric on pairs.
    """
    if isinstance(outputs, str) or isinstance(references, str) or len(outputs) != len(references):
        raise UserError(
            f"expected two lists with one text each per item, found {_shown(outputs)} as outputs and "
            f"{_shown(references)} as references"
        )
    metrics = load_metrics(names)
    if others := [metric.name for metric in metrics.of("score") if names]:
        raise UserError(f"{others[0]} is a metric of the likelihood of a document, not of an output and its reference")
    sums = np.zeros(len(metrics.columns("pair")))
    for number, (output, reference) in enumerate(zip(outputs, references, strict=True), start=1):
        try:
            sums += metrics.measure(Pair("", output, reference, language))
        except TypeError as error:
            raise UserError(f"pair {number}: {error}") from None
    return {metric.name: metrics.value(metric, sums[metrics.places(metric)]) for metric in metrics.of("pair")}


def _shown(texts: Sequence[str]) -> str:
    return "one text" if isinstance(texts, str) else f"{len(texts)} items"
