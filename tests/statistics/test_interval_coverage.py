"""Intervals cover the true value as often as they say: simulations with a known truth.

benchmarks/interval_coverage.py has the populations, and its recorded table has all of them.
"""

from __future__ import annotations

import re

import pytest

from codex_ml.statistics.bootstrap import SMALLEST_UNITS

# Few units differ, or units pass or fail: never below, often above.
EXACT = ("score (70 % zero)", "score (80 % one)", "pass@1", "difference of passes")


@pytest.fixture
def simulation(benchmark_script):
    return benchmark_script("interval_coverage")


@pytest.fixture
def recorded(recorded_table):
    return recorded_table("interval_coverage")


@pytest.mark.parametrize(
    "name",
    ["bits per byte (sizes far apart)", "token accuracy", "score (low)", "difference of bits per byte"],
)
def test_an_interval_of_the_fewest_units_covers_93_to_97_percent_where_percentiles_cover_less(simulation, name):
    population = next(each for each in simulation.POPULATIONS if each.name == name)
    found = simulation.coverage(population, SMALLEST_UNITS, samples=500, resamples=300)
    assert found.none == 0
    assert 93 <= found.covered <= 97
    assert found.percentile_covered < 93


def test_the_exact_interval_of_trials_covers_at_least_95_percent(simulation):
    population = next(each for each in simulation.POPULATIONS if each.name == "pass@1 (one sample)")
    assert simulation.coverage(population, SMALLEST_UNITS, samples=300, resamples=100).covered >= 95


# Per cent of the samples whose interval ends above the largest double: `exponential_interval` gives none there.
TOO_LARGE = {("perplexity of words", SMALLEST_UNITS): 0.1}


@pytest.mark.slow
@pytest.mark.parametrize("units", [SMALLEST_UNITS, 100])
def test_every_population_is_covered(simulation, units):
    for population in simulation.POPULATIONS:
        found = simulation.coverage(population, units, samples=2_000, resamples=400, seed=7)
        refused = TOO_LARGE.get((population.name, units), 0)
        assert found.none <= refused
        assert_covered(found.population, found.units, found.covered, max(0, found.none - refused))


def test_the_recorded_table_has_every_population_covered(simulation, recorded):
    assert {row["population"] for row in recorded} == {population.name for population in simulation.POPULATIONS}
    assert min(int(row["units"]) for row in recorded) == SMALLEST_UNITS
    for row in recorded:
        assert_covered(row["population"], int(row["units"]), float(row["covered"]), float(row["none"]))


def test_the_page_shows_the_recorded_figures(recorded, repository):
    page = (repository / "docs/evaluation.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| ([^|]+) \| (\d+) \| ([\d.]+) % \| ([\d.]+) % \|$", page, re.MULTILINE)
    figures = {tuple(row[key] for key in ("population", "units", "covered", "percentile_covered")) for row in recorded}
    assert len(shown) == 9
    assert set(shown) <= figures


def assert_covered(population: str, units: int, covered: float, none: float) -> None:
    assert none == 0
    assert covered >= 93, (population, units)
    if not population.startswith(EXACT):
        assert covered <= 97, (population, units)
