"""Measure how often an interval of `codex_ml.statistics` covers the true value, beside the percentile bootstrap.

Each population draws units whose true value is known from two million of them. A sample of n units gives one interval;
the coverage is the share of samples whose interval holds the true value. An interval at 95 % should cover 95 %.

    python benchmarks/interval_coverage.py            print the table
    python benchmarks/interval_coverage.py --write    and write it to benchmarks/interval_coverage.csv

Used by: tests/statistics/test_interval_coverage.py.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import typer
from numpy.random import Generator
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from codex_ml.statistics.bootstrap import UNBOUNDED, Aggregate, exponential_interval, interval, paired_interval
from codex_ml.statistics.proportions import Interval, paired_proportions

Floats = NDArray[np.float64]
RECORD = Path(__file__).with_suffix(".csv")
BINS = 10
TRUTH_UNITS, TRUTH_DRAWS = 50_000, 40
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Population:
    """Units and a metric.

    Attributes:
        draw: random numbers and n -> sums (n, k); the columns of A and then of B if `paired`.
        bounds: of the metric; not used if `paired`.
        passes: whether each unit of a pair passes or fails.
    """

    name: str
    draw: Callable[[Generator, int], Floats]
    aggregate: Aggregate
    bounds: tuple[float, float] = UNBOUNDED
    paired: bool = False
    passes: bool = False

    def value(self, sums: Floats) -> Floats:
        """Return the metric, or for pairs that of B minus that of A."""
        if not self.paired:
            return self.aggregate(sums)
        half = sums.shape[-1] // 2
        return self.aggregate(sums[..., half:]) - self.aggregate(sums[..., :half])

    def truth(self) -> float:
        """Return the value of two million units."""
        random = np.random.default_rng(99)
        sums = sum(self.draw(random, TRUTH_UNITS).sum(axis=0) for _ in range(TRUTH_DRAWS))
        return float(self.value(np.asarray(sums)))

    def interval(self, sums: Floats, *, resamples: int, seed: int) -> Interval | None:
        """Return the interval under test."""
        if self.passes:
            a, b = sums[:, 0] == 1, sums[:, 2] == 1
            return paired_proportions(int((a & ~b).sum()), int((b & ~a).sum()), len(a), confidence=CONFIDENCE)
        if self.paired:
            a, b = np.split(sums, 2, axis=1)
            return paired_interval(a, b, self.aggregate, resamples=resamples, confidence=CONFIDENCE, seed=seed)
        if self.aggregate is perplexity:
            return exponential_interval(sums, ratio, resamples=resamples, confidence=CONFIDENCE, seed=seed)
        return interval(sums, self.aggregate, resamples=resamples, confidence=CONFIDENCE, seed=seed, bounds=self.bounds)


@dataclass(frozen=True)
class Coverage:
    """One row of the table; shares in percent of `samples`, and of the samples that have an interval in `covered`."""

    population: str
    units: int
    samples: int
    covered: float
    none: float
    percentile_covered: float


def ratio(sums: Floats) -> Floats:
    """Return the first column divided by the second."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def perplexity(sums: Floats) -> Floats:
    """Return exp(nats per token)."""
    return np.asarray(np.exp(ratio(sums)))


def bleu(sums: Floats) -> Floats:
    """Return BLEU in 0..1 from matches and n-grams of four orders and both lengths."""
    matches, grams, written, wanted = sums[..., :4], sums[..., 4:8], sums[..., 8], sums[..., 9]
    precision = np.log(np.maximum(matches, 1e-9) / np.maximum(grams, 1e-9)).mean(axis=-1)
    return np.asarray(np.exp(precision + np.minimum(0, 1 - wanted / written)))


def calibration_error(sums: Floats) -> Floats:
    """Return the expected calibration error from targets, confidences and hits of each bin."""
    targets, confidences, hits = np.split(sums, 3, axis=-1)
    return np.asarray(np.abs(confidences - hits).sum(axis=-1) / targets.sum(axis=-1))


def sizes(random: Generator, n: int, spread: float) -> Floats:
    """Return bytes of documents, log-normal; the train split of the sample has a spread of 1.46."""
    return np.ceil(np.exp(np.clip(random.normal(7, spread, size=n), 3, 12.2)))


def documents(spread: float, slope: float = -0.1, noise: float = 0.35) -> Callable[[Generator, int], Floats]:
    """Return nats and bytes; nats per byte depend on the size by `slope`."""

    def draw(random: Generator, n: int) -> Floats:
        size = sizes(random, n, spread)
        rate = np.exp(random.normal(0.1, noise, size=n) + slope * (np.log(size) - 7))
        return np.stack([size * rate, size], axis=1)

    return draw


def words(random: Generator, n: int) -> Floats:
    """Return nats and words; a word costs 20 nats, and far more or less in some documents."""
    size = np.ceil(sizes(random, n, 1.0) / 6)
    return np.stack([size * 20 * np.exp(random.normal(0, 0.5, size=n)), size], axis=1)


def two_models(spread: float, noise: float) -> Callable[[Generator, int], Floats]:
    """Return nats and bytes under two models; B is better, most of all on long documents."""

    def draw(random: Generator, n: int) -> Floats:
        a = documents(spread)(random, n)
        gain = random.normal(-0.03, noise, size=n) - 0.02 * (np.log(a[:, 1]) - 7)
        return np.concatenate([a, a * np.stack([np.exp(gain), np.ones(n)], axis=1)], axis=1)

    return draw


def hits(random: Generator, n: int) -> Floats:
    """Return right tokens and tokens."""
    tokens = np.ceil(sizes(random, n, 1.2) / 3)
    return np.stack([random.binomial(tokens.astype(int), random.beta(6, 4, size=n)), tokens], axis=1)


def scores(a: float, b: float, zeros: float = 0, ones: float = 0) -> Callable[[Generator, int], Floats]:
    """Return scores of a beta distribution, with shares of exact zeros and ones, and 1 each to divide by."""

    def draw(random: Generator, n: int) -> Floats:
        lot, score = random.random(n), random.beta(a, b, size=n)
        return np.stack([np.where(lot < zeros, 0, np.where(lot > 1 - ones, 1, score)), np.ones(n)], axis=1)

    return draw


def passes(a: float, b: float, samples: int) -> Callable[[Generator, int], Floats]:
    """Return the share of samples that pass per task, and 1 each to divide by."""

    def draw(random: Generator, n: int) -> Floats:
        return np.stack([random.binomial(samples, random.beta(a, b, size=n)) / samples, np.ones(n)], axis=1)

    return draw


def flips(both: float, only_a: float, only_b: float) -> Callable[[Generator, int], Floats]:
    """Return pass or fail of two models, and 1 each to divide by."""

    def draw(random: Generator, n: int) -> Floats:
        lot = random.random(n)
        a, b = lot < both + only_a, (lot < both) | ((lot >= both + only_a) & (lot < both + only_a + only_b))
        return np.stack([a, np.ones(n), b, np.ones(n)], axis=1).astype(np.float64)

    return draw


def segments(random: Generator, n: int) -> Floats:
    """Return the statistics of BLEU of short texts whose quality varies."""
    written = random.integers(5, 40, size=n)
    wanted, quality = np.maximum(1, written + random.integers(-4, 5, size=n)), random.beta(3, 2, size=n)
    grams = [np.maximum(written - order, 0) for order in range(4)]
    matches = [random.binomial(count, quality ** (1 + 0.8 * order)) for order, count in enumerate(grams)]
    return np.stack([*matches, *grams, written, wanted], axis=1).astype(np.float64)


def bins(shift: float) -> Callable[[Generator, int], Floats]:
    """Return targets, confidences and hits per bin of a model that is too sure by up to `shift`."""

    def draw(random: Generator, n: int) -> Floats:
        targets = np.floor(np.ceil(sizes(random, n, 1.0) / 3)[:, None] * random.dirichlet(np.ones(BINS), size=n))
        confidence = (np.arange(BINS) + 0.5) / BINS
        drift = random.normal(0, 0.05, size=(n, 1)) * 4 * confidence * (1 - confidence)
        right = np.clip(confidence - shift * np.sin(np.pi * confidence) + drift, 0.001, 0.999)
        return np.concatenate([targets, targets * confidence, random.binomial(targets.astype(int), right)], axis=1)

    return draw


POPULATIONS = (
    Population("bits per byte", documents(1.0), ratio, (0, np.inf)),
    Population("bits per byte (sizes far apart)", documents(1.5), ratio, (0, np.inf)),
    Population("bits per byte (long ones easier)", documents(1.2, -0.2, 0.5), ratio, (0, np.inf)),
    Population("perplexity", documents(1.2), perplexity),
    Population("perplexity of words", words, perplexity),
    Population("token accuracy", hits, ratio, (0, 1)),
    Population("score (most at the ends)", scores(0.5, 0.5), ratio, (0, 1)),
    Population("score (low)", scores(0.5, 3), ratio, (0, 1)),
    Population("score (70 % zero)", scores(1, 1, 0.7, 0.05), ratio, (0, 1)),
    Population("score (80 % one)", scores(1, 1, 0.05, 0.8), ratio, (0, 1)),
    Population("pass@1 (one sample)", passes(0.2, 1.8, 1), ratio, (0, 1)),
    Population("pass@1 (five samples)", passes(0.2, 1.8, 5), ratio, (0, 1)),
    Population("BLEU", segments, bleu, (0, 1)),
    Population("calibration error (0.06)", bins(0.1), calibration_error, (0, 1)),
    Population("calibration error (0.02)", bins(0.03), calibration_error, (0, 1)),
    Population("difference of bits per byte", two_models(1.0, 0.05), ratio, paired=True),
    Population("difference (models far apart)", two_models(1.2, 0.2), ratio, paired=True),
    Population("difference of passes (7 % flip)", flips(0.1, 0.02, 0.05), ratio, paired=True, passes=True),
    Population("difference of passes (20 % flip)", flips(0.3, 0.05, 0.15), ratio, paired=True, passes=True),
    Population("difference of passes (45 % flip)", flips(0.3, 0.2, 0.25), ratio, paired=True, passes=True),
)


def percentile(population: Population, sums: Floats, random: Generator, resamples: int) -> Interval:
    """Return the percentile interval, to compare with."""
    draws = sums[random.integers(len(sums), size=(resamples, len(sums)))].sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(population.value(draws), [tail, 1 - tail])
    return Interval(float(low), float(high), "bootstrap")


def coverage(population: Population, units: int, *, samples: int, resamples: int, seed: int = 1) -> Coverage:
    """Return how often the intervals of `samples` samples of `units` units cover the true value."""
    truth = population.truth()
    random = np.random.default_rng([seed, units, *population.name.encode()])
    found: list[Interval | None] = []
    simple: list[Interval] = []
    for sample in range(samples):
        sums = population.draw(random, units)
        found.append(population.interval(sums, resamples=resamples, seed=sample))
        simple.append(percentile(population, sums, random, resamples))

    def share(intervals: Iterable[Interval | None]) -> float:
        given = [each.low <= truth <= each.high for each in intervals if each]
        return round(100 * sum(given) / max(1, len(given)), 1)

    none = round(100 * found.count(None) / samples, 1)
    return Coverage(population.name, units, samples, share(found), none, share(simple))


def main(
    units: str = "20,50,100,200", samples: int = 1000, resamples: int = 400, only: str = "", write: bool = False
) -> None:
    """Print the table of the populations whose name holds `only`; write the table if asked to."""
    if write and only:
        raise typer.BadParameter("the recorded table has all populations; leave out --only")
    table = []
    names = [field.name for field in fields(Coverage)]
    print(*names, sep=",")
    for population in POPULATIONS:
        if only not in population.name:
            continue
        for count in map(int, units.split(",")):
            row = coverage(population, count, samples=samples, resamples=resamples)
            table.append([getattr(row, name) for name in names])
            print(*table[-1], sep=",", flush=True)
    if write:
        with RECORD.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([names, *table])


if __name__ == "__main__":
    typer.run(main)
