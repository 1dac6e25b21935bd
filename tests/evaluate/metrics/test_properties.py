"""What holds for every metric on pairs, whatever a model wrote."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.evaluate.metric_choice import BASELINE
from codex_ml.evaluate.metrics.protocol import Pair
from codex_ml.evaluate.metrics.registry import load_metrics

METRICS = load_metrics()
TEXTS = st.lists(st.sampled_from(["x", "= 1\n", "def f(a):\n", "    return a", "(", "naïve ", "猫", "नी", "\r\n", "\0", "\ud800", " "])).map("".join) | st.text(max_size=60)  # fmt: skip
PAIRS = st.builds(Pair, TEXTS, TEXTS, TEXTS, st.sampled_from(["python", "text"]), st.floats(0, 9))
SAME = ("exact_match", "exact_match_stripped", "exact_match_squad", "exact_match_code", "token_f1", "rouge1", "rouge2",
        "rougeL", "edit_similarity")  # fmt: skip
RUNS = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def values(sums):
    return {m.name: m.aggregate(sums[..., METRICS.places(m)]) for m in METRICS.of("pair")}


@RUNS
@given(st.lists(PAIRS, min_size=1, max_size=4))
def test_numbers_are_finite_and_values_stay_inside_their_bounds(pairs):
    rows = np.array([METRICS.measure(pair) for pair in pairs])
    assert np.isfinite(rows).all() and (rows >= 0).all()
    for sums in (rows, rows.sum(0)):
        for name, value in values(sums).items():
            low, high = METRICS[name].bounds
            assert ((low <= value) & (value <= high) | np.isnan(value)).all(), name


@RUNS
@given(TEXTS, TEXTS)
def test_the_reference_itself_is_the_best_output(prompt, text):
    got = values(np.array(METRICS.measure(Pair(prompt, text, text, "python"))))
    assert {name: got[name] for name in SAME if not math.isnan(got[name])}.items() <= dict.fromkeys(SAME, 1.0).items()
    assert got["chrf"] == (100 if text.split() else 0)


@RUNS
@given(st.lists(PAIRS, min_size=2, max_size=5))
def test_neither_order_nor_neighbours_change_a_number(pairs):
    rows = [METRICS.measure(pair) for pair in pairs]
    assert [METRICS.measure(pair) for pair in reversed(pairs)] == rows[::-1]


def test_metrics_that_an_output_cannot_change_are_not_compared():
    prompt, reference = "def f(x):\n", "    if x:\n        return 1\n" + "    x = 1\n" * 9
    outputs = ["", reference, "    return 2 * y\n", "a " * 40, "(", "def g():\n    pass\n" * 9]
    rows = np.array([METRICS.measure(Pair(prompt, output, reference, "python")) for output in outputs])
    fixed = {m.name for m in METRICS.of("pair") if (rows[:, METRICS.places(m)] == rows[0, METRICS.places(m)]).all()}
    assert fixed == {m.name for m in METRICS.of("pair") if set(m.columns) <= BASELINE}
    assert fixed == {"reference_parse_rate", "reference_complexity"}
