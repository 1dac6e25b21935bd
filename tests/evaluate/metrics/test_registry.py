"""Metrics are chosen by name; a metric of a package is used, shadowed, or a failure that is listed or an error."""

from __future__ import annotations

import math

import numpy as np
import pytest

from codex_ml.core.errors import UserError
from codex_ml.evaluate.documents import TEXTS
from codex_ml.evaluate.metrics.plugin_probe import TEXT_COLUMNS
from codex_ml.evaluate.metrics.protocol import Metric, Pair, ScoredDocument
from codex_ml.evaluate.metrics.registry import load_metrics

PAIR = Pair("x = ", "1", "2", "python")


def test_without_names_all_built_in_metrics_are_there():
    metrics = load_metrics()
    names = [metric.name for metric in metrics.chosen]
    assert names[:2] == ["bits_per_byte", "perplexity"]
    assert (metrics.plugins, metrics.failures, metrics.messages) == ({}, {}, ())
    for metric in metrics.chosen:
        checked: Metric = metric
        assert checked.signature and isinstance(checked.higher_is_better, bool)
        assert len(set(checked.columns)) == len(checked.columns) > 0


def test_names_choose_metrics_in_their_order():
    metrics = load_metrics(["perplexity", "bits_per_byte"])
    assert [metric.name for metric in metrics.chosen] == ["perplexity", "bits_per_byte"]
    assert metrics.columns("score") == ("nll", "tokens", "bytes")
    assert metrics["bits_per_byte"].higher_is_better is False


def test_a_shared_column_is_measured_once_and_each_metric_finds_its_own():
    metrics = load_metrics(["perplexity", "bits_per_byte"])
    item = ScoredDocument(4 * math.log(2), 2, 0, 0, 8, 1, 0.0, 0.0, np.zeros((10, 3)))
    assert metrics.measure(item) == [4 * math.log(2), 2.0, 8.0]
    bits = metrics.aggregate_of(metrics["bits_per_byte"])
    rows = np.array([metrics.measure(item)] * 3)[:, metrics.places(metrics["bits_per_byte"])]
    assert bits(rows).tolist() == pytest.approx([0.5] * 3)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["bits_per_bite"], "there is no metric 'bits_per_bite'; did you mean bits_per_byte"),
        (["ppl-of-words"], "there is no metric 'ppl-of-words'; known are: bits_per_byte, "),
        (["perplexity", "perplexity"], "'perplexity' is there 2 times; name each metric once"),
        ([""], "there is no metric ''"),
    ],
)
def test_a_wrong_name_is_one_line(names, message):
    with pytest.raises(UserError) as caught:
        load_metrics(names)
    assert str(caught.value).startswith(f"evaluate.metrics: {message}")
    assert "\n" not in str(caught.value)


def test_a_metric_of_a_package_is_measured_and_recorded(install):
    install()
    for metrics in (load_metrics(), load_metrics(["lengths"])):
        plugin = metrics.plugins["lengths"]
        assert (plugin.name, plugin.distribution, plugin.version) == ("lengths", "far-lengths", "1.5")
        assert metrics.failures == {}
    rows = np.array([metrics.measure(Pair("", text, "", "text")) for text in ("a", "abc", "ab")])
    assert metrics.columns("pair") == ("written", "items")
    assert metrics.value(metrics["lengths"], rows.sum(0)) == 2


def test_a_built_in_metric_wins_over_an_equal_name_with_a_message(install):
    install(('"lengths"', '"perplexity"'), name="perplexity")
    metrics = load_metrics(["perplexity"])
    assert metrics["perplexity"].inputs == "score" and metrics.plugins == {}
    assert metrics.messages == (
        "metric 'perplexity' of the package far-lengths 1.5 is not used: a built-in metric has this name",
    )


def test_columns_of_texts_are_known():
    assert {"item", "unit", *TEXTS} <= TEXT_COLUMNS


def test_two_packages_with_one_name_are_a_failure(install):
    install()
    install(package="near-lengths")
    assert load_metrics().failures["lengths"].why == (
        "is offered by 2 packages, far-lengths 1.5 and near-lengths 1.5; uninstall all but one"
    )


BROKEN = [
    pytest.param(("class Lengths", "import nowhere\nclass Lengths"), "cannot be imported: ModuleNotFoundError: No module named 'nowhere'", id="import error"),
    pytest.param(("class Lengths", "raise SystemExit(3)\nclass Lengths"), "cannot be imported: SystemExit: 3", id="exit on import"),
    pytest.param(("class Lengths", "class Other"), "cannot be imported: AttributeError", id="no such object"),
    pytest.param(("class Lengths:", "class Lengths:\n    def __init__(self, size): pass"), "cannot be made: TypeError", id="needs arguments"),
    pytest.param(("    signature = \"characters\"\n", ""), "it has no `signature`", id="attribute missing"),
    pytest.param(("def measure", "def value"), "it has no `measure`", id="method missing"),
    pytest.param(('"lengths"', '"length"'), "its name is 'length'; the entry point says 'lengths'", id="another name"),
    pytest.param(('"pair"', '"pairs"'), "its inputs are 'pairs'; allowed are 'score' and 'pair'", id="unknown inputs"),
    pytest.param(('("written", "items")', '"written"'), "its columns must be a tuple", id="columns are a string"),
    pytest.param(('("written", "items")', '("items", "items")'), "its columns must be a tuple of different", id="column twice"),
    pytest.param(('("written", "items")', '("a,b", "items")'), "its columns must be a tuple", id="column with a comma"),
    pytest.param(('("written", "items")', '("source", "items")'), "its columns must not be named as a text of the result tables: content, ", id="column of texts"),
    pytest.param(("= False", "= 'lower'"), "its higher_is_better must be True or False", id="direction in words"),
    pytest.param(('"characters"', '""'), "its signature must be a text of 1 to 200 printable characters", id="empty signature"),
    pytest.param(("\"characters\"", "\"two\\nlines\""), "its signature must be a text of 1 to 200 printable", id="signature of two lines"),
    pytest.param(("    bounds = (0.0, float(\"inf\"))\n", ""), "it has no `bounds`", id="bounds missing"),
    pytest.param(("(0.0, float", "(float"), "its bounds must be two numbers", id="one bound"),
    pytest.param(("(0.0, float(\"inf\"))", "(0, 'much')"), "its attributes cannot be read: ValueError", id="a bound in words"),
    pytest.param(("(0.0, float(\"inf\"))", "(1.0, 0.0)"), "its bounds must be two numbers, the lower one first", id="bounds the wrong way"),
    pytest.param(("(0.0, float(\"inf\"))", "(0.0, 1.0)"), "its value 8.5 is outside of its bounds, 0.0 to 1.0", id="value outside of the bounds"),
    pytest.param(("[len(item.output), 1]", "[len(item.text), 1]"), "measure failed: AttributeError", id="measure raises"),
    pytest.param(("[len(item.output), 1]", "[1]"), "measure returned 1 numbers for 2 columns", id="too few numbers"),
    pytest.param(("[len(item.output), 1]", "[1, 1, 1]"), "measure returned 3 numbers for 2 columns", id="too many numbers"),
    pytest.param(("[len(item.output), 1]", "[float('nan'), 1]"), "measure returned nan for the column 'written'", id="nan"),
    pytest.param(("[len(item.output), 1]", "[float('inf'), 1]"), "measure returned inf for the column 'written'", id="inf"),
    pytest.param(("[len(item.output), 1]", "None"), "measure failed: TypeError", id="no numbers"),
    pytest.param(("[len(item.output), 1]", "['much', 1]"), "measure failed: ValueError", id="a word for a number"),
    pytest.param(("sums[..., 0] / sums[..., 1]", "1 / 0"), "aggregate failed: ZeroDivisionError", id="aggregate raises"),
    pytest.param(("sums[..., 0] / sums[..., 1]", "sums"), "aggregate must return one value per row", id="aggregate keeps the columns"),
    pytest.param(("sums[..., 0] / sums[..., 1]", "sums[..., 0] / sums[..., 1].max()"), "aggregate gives a row of sums another value alone", id="aggregate mixes rows"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "why"), BROKEN)
def test_a_broken_metric_is_a_listed_failure_and_an_error_when_named(install, change, why):
    install(change)
    metrics = load_metrics()
    failure = metrics.failures["lengths"]
    assert why in failure.why
    assert (failure.distribution, failure.version) == ("far-lengths", "1.5")
    assert "lengths" not in metrics.plugins and "lengths" not in [metric.name for metric in metrics.chosen]
    with pytest.raises(UserError) as caught:
        load_metrics(["lengths"])
    message = str(caught.value)
    assert message.startswith("evaluate.metrics: metric 'lengths' of the package far-lengths 1.5 cannot be used: ")
    assert why in message and "\n" not in message


LATE = ("[len(item.output), 1]", "[1 / (item.output != 'secret'), 1]")


def test_a_metric_that_fails_on_an_item_is_a_failure_from_there_on(install):
    install(LATE)
    metrics = load_metrics()
    written = metrics.columns("pair").index("written")
    first, second, third = (metrics.measure(Pair("", text, "", "text")) for text in ("a", "secret", "b"))
    assert first[written] == 1 and math.isnan(second[written]) and math.isnan(third[written])
    assert metrics.failures["lengths"].why == "measure failed: ZeroDivisionError"
    assert math.isnan(metrics.value(metrics["lengths"], np.array(first)[metrics.places(metrics["lengths"])]))


def test_a_named_metric_that_fails_on_an_item_ends_the_run_without_quoting_the_item(install):
    install(LATE)
    metrics = load_metrics(["lengths"])
    with pytest.raises(UserError, match="cannot be used: measure failed: ZeroDivisionError; mend") as caught:
        metrics.measure(Pair("", "secret", "", "text"))
    assert "secret" not in str(caught.value)


def test_a_metric_whose_aggregate_fails_later_gives_no_value(install):
    install(("return sums[..., 0]", "assert (sums < 1000).all()\n        return sums[..., 0]"))
    metrics = load_metrics()
    row = np.array(metrics.measure(PAIR))[metrics.places(metrics["lengths"])]
    assert metrics.aggregate(metrics["lengths"], row) == 1
    assert np.isnan(metrics.aggregate(metrics["lengths"], np.stack([row, row * 5000]))).tolist() == [True, True]
    assert metrics.failures["lengths"].why == "aggregate failed: AssertionError"


def test_who_calls_a_metric_directly_gets_one_line_that_names_it(install):
    """The comparison of two results does."""
    install(("return sums[..., 0]", "assert (sums < 1000).all()\n        return sums[..., 0]"))
    metric = load_metrics()["lengths"]
    with pytest.raises(UserError) as caught:
        metric.aggregate(np.array([[5000.0, 1.0]]))
    assert str(caught.value) == (
        "metric 'lengths' of the package far-lengths 1.5 cannot be used: aggregate failed: AssertionError"
    )


def test_a_value_outside_of_the_bounds_is_a_failure(install):
    install(('float("inf")', "40.0"))
    metrics = load_metrics()
    assert metrics.value(metrics["lengths"], np.array([40.0, 1.0])) == 40
    assert math.isnan(metrics.value(metrics["lengths"], np.array([41.0, 1.0])))
    assert metrics.failures["lengths"].why == "its value 41 is outside of its bounds, 0.0 to 40.0"


def test_sums_of_other_columns_are_refused():
    metrics = load_metrics()
    with pytest.raises(ValueError, match="bits_per_byte has 2 columns, found sums of shape"):
        metrics.aggregate(metrics["bits_per_byte"], np.zeros((4, 3)))


def test_a_column_with_the_name_of_a_built_in_one_must_hold_its_number(install):
    code = install.code.replace('"pair"', '"score"').replace("len(item.output), 1", "item.nll, 1")
    install(code=code.replace('("written", "items")', '("nll", "documents")'))
    metrics = load_metrics()
    item = ScoredDocument(3.0, 2, 0, 0, 8, 1, 0.0, 0.0, np.zeros((10, 3)))
    row = np.array(metrics.measure(item))[metrics.places(metrics["lengths"])]
    assert metrics.aggregate(metrics["lengths"], row) == 3
    install(
        ("item.nll", "item.nll + 1"),
        package="near-lengths",
        name="near",
        code=code.replace('"lengths"', '"near"').replace('"written"', '"nll"'),
    )
    metrics = load_metrics()
    metrics.measure(item)
    assert "column 'nll' of another metric holds another number" in metrics.failures["near"].why
