"""A metric: whether the first line that the model wrote is the first line of the reference."""

from __future__ import annotations

from typing import Any


class FirstLine:
    """Share of the outputs whose first line is that of the reference."""

    name = "first_line"
    inputs = "pair"
    columns = ("first_line", "items")
    higher_is_better = True
    signature = "first line|without white space at its ends"
    bounds = (0.0, 1.0)

    def measure(self, pair: Any) -> list[float]:
        """Return the numbers of one item, which add up over items."""
        written, true = (text.partition("\n")[0].strip() for text in (pair.output, pair.reference))
        return [float(written == true), 1.0]

    def aggregate(self, sums: Any) -> Any:
        """Return the value of the metric for the sums of the numbers."""
        return sums[..., 0] / sums[..., 1]
