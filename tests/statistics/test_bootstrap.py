"""Intervals against known values."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from scipy.stats import bootstrap

from codex_ml.statistics.bootstrap import (
    SMALLEST_UNITS,
    VARIED_UNITS,
    count_alike,
    interval,
    paired_interval,
    unit_sums,
)
from codex_ml.statistics.proportions import Interval, clopper_pearson

SETTINGS = {"resamples": 400, "confidence": 0.95, "seed": 1}


def ratio(sums):
    return sums[..., 0] / sums[..., 1]


def difference(sums):
    return sums[..., 2] / sums[..., 3] - sums[..., 0] / sums[..., 1]


def documents(units, seed=0):
    """Nats and bytes of documents whose sizes are far apart."""
    random = np.random.default_rng(seed)
    size = random.lognormal(7, 1, size=units)
    return np.stack([size * random.lognormal(0, 0.3, size=units), size], axis=1)


def trials(ones, units):
    return np.stack([np.arange(units) < ones, np.ones(units)], axis=1).astype(float)


def test_the_interval_agrees_with_the_enumeration_of_all_resamples(monkeypatch):
    """Four units have 4^4 resamples; their pivots have quantiles that 40,000 draws come close to."""
    monkeypatch.setattr("codex_ml.statistics.bootstrap.SMALLEST_UNITS", 4)
    monkeypatch.setattr("codex_ml.statistics.bootstrap.VARIED_UNITS", 1)
    rows = np.array([[1.0, 1.0], [5.0, 2.0], [2.0, 3.0], [9.0, 4.0]])
    value, pivots = 17 / 10, []
    for draw in itertools.product(range(4), repeat=4):
        a, b = rows[list(draw)].T
        theta = a.sum() / b.sum()
        spread = math.sqrt(((a - theta * b) ** 2).sum()) / b.sum()
        pivots.append(abs(theta - value) / spread if spread > 1e-9 else math.inf)
    left_out = np.array([(17 - a) / (10 - b) for a, b in rows])
    error = math.sqrt(3 / 4 * ((left_out - left_out.mean()) ** 2).sum())
    reach = error * np.quantile(pivots, 0.8, method="higher")
    found = interval(rows, ratio, resamples=40_000, confidence=0.8, seed=3)
    assert (found.low, found.high) == pytest.approx((value - reach, value + reach), rel=0.02)


def test_the_interval_is_what_its_formula_says():
    """The value +- quantile times jackknife error, with a loop per resample and the linearised error of a ratio."""
    rows = documents(25)
    value = rows[:, 0].sum() / rows[:, 1].sum()
    without = [np.delete(rows, i, axis=0).sum(axis=0) for i in range(25)]
    left_out = np.array([a / b for a, b in without])
    error = math.sqrt(24 / 25 * ((left_out - left_out.mean()) ** 2).sum())
    random, pivots = np.random.Generator(np.random.PCG64(1)), []
    for draw in random.integers(25, size=(400, 25)):
        a, b = rows[draw].T
        theta = a.sum() / b.sum()
        pivots.append(abs(theta - value) * b.sum() / math.sqrt(((a - theta * b) ** 2).sum()))
    reach = error * sorted(pivots)[math.ceil(0.95 * 399)]
    found = interval(rows, ratio, **SETTINGS)
    assert (found.low, found.high) == pytest.approx((value - reach, value + reach), rel=1e-6)


def test_with_many_like_units_it_agrees_with_scipys_bootstrap():
    random = np.random.default_rng(3)
    rows = random.normal(10, 1, size=(600, 2)) + random.normal(0, 1, size=(600, 1))
    independent = bootstrap(
        tuple(rows.T), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, n_resamples=4_000, rng=random
    ).confidence_interval
    found = interval(rows, ratio, resamples=4_000, confidence=0.95, seed=1)
    width = independent.high - independent.low
    assert found.low == pytest.approx(independent.low, abs=0.06 * width)
    assert found.high == pytest.approx(independent.high, abs=0.06 * width)


def test_a_paired_interval_is_that_of_the_difference_and_narrower_than_the_unpaired_one():
    a = documents(60)
    b = a * np.array([0.98, 1.0])
    found = paired_interval(a, b, ratio, **SETTINGS)
    assert found == interval(np.concatenate([a, b], axis=1), difference, **SETTINGS)
    alone = interval(a, ratio, **SETTINGS)
    assert found.high < 0
    assert found.high - found.low < 0.1 * (alone.high - alone.low)


def test_chunks_of_resamples_do_not_change_the_interval(monkeypatch):
    rows = documents(30)
    whole = interval(rows, ratio, **SETTINGS)
    monkeypatch.setattr("codex_ml.statistics.bootstrap.CELLS", 30 * 7)
    chunked = interval(rows, ratio, **SETTINGS)
    assert (chunked.low, chunked.high) == pytest.approx((whole.low, whole.high), rel=1e-12)


def test_the_interval_is_a_function_of_its_seed():
    first, again, other = (interval(documents(30), ratio, **{**SETTINGS, "seed": seed}) for seed in (1, 1, 2))
    assert first == again != other


def test_below_the_smallest_number_of_units_there_is_no_interval():
    rows = documents(SMALLEST_UNITS)
    assert interval(rows, ratio, **SETTINGS) is not None
    assert interval(rows[1:], ratio, **SETTINGS) is None
    assert paired_interval(rows[1:], 2 * rows[1:], ratio, **SETTINGS) is None
    assert interval(np.empty((0, 2)), ratio, **SETTINGS) is None


def test_a_value_that_is_not_finite_has_no_interval():
    assert interval(np.zeros((30, 2)), lambda s: np.full(s.shape[:-1], np.nan), **SETTINGS) is None


@pytest.mark.parametrize(("ones", "units"), [(0, 3), (2, 3), (3, 3), (0, 40), (37, 40), (40, 40)])
def test_units_that_a_metric_does_not_count_are_no_trials(ones, units):
    """Among 100 documents 3 are Python and none of them parses: that is 0 of 3, not 0 of 100 and not width 0."""

    def rate(sums):
        return np.divide(*np.moveaxis(sums, -1, 0), out=np.full(sums.shape[:-1], np.nan), where=sums[..., 1] != 0)

    counted = trials(ones, units)
    among = np.concatenate([counted, np.zeros((60, 2))])
    assert interval(among, rate, **SETTINGS, bounds=(0, 1)) == clopper_pearson(ones, units)


def test_one_unit_that_carries_the_whole_value_has_no_interval():
    """Without it there is nothing to divide by, so nothing is known of the spread."""
    rows = np.zeros((30, 2))
    rows[3] = [1.0, 2.0]
    with np.errstate(invalid="ignore"):
        assert interval(rows, ratio, **SETTINGS, bounds=(0, 1)) is None


def test_units_that_are_all_equal_leave_no_width():
    assert interval(np.tile([3.0, 2.0], (30, 1)), ratio, **SETTINGS) == Interval(1.5, 1.5, "bootstrap")
    assert interval(np.tile([3.0, 4.0], (30, 1)), ratio, **SETTINGS, bounds=(0, math.inf)) == Interval(
        0.75, 0.75, "bootstrap"
    )
    assert interval(np.tile([3.0, 4.0], (30, 1)), ratio, **SETTINGS, bounds=(0, 1)) == Interval(0.75, 0.75, "bootstrap")
    several = np.outer(np.arange(1, 31), [3.0, 4.0])  # units of other sizes and the same value
    found = interval(several, ratio, **SETTINGS, bounds=(0, 1))
    assert found.low == pytest.approx(0.75, abs=1e-12) == found.high


@pytest.mark.parametrize(("ones", "units"), [(0, 164), (164, 164), (3, 164), (80, 164), (0, 5), (2, 5), (1, 1)])
def test_trials_have_the_exact_interval_with_any_number_of_units(ones, units):
    found = interval(trials(ones, units), ratio, **SETTINGS, bounds=(0, 1))
    exact = clopper_pearson(ones, units)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_a_scale_of_a_hundred_has_the_same_interval_in_percent():
    found = interval(trials(0, 64), lambda sums: 100 * ratio(sums), **SETTINGS, bounds=(0, 100))
    assert (found.low, found.high) == pytest.approx((0, 100 * (1 - 0.025 ** (1 / 64))))


def test_few_values_that_differ_have_the_interval_of_trials_of_the_same_sum():
    rows = trials(0, 100)
    rows[:4, 0] = [0.5, 0.25, 0.75, 0.5]
    found, exact = interval(rows, ratio, **SETTINGS, bounds=(0, 1)), clopper_pearson(2, 100)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_without_bounds_too_few_units_that_differ_have_no_interval():
    a, b = trials(50, 100), trials(50, 100)
    b[: VARIED_UNITS - 1, 0] = 0
    assert paired_interval(a, b, ratio, **SETTINGS) is None
    b[VARIED_UNITS - 1, 0] = 0
    assert paired_interval(a, b, ratio, **SETTINGS) is not None


def test_resamples_without_spread_leave_no_interval():
    """10 of 64 units carry the value, and 8 of them alike: a resample without the other two has no spread of its own."""
    sums = np.zeros((64, 2))
    sums[:10] = [[1, 1], [10, 1], [1, 1], [1, 1], [5, 1], [3, 3], [1, 1], [1, 1], [1, 1], [3, 3]]
    found = interval(sums, lambda x: x[..., 0] / x[..., 1], resamples=1000, confidence=0.95, seed=1)
    assert found is None


def test_the_interval_does_not_leave_the_bounds():
    rows = np.stack([np.r_[np.ones(22), np.linspace(0.0, 0.98, 8) ** 0.1], np.ones(30)], axis=1)
    assert interval(rows, ratio, **SETTINGS).high > 1
    assert interval(rows, ratio, **SETTINGS, bounds=(0, 1)).high == 1


@pytest.mark.parametrize("bounds", [(0, 1), (5, math.inf)])
def test_a_value_outside_of_its_bounds_is_refused(bounds):
    with pytest.raises(ValueError, match="outside of its bounds"):
        interval(np.tile([3.0, 1.0], (30, 1)), ratio, **SETTINGS, bounds=bounds)


def test_rows_of_one_unit_are_added_in_the_sorted_order_of_units():
    found = unit_sums([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [8.0, 80.0]], ["b", "a", "b", "c"])
    assert found.tolist() == [[2.0, 20.0], [5.0, 50.0], [8.0, 80.0]]
    assert unit_sums(np.empty((0, 3)), np.empty(0)).shape == (0, 3)


def test_copies_of_items_inside_their_units_leave_the_interval_as_it_is():
    """Three seeds for each task say nothing new about tasks."""
    rows, units = documents(30), np.arange(30)
    once = interval(unit_sums(rows, units), ratio, **SETTINGS)
    copied = interval(unit_sums(np.tile(rows, (3, 1)), np.tile(units, 3)), ratio, **SETTINGS)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), rel=1e-6)


@pytest.mark.parametrize(("columns", "units"), [([1.0, 2.0], [1, 2]), ([[1.0], [2.0]], [1]), ([[1.0]], [[1]])])
def test_units_that_do_not_match_the_rows_are_refused(columns, units):
    with pytest.raises(ValueError, match="with units of shape"):
        unit_sums(columns, units)


def test_sums_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="must be"):
        interval([1.0, 2.0], ratio, **SETTINGS)
    with pytest.raises(ValueError, match="against sums"):
        paired_interval(documents(20), documents(21), ratio, **SETTINGS)


def test_memory_does_not_grow_with_the_resamples_of_many_units():
    """100,000 units: below 50 MB beside the sums, where a matrix of 100 resamples would take 80 MB and 1,000 take 800."""
    rows = documents(100_000)
    tracemalloc.start()
    assert interval(rows, ratio, resamples=100, confidence=0.95, seed=1) is not None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_units_of_different_weight_are_not_trials() -> None:
    """Sixty records, all wrong, of which one weighs a hundred times: sixty trials would give an interval far too narrow."""
    weights = np.ones(60)
    settings = {"resamples": 200, "confidence": 0.95, "seed": 1, "bounds": (0.0, 1.0)}
    alike = interval(np.stack([0 * weights, weights], 1), lambda sums: sums[..., 0] / sums[..., 1], **settings)
    assert alike is not None
    assert alike.high == pytest.approx(1 - 0.025 ** (1 / 60))  # Clopper and Pearson with no success
    weights[7] = 100
    for right in (np.zeros(60), np.ones(60), np.arange(60) < 5):
        rows = np.stack([right * weights, weights], 1)
        assert interval(rows, lambda sums: sums[..., 0] / sums[..., 1], **settings) is None


def weighted(weights, right):
    return np.stack([weights * right, weights], axis=1)


def test_weights_whose_mean_is_the_value_by_chance_are_no_trials():
    """30 of 60 light records are right, and one of two that weigh a hundred times: the value and the mean are one half."""
    weights, right = np.r_[np.ones(60), 100, 100], np.r_[np.ones(30), np.zeros(30), 1, 0]
    rows = weighted(weights, right)
    assert ratio(rows.sum(axis=0)) == ratio(rows).mean() == 0.5
    assert not count_alike(rows, ratio)
    found = interval(rows, ratio, **SETTINGS, bounds=(0, 1))
    trials_of_the_same_share = clopper_pearson(31, 62)
    assert found is None or found.high - found.low > trials_of_the_same_share.high - trials_of_the_same_share.low


@pytest.mark.parametrize("right", [[1, 0, 1, 0], [1, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]])
def test_units_count_alike_where_their_weights_are_equal(right):
    right = np.array(right, dtype=float)
    assert count_alike(weighted(np.full(4, 3.0), right), ratio)
    assert not count_alike(weighted(np.array([1.0, 1, 100, 100]), right), ratio)


def test_a_record_without_weight_is_no_trial():
    def rate(sums):
        return np.divide(*np.moveaxis(sums, -1, 0), out=np.full(sums.shape[:-1], np.nan), where=sums[..., 1] != 0)

    rows = weighted(np.r_[np.ones(9), np.zeros(50)], np.r_[np.ones(2), np.zeros(57)])
    assert interval(rows, rate, **SETTINGS, bounds=(0, 1)) == clopper_pearson(2, 9)


@pytest.mark.parametrize(("scale", "value"), [(100 + 4e-14, 100), (100.0, 100), (1e-14, 0)])
def test_a_value_that_rounding_keeps_from_its_bound_has_no_interval_without_width(scale, value):
    """Perfect BLEU is 100 + 4e-14; units of other sizes are no trials, so nothing is known of the spread."""
    rows = np.outer(np.arange(1, 31), [1.0, 1.0])
    assert interval(rows, lambda sums: scale * ratio(sums), **SETTINGS, bounds=(0, 100)) is None
    alike = np.ones((30, 2))
    found = interval(alike, lambda sums: scale * ratio(sums), **SETTINGS, bounds=(0, 100))
    exact = clopper_pearson(30 * value // 100, 30)
    assert (found.low, found.high) == pytest.approx((100 * exact.low, 100 * exact.high))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 1e300, 1e308])
@pytest.mark.parametrize("column", [0, 1])
def test_numbers_without_an_end_have_no_interval_and_raise_no_warning(odd, column):
    rows = documents(30)
    rows[3, column] = odd
    for bounds in ((-math.inf, math.inf), (-math.inf, 5)):
        found = interval(rows, lambda sums: np.minimum(ratio(sums), 5), **SETTINGS, bounds=bounds)
        assert found is None or -math.inf < found.low <= found.high < math.inf
        assert found is None or np.isfinite(odd)
    paired = paired_interval(documents(30), rows, ratio, **SETTINGS)
    assert paired is None or -math.inf < paired.low <= paired.high < math.inf


@pytest.mark.filterwarnings("error")
def test_resamples_without_a_value_raise_no_warning():
    """Most of the units have nothing to divide by; some resamples draw only those."""
    rows = np.zeros((40, 2))
    rows[:, 0] = np.arange(40) % 3
    rows[:2, 1] = 1
    assert interval(rows, ratio, **SETTINGS) is None


def test_two_models_of_one_value_differ_by_nothing_whatever_the_scale_of_their_sums():
    """Three times the nats of three times the bytes: only rounding differs."""
    rows = documents(40)
    found = paired_interval(rows, 3 * rows, ratio, **SETTINGS)
    assert (found.low, found.high) == pytest.approx((0, 0), abs=1e-15)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_the_interval_scales_with_its_numbers(size):
    rows = documents(40)
    once, scaled = (interval(rows * [factor, 1.0], ratio, **SETTINGS, bounds=(0, math.inf)) for factor in (1, size))
    assert (scaled.low / size, scaled.high / size) == pytest.approx((once.low, once.high), rel=1e-6)
