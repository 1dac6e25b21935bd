"""Intervals of proportions cover what the page says: the probabilities of all samples are added up, nothing is drawn.

benchmarks/interval_enumeration.py has the sums, and its recorded table has all numbers of units.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import binom

from codex_ml.statistics.proportions import clopper_pearson, paired_proportions

ENOUGH_SUCCESSES, ENOUGH_FLIPS = 43, 10


@pytest.fixture
def enumeration(benchmark_script):
    return benchmark_script("interval_enumeration")


@pytest.fixture
def recorded(recorded_table):
    return recorded_table("interval_enumeration")


@pytest.mark.parametrize("units", [5, 6, 15, 20, 30, 85, 86, 100, 164, 1000])
def test_the_exact_interval_never_covers_less_than_it_says(enumeration, units):
    lowest, highest = enumeration.binomial_coverage(units, 0, units / 2)
    assert lowest >= 0.95
    assert highest == 1
    if units / 2 > ENOUGH_SUCCESSES:
        assert enumeration.binomial_coverage(units, ENOUGH_SUCCESSES, units / 2)[1] <= 0.97


def test_the_coverage_of_the_exact_interval_is_the_sum_over_all_samples(enumeration):
    """On a fine grid of proportions, which comes close to the extremes but cannot pass them."""
    found = [clopper_pearson(successes, 40) for successes in range(41)]
    shares = np.linspace(0.25, 0.5, 3001)
    sums = np.zeros(3001)
    for successes, each in enumerate(found):
        sums += binom.pmf(successes, 40, shares) * ((each.low <= shares) & (shares <= each.high))
    lowest, highest = enumeration.binomial_coverage(40, 10, 20)
    assert lowest <= sums.min() == pytest.approx(lowest, abs=1e-3)
    assert highest >= sums.max() == pytest.approx(highest, abs=1e-5)


@pytest.mark.parametrize("units", [45, 130, 164])
def test_the_score_interval_covers_93_to_97_percent_from_ten_flips_on_and_at_least_92_5_below(enumeration, units):
    """On another grid than the recorded one."""
    limits = enumeration.FlipLimits.of(units, enumeration.most_flips(units))
    most = min(units - enumeration.AGREEING, enumeration.MOST_FLIPS)
    shares = np.linspace(0.5, 1, 12)
    lowest, highest = enumeration.paired_coverage(limits, np.linspace(ENOUGH_FLIPS, most, 23), shares)
    assert 0.93 <= lowest <= highest <= 0.97
    assert enumeration.paired_coverage(limits, np.linspace(0.1, ENOUGH_FLIPS, 23), shares)[0] >= 0.925


def test_the_coverage_of_the_score_interval_is_the_sum_over_all_samples(enumeration):
    """A loop over both numbers of flips, at one rate."""
    units, flips, share = 20, 6.0, 0.8
    gain, loss = flips / units * share, flips / units * (1 - share)
    total = 0.0
    for a in range(units + 1):
        for b in range(units + 1 - a):
            found = paired_proportions(a, b, units)
            if found.low <= gain - loss <= found.high:
                total += binom.pmf(a, units, loss) * binom.pmf(b, units - a, gain / (1 - loss))
    assert enumeration.FlipLimits.of(units, units).coverage(flips, share) == pytest.approx(total, abs=1e-6)


def test_where_nearly_all_units_flip_the_score_interval_covers_at_least_90_percent(enumeration):
    for units in (45, 80):
        limits = enumeration.FlipLimits.of(units, units)
        grid = np.linspace(units - enumeration.AGREEING, units, 31)
        assert enumeration.paired_coverage(limits, grid, np.linspace(0.5, 1, 12))[0] >= 0.9


@pytest.mark.slow
def test_the_recorded_table_is_what_the_enumeration_finds(enumeration, recorded):
    names = list(recorded[0])
    rows = [*enumeration.binomial_rows(range(5, 200)), *enumeration.paired_rows((45, 100))]
    for found, row in zip(rows, recorded, strict=True):
        assert [str(getattr(found, name)) for name in names[:1]] == [row[name] for name in names[:1]]
        assert float(row["lowest"]) <= found.lowest <= found.highest <= float(row["highest"])


def test_the_recorded_table_holds_what_the_page_says(recorded):
    for row in recorded:
        lowest, highest, start = float(row["lowest"]), float(row["highest"]), int(row["expected_from"])
        assert lowest >= (95 if row["interval"] == "exact" else 92.5), row
        if start >= (ENOUGH_SUCCESSES if row["interval"] == "exact" else ENOUGH_FLIPS):
            assert 93 <= lowest <= highest <= 97, row


def test_the_page_shows_the_recorded_ranges(recorded, repository):
    page = (repository / "docs/evaluation.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| (exact|score) \| (.+?) (?:of the rarer outcome|flips) \| (.+) % \|$", page, re.MULTILINE)
    assert shown == [(row["interval"], expected(row), f"{row['lowest']} to {row['highest']}") for row in recorded]


def expected(row: dict[str, str]) -> str:
    start, below = row["expected_from"], row["expected_below"]
    if not below:
        return f"at least {start}"
    return f"{start} to {below}" if int(start) else f"below {below}"
