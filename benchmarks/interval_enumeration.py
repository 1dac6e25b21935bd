"""Compute how often the intervals of proportions cover the true value, by adding up the probabilities of all samples.

No simulation: for one proportion, the coverage is a sum over all numbers of successes. Between two neighbouring limits
of intervals it is the probability of one range of numbers, which has one maximum and is smallest at an end. So the
lowest and the highest coverage over all proportions are exact. For two proportions on the same units, the interval
depends on the flips alone, and the coverage is a sum over both numbers of flips, on a grid of flip rates.

    python benchmarks/interval_enumeration.py            print the table
    python benchmarks/interval_enumeration.py --write    and write it to benchmarks/interval_enumeration.csv

Used by: tests/statistics/test_interval_enumeration.py.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from scipy.special import bdtr, gammaln
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from codex_ml.statistics.proportions import clopper_pearson, paired_proportions

Floats = NDArray[np.float64]
TABLE = Path(__file__).with_suffix(".csv")
SUCCESS_EDGES = (0, 5, 10, 20, 43)  # expected number of the rarer outcome, success or failure; the last is open
FLIP_EDGES = (0, 2, 5, 10)  # expected number of flips; the last is open
BINOMIAL_UNITS = range(5, 1001)
PAIRED_UNITS = (45, 50, 60, 80, 100, 130, 164, 200, 300, 500, 1000)
AGREEING = 15  # expected number of units that do not flip
SHARES = np.linspace(0.5, 1, 41)  # of the flips, those to the better model
MOST_FLIPS = 80  # expected; with more of them, among 200 to 1,000 units, it is 94.3 to 96.0 %
UNLIKELY = 1e-10  # samples below this probability are left out


@dataclass(frozen=True)
class CoverageRange:
    """One row of the table: the coverage, in percent, over all units and proportions of this row.

    Attributes:
        expected_from, expected_below: number of rarer outcomes, or of flips, that is expected; None if it has no end.
        lowest, highest: rounded away from each other.
    """

    interval: str
    units_from: int
    units_to: int
    expected_from: int
    expected_below: int | None
    lowest: float
    highest: float


def binomial_coverage(units: int, low: float, high: float) -> tuple[float, float]:
    """Return the lowest and the highest coverage of the exact interval where `low` to `high` successes are expected.

    `high` is at most half of the units: failures are the mirror image.
    """
    found = [clopper_pearson(successes, units) for successes in range(units + 1)]
    lows, highs = np.array([each.low for each in found]), np.array([each.high for each in found])
    limits = np.unique(np.r_[lows, highs, low / units, high / units])
    limits = limits[(limits >= low / units) & (limits <= high / units)]
    start, end = limits[:-1], limits[1:]
    middle = (start + end) / 2
    first, last = np.searchsorted(highs, middle), np.searchsorted(lows, middle, side="right") - 1

    def covered(share: Floats) -> Floats:
        below = np.where(first > 0, bdtr(np.maximum(first - 1, 0), units, share), 0)
        return np.asarray(bdtr(last, units, share) - below)

    # The derivative is 0 where (p / (1 - p))^(last - first + 1) = C(n - 1, first - 1) / C(n - 1, last).
    inside = (first > 0) & (last < units)
    ratio = _log_binomial(units - 1, np.maximum(first - 1, 0)) - _log_binomial(units - 1, np.minimum(last, units - 1))
    best = 1 / (1 + np.exp(-ratio / (last - first + 1)))
    best = np.where(inside, np.clip(best, start, end), np.where(first == 0, start, end))
    return float(np.minimum(covered(start), covered(end)).min()), float(covered(best).max())


def _log_binomial(n: int, k: NDArray[np.int64]) -> Floats:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


@dataclass(frozen=True)
class FlipLimits:
    """The limits of Tango's interval for all numbers of flips up to a largest one: (m + 1, m + 1), NaN above it."""

    units: int
    low: Floats
    high: Floats

    @classmethod
    def of(cls, units: int, most: int) -> FlipLimits:
        """Return the limits of up to `most` flips among `units`; turning A and B around turns the interval around."""
        low, high = np.full((2, most + 1, most + 1), np.nan)
        for a in range(most + 1):
            for b in range(a, most + 1 - a):
                found = paired_proportions(a, b, units)
                low[a, b], high[a, b] = found.low, found.high
                low[b, a], high[b, a] = -found.high, -found.low
        return cls(units, low, high)

    def coverage(self, flips: float, share: float) -> float:
        """Return the coverage where `flips` flips are expected, of which B gains a share."""
        rate, most = flips / self.units, len(self.low) - 1
        total = np.arange(most + 1)
        weights = binom.pmf(total, self.units, rate)
        total, weights = total[weights > UNLIKELY], weights[weights > UNLIKELY]
        gained = np.arange(total[-1] + 1)
        lost = total[:, None] - gained
        possible = lost >= 0
        chances = weights[:, None] * binom.pmf(gained, total[:, None], share)
        rows = np.where(possible, lost, 0), np.broadcast_to(gained, lost.shape)
        truth = rate * (2 * share - 1)
        held = possible & (self.low[rows] <= truth + 1e-12) & (truth - 1e-12 <= self.high[rows])
        return float(chances[held].sum())


def paired_coverage(limits: FlipLimits, flips: Floats, shares: Floats = SHARES) -> tuple[float, float]:
    """Return the lowest and the highest coverage of Tango's interval over expected flips and shares."""
    found = [limits.coverage(number, share) for number in flips for share in shares]
    return min(found), max(found)


def flip_grid(units: int, low: float, high: float | None) -> Floats:
    """Return the expected flips from `low` to below `high`, where `AGREEING` units or more do not flip."""
    end = min(units - AGREEING, MOST_FLIPS) if high is None else min(units - AGREEING, high - 0.25)
    return np.arange(max(low, 0.25), end + 1e-9, 0.25)


def most_flips(units: int) -> int:
    """Return a number of flips that no likely sample on the grid exceeds."""
    rate = min(units - AGREEING, MOST_FLIPS) / units
    return min(units, int(binom.isf(UNLIKELY, units, rate)) + 1)


def binomial_rows(units: Iterable[int] = BINOMIAL_UNITS) -> Iterable[CoverageRange]:
    """Yield the rows of the exact interval."""
    units = list(units)
    for start, end in pairwise((*SUCCESS_EDGES, None)):
        each = [binomial_coverage(n, start, min(n / 2, end or n)) for n in units if n / 2 > start]
        yield _row("exact", units, (start, end), each)


def paired_rows(units: Iterable[int] = PAIRED_UNITS) -> Iterable[CoverageRange]:
    """Yield the rows of Tango's interval."""
    tables = [FlipLimits.of(n, most_flips(n)) for n in units]
    for start, end in pairwise((*FLIP_EDGES, None)):
        each = [paired_coverage(limits, flip_grid(limits.units, start, end)) for limits in tables]
        yield _row("score", [limits.units for limits in tables], (start, end), each)


def _row(
    name: str, units: list[int], expected: tuple[int, int | None], each: list[tuple[float, float]]
) -> CoverageRange:
    lowest, highest = 100 * min(low for low, _ in each), 100 * max(high for _, high in each)
    rounded = np.floor(lowest * 10 + 1e-6) / 10, np.ceil(highest * 10 - 1e-6) / 10
    return CoverageRange(name, min(units), max(units), *expected, float(rounded[0]), float(rounded[1]))


def main(write: bool = False) -> None:
    """Print the table; write it if asked to."""
    names = [field.name for field in fields(CoverageRange)]
    table = []
    print(*names, sep=",")
    for rows in (binomial_rows(), paired_rows()):
        for row in rows:
            table.append(["" if (value := getattr(row, name)) is None else value for name in names])
            print(*table[-1], sep=",", flush=True)
    if write:
        with TABLE.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([names, *table])


if __name__ == "__main__":
    typer.run(main)
