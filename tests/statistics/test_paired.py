"""Paired tests against known values, against scipy, and against their definitions."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest
from scipy.stats import binomtest, false_discovery_control, norm, permutation_test

from codex_ml.evaluate.metrics.bleu_chrf import CorpusBleu
from codex_ml.evaluate.metrics.protocol import Pair
from codex_ml.statistics.bootstrap import interval, paired_interval, unit_sums
from codex_ml.statistics.paired import (
    EXACT_UNITS,
    PERMUTATIONS,
    _random_moves,
    holm,
    mcnemar,
    randomisation_test,
    sign_flip,
)


def ratio(sums):
    return sums[..., 0] / sums[..., 1]


def mean(sums):
    return sums[..., 0]


@pytest.mark.parametrize(("b", "c", "p"), [(5, 15, 0.041389), (1, 9, 0.021484), (0, 5, 0.0625), (0, 0, 1.0), (3, 3, 1)])
def test_mcnemar_gives_the_known_values(b, c, p):
    assert round(mcnemar(b, c), 6) == round(mcnemar(c, b), 6) == p


@pytest.mark.parametrize(("b", "c"), [(-1, 3), (2, -1)])
def test_mcnemar_refuses_negative_counts(b, c):
    with pytest.raises(ValueError, match="at least 0"):
        mcnemar(b, c)


def test_sign_flip_of_eight_gains_and_one_loss_is_exact():
    """2 x (1 + 9) / 2^9: all positive, or one of nine negative, and the mirror images."""
    assert sign_flip([1] * 8 + [-1]) == 0.0390625


def test_sign_flip_of_binary_differences_is_mcnemars_test():
    differences = [1] * 9 + [-1] + [0] * 30
    assert sign_flip(differences) == pytest.approx(mcnemar(1, 9), abs=1e-12)


def test_the_randomisation_test_agrees_with_scipys_exact_test():
    random = np.random.default_rng(5)
    gaps = random.normal(0.4, 1, size=11)
    independent = permutation_test((gaps,), np.mean, permutation_type="samples", n_resamples=2**11)
    assert sign_flip(gaps) == pytest.approx(float(independent.pvalue), abs=1e-12)


def test_a_ratio_is_tested_by_swapping_whole_units():
    random = np.random.default_rng(6)
    size = random.lognormal(4, 1, size=9)
    a, b = (np.stack([size * random.normal(1, 0.1, size=9), size], axis=1) for _ in range(2))

    def difference(x, y, axis):
        return y.sum(axis=axis) / size.sum() - x.sum(axis=axis) / size.sum()

    independent = permutation_test(
        (a[:, 0], b[:, 0]), difference, permutation_type="samples", n_resamples=2**9, vectorized=True
    )
    assert randomisation_test(a, b, ratio, seed=1) == pytest.approx(float(independent.pvalue), abs=1e-12)


def test_above_the_exact_size_the_drawn_p_value_agrees_with_the_exact_one():
    random = np.random.default_rng(8)
    gaps = np.concatenate([random.normal(0.5, 1, size=EXACT_UNITS), [0.0]])
    bigger = np.concatenate([gaps, [1e-13, -1e-13]])
    exact, drawn = sign_flip(gaps), sign_flip(bigger, seed=3)
    assert drawn == pytest.approx(exact, abs=0.01)
    assert drawn == sign_flip(bigger, seed=3) != sign_flip(bigger, seed=4)


def test_a_drawn_p_value_is_never_zero():
    assert sign_flip(np.ones(200)) == pytest.approx(1 / 10_000)


def test_a_model_against_itself_has_no_difference():
    random = np.random.default_rng(9)
    sums = random.lognormal(size=(40, 2))
    found = paired_interval(sums, sums, ratio, resamples=500, confidence=0.95, seed=1)
    assert (found.low, found.high, randomisation_test(sums, sums, ratio, seed=1)) == (0, 0, 1)


def test_three_seeds_of_each_task_are_no_further_evidence():
    """The unit is the task: samples are added in it, so p is unchanged; as units of their own they would feign evidence."""
    a, b = np.array([[1, 1]] * 3 + [[0, 1]] * 9), np.array([[0, 1]] * 3 + [[1, 1]] * 9)
    tasks, seeds = np.arange(12), np.repeat(np.arange(12), 3)
    once = [unit_sums(side, tasks) for side in (a, b)]
    tripled = [unit_sums(np.repeat(side, 3, axis=0), seeds) for side in (a, b)]
    p = randomisation_test(*once, ratio, seed=1)
    assert p == randomisation_test(*tripled, ratio, seed=1) == pytest.approx(mcnemar(3, 9), abs=1e-12)
    feigned = [unit_sums(np.repeat(side, 3, axis=0), np.arange(36)) for side in (a, b)]
    assert randomisation_test(*feigned, ratio, seed=1) < 0.05 < p


def test_pairing_shows_what_two_separate_intervals_hide():
    """220 items, 109 right under both models, 12 only under A, 30 only under B: the unpaired z-test gives 0.080."""
    a = np.repeat([1.0, 1.0, 0.0, 0.0], [109, 12, 30, 69]).reshape(-1, 1)
    b = np.repeat([1.0, 0.0, 1.0, 0.0], [109, 12, 30, 69]).reshape(-1, 1)
    error = math.sqrt((a.var() + b.var()) / 220)
    assert round(2 * norm.sf((b.mean() - a.mean()) / error), 3) == 0.080
    assert round(mcnemar(12, 30), 3) == 0.008
    assert randomisation_test(a, b, mean, seed=1) == pytest.approx(mcnemar(12, 30), abs=0.003)
    found = paired_interval(a, b, lambda sums: sums[..., 0] / 220, resamples=1000, confidence=0.95, seed=1)
    assert 0 < found.low < 18 / 220 < found.high


def test_no_units_and_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="no units"):
        randomisation_test(np.empty((0, 1)), np.empty((0, 1)), mean, seed=1)
    with pytest.raises(ValueError, match="shape"):
        randomisation_test(np.ones((3, 1)), np.ones((4, 1)), mean, seed=1)
    with pytest.raises(ValueError, match="not finite"):
        randomisation_test(np.zeros((3, 2)), np.ones((3, 2)), lambda s: np.full(s.shape[:-1], np.nan), seed=1)


def test_holm_gives_the_worked_example_and_keeps_the_order():
    """Sorted .005 .01 .03 .04 times 4 3 2 1, then the running maximum."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.7, 0.9]) == [1.0, 1.0]


def test_holm_is_at_least_as_strict_as_the_false_discovery_rate():
    p = np.random.default_rng(2).uniform(size=20)
    assert (np.array(holm(p)) >= false_discovery_control(p) - 1e-12).all()


@pytest.mark.parametrize("p_values", [[0.5, 1.1], [-0.1], [float("nan")]])
def test_holm_refuses_what_is_no_probability(p_values):
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm(p_values)


def test_binomtest_is_the_independent_reference_of_mcnemar():
    assert mcnemar(7, 19) == float(binomtest(7, 26, 0.5).pvalue)


def test_an_interval_of_constant_ratios_has_no_width():
    rows = np.array([[2.0, 1.0], [4.0, 2.0], [6.0, 3.0]] * 7)
    found = interval(rows, ratio, resamples=300, confidence=0.95, seed=1)
    assert found.low == found.high == 2.0


def test_corpus_bleu_is_tested_as_sacrebleus_approximate_randomisation_does():
    """Twelve segments: ours enumerates all assignments, sacrebleu draws 10,000; three sigmas are below 0.015."""
    random = np.random.default_rng(11)
    words = np.array(
        ["for", "if", "x", "y", "in", "range", "def", "return", "not", "and", "or", "while", "else", "1", "2", "3"]
    )
    references = [" ".join(random.choice(words, size=12)) for _ in range(12)]

    def worse(share):
        return [" ".join(w if random.random() > share else "z" for w in line.split()) for line in references]

    a, b = worse(0.25), worse(0.15)
    independent = PairedTest(
        [("a", a), ("b", b)], {"BLEU": BLEU(tokenize="none", force=True)}, [references], "ar", n_samples=10_000
    )()[1]["BLEU"][1].p_value
    metric = CorpusBleu()
    sums = [
        np.array([metric.measure(Pair("", out, true, "text")) for out, true in zip(outputs, references, strict=True)])
        for outputs in (a, b)
    ]
    ours = randomisation_test(*sums, metric.aggregate, seed=1)
    assert 0.01 < ours < 0.5
    assert ours == pytest.approx(independent, abs=0.015)


def test_the_drawn_sums_are_those_of_random_halves_of_the_units():
    """Each unit is in half of the sets, independently of the others: the mean and the variance of the sums, by hand."""
    gaps = np.random.default_rng(4).normal(size=(2_500, 2)) * [1, 1000]
    moved = _random_moves(gaps, 1)
    assert moved.shape == (PERMUTATIONS, 2)
    error = np.sqrt(np.square(gaps).sum(axis=0) / 4)
    assert (np.abs(moved.mean(axis=0) - gaps.sum(axis=0) / 2) < 4 * error / np.sqrt(PERMUTATIONS)).all()
    assert moved.std(axis=0) == pytest.approx(error, rel=0.03)
    one_by_one = _random_moves(np.diag(2.0 ** np.arange(20)), 1)  # powers of two: a sum names its set
    assert set(np.unique(one_by_one / 2.0 ** np.arange(20))) == {0, 1}
    assert (one_by_one > 0).mean(axis=0) == pytest.approx(np.full(20, 0.5), abs=0.02)
    assert np.abs(np.corrcoef((one_by_one > 0).T) - np.eye(20)).max() < 0.05


def test_memory_of_the_randomisation_test_does_not_grow_with_the_units():
    """20,000 and 100,000 units: 10 MB beside the sums and their differences; bits as doubles would take 8 GB."""
    random = np.random.default_rng(3)
    for units in (20_000, 100_000):
        a = random.lognormal(size=(units, 2))
        b = a * random.lognormal(0, 0.05, size=(units, 1))
        tracemalloc.start()
        assert 0 < randomisation_test(a, b, ratio, seed=1) <= 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10e6 + 2 * a.nbytes


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", [math.nan, math.inf, 1e308])
def test_sums_without_an_end_are_refused_without_a_warning(odd):
    a, b = np.ones((30, 2)), np.ones((30, 2))
    b[:, 0] = odd
    with pytest.raises(ValueError, match="not finite"):
        randomisation_test(a, b, ratio, seed=1)


@pytest.mark.filterwarnings("error")
def test_swaps_that_leave_nothing_to_divide_by_count_as_extreme():
    a, b = np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [3.0, 1.0]])
    assert randomisation_test(a, b, ratio, seed=1) == 1
