"""What a metric is: numbers per item that add up over items, and a function of their sums.

Intervals, groups and paired comparisons follow from the sums alone: they resample or exchange items, add the numbers
up again and apply the same function. So a metric needs no code for any of them.

Used by: evaluate, packages that add a metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Inputs = Literal["score", "pair", "task"]  # "task": metrics of executed code, built in only
SHARE = (0.0, 1.0)  # bounds of a share


@dataclass(frozen=True, slots=True)
class ScoredDocument:
    """The likelihood of one text under the model: an item of metrics whose `inputs` is "score".

    Attributes:
        nll: sum of -ln p over the targets, nats.
        tokens: number of targets, the END token included where it is one.
        top1, top5: targets that were the most probable token, and among the five most probable ones.
        bytes: length of the scored text in UTF-8.
        words: words of the scored text, as lm-evaluation-harness counts them: len(re.split(r"\\s+", text)).
        zlib_bits: bits of the scored text compressed by zlib.
        ngram_bits: bits of the scored text under the n-gram baseline; NaN without one.
        calibration: (bins, 3) float64, by confidence of the most probable token in equal bins of 0..1: targets, sum of
            the confidences, targets that were the most probable token.
    """

    nll: float
    tokens: int
    top1: int
    top5: int
    bytes: int
    words: int
    zlib_bits: float
    ngram_bits: float
    calibration: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pair:
    """One text that the model wrote, and the text that it should have written: an item of metrics on "pair".

    Attributes:
        prompt: the whole text before the output, even where the model saw only its end: code is parsed with it.
        output: what the model wrote after it.
        reference: the true continuation.
        language: language of the document, such as "python"; "text" or "other" where there is none.
        weight: weight of the item, at least 0, in weighted accuracy.

    Raises:
        TypeError: when prompt, output or reference is not one text.
        ValueError: when the weight is negative or not finite.
    """

    prompt: str
    output: str
    reference: str
    language: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name, text in (("prompt", self.prompt), ("output", self.output), ("reference", self.reference)):
            if not isinstance(text, str):  # such as the list of references that sacrebleu takes
                raise TypeError(f"{name} must be a text, found {type(text).__name__}")
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight must be a finite number of at least 0, found {self.weight}")


class Metric(Protocol):
    """A metric, built in or of another package (entry points `codex_ml.metrics`).

    Attributes:
        name: letters, digits and underscores; the key in reports/evaluate/details.json.
        inputs: the kind of item that `measure` takes: "score" for `ScoredDocument`, "pair" for `Pair`.
        columns: names of the numbers per item. Metrics may share a column; it must hold the same number in each.
        higher_is_better: whether the greater of two values is the better one.
        signature: what decides the value: tokenizer, normalisation, version. Values with different signatures are not
            comparable.
        bounds: the lowest and the highest possible value; -inf and inf where there is none. Intervals stay inside.
    """

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> Inputs: ...
    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def higher_is_better(self) -> bool: ...
    @property
    def signature(self) -> str: ...
    @property
    def bounds(self) -> tuple[float, float]: ...

    def measure(self, item: Any) -> Sequence[float]:
        """Return the finite numbers of one item, one per column."""
        ...

    def aggregate(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (...) values for sums (..., columns) over items; NaN where there is nothing to divide by."""
        ...


def ratio(above: ArrayLike, below: ArrayLike) -> NDArray[np.float64]:
    """Return above / below element by element, and NaN where below is 0."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    empty = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    return np.divide(above, below, out=empty, where=below != 0)
