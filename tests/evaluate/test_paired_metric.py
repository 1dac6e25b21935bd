"""The paired difference of one metric: known answers, units that stay together, and McNemar where it is exact."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from codex_ml.evaluate.paired_items import Pairing
from codex_ml.evaluate.paired_metric import Inference, paired_difference


def mean(sums):
    with np.errstate(invalid="ignore"):
        return sums[..., 0] / sums[..., 1]


def pairing(units):
    rows = np.arange(len(units))
    return Pairing(rows, rows, np.asarray(units), 0, 0)


def compared(a, b, units=None, aggregate=mean):
    """The difference of two lists of one number per item, each item counting once."""
    columns = [np.stack([np.asarray(side, float), np.ones(len(side))], axis=1) for side in (a, b)]
    units = np.arange(len(a)) if units is None else units
    return paired_difference(aggregate, *columns, pairing(units), Inference())


def binary(only_a, only_b, both, neither):
    a = [1] * only_a + [0] * only_b + [1] * both + [0] * neither
    b = [0] * only_a + [1] * only_b + [1] * both + [0] * neither
    return a, b


def test_the_220_item_example_is_found_by_pairing_and_missed_without():
    """12 items only A has right, 30 only B, 110 both: the unpaired z-test gives 0.080, the paired one 0.008."""
    a, b = binary(12, 30, 110, 68)
    assert len(a) == 220
    variance = sum(np.mean(side) * (1 - np.mean(side)) / 219 for side in (a, b))
    assert 2 * norm.sf((np.mean(b) - np.mean(a)) / np.sqrt(variance)) == pytest.approx(0.080, abs=5e-4)
    found = compared(a, b)
    assert found.test == "mcnemar"
    assert found.p == pytest.approx(0.008, abs=5e-4)
    assert found.p == binomtest(12, 42).pvalue
    assert found.difference == pytest.approx(18 / 220)
    assert found.interval.low < 18 / 220 < found.interval.high
    assert found.interval.low > 0


@pytest.mark.parametrize(("b", "c", "p"), [(5, 15, 0.041389), (1, 9, 0.021484), (0, 5, 0.0625)])
def test_mcnemar_decides_metrics_of_0_and_1(b, c, p):
    found = compared(*binary(b, c, 7, 3))
    assert (found.test, round(found.p, 6)) == ("mcnemar", p)


def test_a_result_against_itself_differs_by_0_with_p_1_and_width_0():
    values = np.random.default_rng(3).lognormal(size=60)
    found = compared(values, values)
    assert (found.difference, found.p, found.is_equal) == (0, 1, True)
    assert (found.interval.low, found.interval.high) == (0, 0)


def test_three_times_the_same_samples_of_a_task_are_no_more_evidence():
    """The unit is the task: its samples are added first."""
    random = np.random.default_rng(4)
    a, b = random.random(24), random.random(24) + 0.2
    once = compared(a, b)
    thrice = compared(np.repeat(a, 3), np.repeat(b, 3), np.repeat(np.arange(24), 3))
    assert once.p == thrice.p
    assert once.difference == pytest.approx(thrice.difference)
    assert once.interval.low == pytest.approx(thrice.interval.low)
    assert compared(np.repeat(a, 3), np.repeat(b, 3)).p < once.p  # what counting samples would claim


def test_items_of_one_unit_are_not_tested_as_if_they_were_independent():
    a, b = binary(2, 12, 5, 1)
    assert compared(a, b).test == "mcnemar"
    grouped = compared(a, b, [0] * 10 + [1] * 10)
    assert grouped.test == "randomisation"
    assert grouped.p > compared(a, b).p


def test_one_unit_is_no_evidence():
    found = compared([0, 0, 0], [1, 1, 1], [0, 0, 0])
    assert (found.p, found.interval) == (1, None)


def test_a_ratio_of_sums_is_not_taken_for_a_mean_of_0_and_1():
    """Two items of 1 and 3 tokens: each is all right or all wrong, but the accuracy is 3 of 4."""
    a, b = np.array([[0.0, 1], [3, 3]]), np.array([[1.0, 1], [3, 3]])
    found = paired_difference(mean, a, b, pairing([0, 1]), Inference())
    assert (found.a, found.b, found.is_binary, found.test) == (0.75, 1, False, "randomisation")


def test_without_a_finite_value_nothing_is_compared():
    assert compared([np.nan, 1], [1, 1]) is None
    assert paired_difference(mean, np.zeros((3, 2)), np.ones((3, 2)), pairing([0, 1, 2]), Inference()) is None


def test_a_value_of_all_that_differs_is_no_equality_even_if_no_item_has_one():
    def ratio(sums):  # of at least two items
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(sums[..., 1] > 1, sums[..., 0] / sums[..., 1], np.nan)

    found = compared([1, 0, 1], [1, 1, 1], aggregate=ratio)
    assert np.isnan(found.items_a).all()
    assert not found.is_equal


def test_the_p_value_does_not_depend_on_the_order_of_the_results():
    random = np.random.default_rng(5)
    a, b = random.random(9), random.random(9)
    assert compared(a, b).p == compared(b, a).p
    assert compared(a, b).difference == -compared(b, a).difference


def test_weights_that_cancel_are_not_taken_for_items_that_count_alike():
    """Under both models the mean over items is the value, by chance: McNemar's test would ignore the weights."""
    weights = np.r_[np.ones(20), 100, 100]
    a, b = np.r_[np.ones(10), np.zeros(10), 1, 0], np.r_[np.zeros(10), np.ones(10), 0, 1]
    sums = [np.stack([weights * right, weights], axis=1) for right in (a, b)]
    found = paired_difference(mean, *sums, pairing(range(22)), Inference())
    assert (found.a, found.b, found.is_binary, found.test) == (0.5, 0.5, False, "randomisation")


def test_two_models_without_a_flip_may_differ_elsewhere_but_one_model_does_not_differ_from_itself():
    columns = np.stack([np.zeros(164), np.ones(164)], axis=1)
    two = paired_difference(mean, columns, columns, pairing(range(164)), Inference())
    assert (two.p, two.is_equal, two.interval.method) == (1, True, "score")
    assert two.interval.high == pytest.approx(0.0229, abs=5e-5)
    one = paired_difference(mean, columns, columns, pairing(range(164)), Inference(), one_model=True)
    assert (one.interval.low, one.interval.high) == (0, 0)
