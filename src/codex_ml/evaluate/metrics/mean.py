"""The mean of a number per pair: the form of most metrics on text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codex_ml.evaluate.metrics.protocol import SHARE, Pair, ratio


@dataclass(frozen=True)
class Mean:
    """The mean of `of` over the pairs for which it is a number.

    Attributes:
        of: the number of a pair, or None for a pair that does not count.
        counts_all: whether `of` is never None; such metrics share the column `items`.
    """

    name: str
    of: Callable[[Pair], float | None]
    signature: str
    counts_all: bool = True
    higher_is_better: bool = True
    bounds: tuple[float, float] = SHARE
    inputs: Literal["pair"] = "pair"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.name, "items" if self.counts_all else f"{self.name}_items")

    def measure(self, item: Pair) -> Sequence[float]:
        number = self.of(item)
        return (0.0, 0.0) if number is None else (float(number), 1.0)

    def aggregate(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return ratio(sums[..., 0], sums[..., 1])
