"""Two results are compared metric by metric, and what cannot be compared is said."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from codex_ml.core.errors import UserError
from codex_ml.evaluate.comparison import CompareSettings, compare_results
from codex_ml.evaluate.metrics.plugin_probe import MetricPlugin
from codex_ml.evaluate.metrics.protocol import Pair
from codex_ml.evaluate.metrics.registry import Metrics, load_metrics
from codex_ml.evaluate.paired_metric import Inference
from codex_ml.evaluate.result_folder import ResultFolder
from codex_ml.inference.comparison_files import ComparedSide, Comparisons
from codex_ml.statistics.paired import holm

RANDOM = np.random.default_rng(7)
NLL = RANDOM.lognormal(4, 0.5, size=40).tolist()
BETTER = [value * 0.9 for value in NLL]


@pytest.fixture
def results(tmp_path, written_result):
    """Write results of lists of nats, or of objects that write themselves, and return them as opened folders."""

    def results(*written):
        opened = []
        for number, one in enumerate(written):
            name = "abcdef"[number]
            one = written_result(one) if isinstance(one, list) else one
            folder = one if isinstance(one, ResultFolder) else one.write(tmp_path / f"{len(list(tmp_path.iterdir()))}")
            opened.append(ResultFolder(ComparedSide(name=name, kind="folder"), folder))
        return opened

    return results


def compared(opened, **settings):
    found = compare_results(opened, CompareSettings(**settings))
    return found, {metric.metric: metric for metric in found.comparisons[0].metrics}


def test_a_better_model_is_said_to_be_better(results):
    found, metrics = compared(results(NLL, BETTER))
    bits = metrics["bits_per_byte"]
    assert bits.a == pytest.approx(sum(NLL) / np.log(2) / 4000)
    assert bits.b == pytest.approx(0.9 * bits.a)
    assert bits.difference == pytest.approx(bits.b - bits.a)
    assert bits.low < bits.difference < bits.high < 0
    assert (bits.verdict, bits.units, bits.test) == ("better", 40, "randomisation")
    assert bits.p == 1e-4  # none of 9,999 random swaps is as extreme
    assert metrics["token_accuracy"].verdict == "equal"
    assert metrics["token_accuracy"].p == metrics["token_accuracy"].p_holm == 1
    assert found.family == 3


def test_the_same_difference_is_worse_the_other_way_round(results):
    _, metrics = compared(results(BETTER, NLL))
    assert metrics["bits_per_byte"].verdict == metrics["perplexity"].verdict == "worse"


def test_a_difference_without_evidence_is_called_that(results):
    other = [value * factor for value, factor in zip(NLL, RANDOM.permutation([0.9, 1.1] * 20), strict=True)]
    _, metrics = compared(results(NLL, other))
    assert metrics["bits_per_byte"].verdict == "no evidence"
    assert metrics["bits_per_byte"].low < 0 < metrics["bits_per_byte"].high


def test_a_result_against_itself_is_equal_with_p_1_and_width_0(results):
    (one,) = results(NLL)
    found, metrics = compared([one, one])
    for metric in metrics.values():
        assert (metric.difference, metric.low, metric.high, metric.p, metric.verdict) == (0, 0, 0, 1, "equal")
    assert found.comparisons[0].changes == []


def test_holm_counts_the_metrics_of_all_comparisons(results):
    slightly = [value * factor for value, factor in zip(NLL, RANDOM.uniform(0.9, 1.02, 40), strict=True)]
    found = compare_results(results(NLL, slightly, BETTER), CompareSettings())
    metrics = [metric for comparison in found.comparisons for metric in comparison.metrics]
    assert [c.b.name for c in found.comparisons] == ["b", "c"]
    assert {c.a.name for c in found.comparisons} == {"a"}
    assert found.family == len(metrics) == 6
    assert [m.p_holm for m in metrics] == pytest.approx(holm([m.p for m in metrics]))


def test_the_rows_may_stand_in_another_order(results, written_result):
    turned = written_result(BETTER)
    for columns in (turned.texts, turned.numbers):
        for name in columns:
            columns[name] = columns[name][::-1]
    _, metrics = compared(results(NLL, BETTER))
    _, again = compared(results(NLL, turned))
    assert metrics == again


def test_what_both_have_is_compared_on_request(results, written_result):
    fewer = written_result(BETTER[:30])
    with pytest.raises(UserError, match=r"10 only in a \(doc30, doc31, doc32, ...\); `--common` compares the 30"):
        compared(results(NLL, fewer))
    found, metrics = compared(results(NLL, fewer), common=True)
    task = found.comparisons[0].tasks[0]
    assert (task.items, task.units, task.only_a, task.only_b) == (30, 30, 10, 0)
    assert metrics["bits_per_byte"].a == pytest.approx(sum(NLL[:30]) / np.log(2) / 3000)


@pytest.fixture
def with_completions(tmp_path, written_result):
    """Write a result with the tasks documents and completions; `reference` is what the model should have written."""

    def write(name, nll, reference):
        one, two = written_result(nll), written_result(nll)
        two.task, two.texts["reference"] = "completions", [f"{reference} {number}" for number in range(len(nll))]
        folder, other = one.write(tmp_path / name), two.write(tmp_path / f"completions of {name}")
        (other / "results/completions.parquet").rename(folder / "results/completions.parquet")
        details = one.details()
        details["tasks"] |= two.details()["tasks"]
        (folder / "details.json").write_text(json.dumps(details))
        return ResultFolder(ComparedSide(name=name, kind="folder"), folder)

    return write


def test_a_task_without_a_shared_item_is_left_out_on_request_and_noted(with_completions):
    one, two = with_completions("one", NLL, "cut here"), with_completions("two", BETTER, "cut there")
    with pytest.raises(UserError, match=r"of `completions`: 40 with other content .*; they share no item$"):
        compared([one, two])
    found, _ = compared([one, two], common=True)
    assert [task.task for task in found.comparisons[0].tasks] == ["documents"]
    (note,) = found.comparisons[0].notes
    assert note.startswith("one and two are results on different items of `completions`: 40 with other content (doc0, ")
    assert note.endswith("they share no item, so the task is left out")


def test_all_tasks_are_compared(with_completions):
    found, _ = compared([with_completions("one", NLL, "same"), with_completions("two", BETTER, "same")])
    assert [task.task for task in found.comparisons[0].tasks] == ["documents", "completions"]
    assert found.family == 6


def test_an_infinite_value_of_one_item_is_no_change(results, written_result):
    """A token without any probability: the perplexity of its document alone exceeds a double."""
    first, second = [20.0] * 39 + [9000.0], [19.0] * 39 + [9000.0]
    written = [written_result(first), written_result(second)]
    for one in written:
        one.metrics = ["perplexity"]
    found, metrics = compared(results(*written))
    assert metrics["perplexity"].difference < 0
    (change,) = found.comparisons[0].changes
    assert (change.better, change.worse) == (39, 0)


def test_groups_stay_together(results, written_result):
    one, two = written_result(NLL), written_result(BETTER)
    two.texts["unit"] = ["one repository"] * 35 + two.texts["unit"][35:]
    found, metrics = compared(results(one, two))
    assert found.comparisons[0].tasks[0].units == metrics["bits_per_byte"].units == 6
    assert metrics["bits_per_byte"].low is None
    assert metrics["bits_per_byte"].why == "no interval: 6 independent units; at least 20 are needed"
    assert metrics["bits_per_byte"].p == 2 / 2**6


def test_one_unit_gives_values_and_no_evidence(results):
    _, metrics = compared(results(NLL[:1], BETTER[:1]))
    bits = metrics["bits_per_byte"]
    assert (bits.p, bits.verdict, bits.low) == (1, "no evidence", None)
    assert bits.difference < 0


def test_metrics_per_token_of_two_tokenizers_are_not_compared(results, written_result):
    one, two = written_result(NLL), written_result(BETTER, tokens=[12.0] * 39 + [10.0])
    _, metrics = compared(results(one, two))
    assert metrics["bits_per_byte"].verdict == "better"
    for name in ("perplexity", "token_accuracy"):
        assert metrics[name].verdict == "not compared"
        assert metrics[name].why == "39 of 40 items have another number of tokens, and this metric is per token"
        assert (metrics[name].difference, metrics[name].p) == (None, None)
        assert metrics[name].a is not None
        assert metrics[name].b is not None


def test_settings_that_differ_are_said_with_each_metric(results, written_result):
    one, two = written_result(NLL), written_result(BETTER)
    two.listed = {"settings": {"length": 512, "stride": 128, "batch_size": 4}}
    found, metrics = compared(results(one, two))
    differing = [(s.name, s.a, s.b) for s in found.comparisons[0].tasks[0].settings]
    assert differing == [("batch_size", None, "4"), ("length", "256", "512"), ("stride", None, "128")]
    notes = ["length differs: 256 and 512", "stride differs: none and 128"]
    assert [metric.notes for metric in metrics.values()] == [notes] * 3


def test_another_signature_is_never_compared(results, written_result):
    one, two = written_result(NLL), written_result(BETTER)
    two.signatures = {"perplexity": {"signature": "exp(nll/characters)"}}
    _, metrics = compared(results(one, two))
    assert metrics["perplexity"].why == "the signatures differ: exp(nll/tokens) and exp(nll/characters)"
    assert metrics["perplexity"].verdict == "not compared"
    one.signatures = two.signatures
    _, metrics = compared(results(one, two))
    assert metrics["perplexity"].why == (
        "both have the signature exp(nll/characters), but perplexity has exp(nll/tokens) here"
    )


def test_what_a_task_adds_to_a_signature_is_compared_if_it_is_equal(results, written_result):
    one, two = written_result(NLL), written_result(BETTER)
    one.signatures = {"perplexity": {"signature": "exp(nll/tokens)|order:6"}}
    two.signatures = {"perplexity": {"signature": "exp(nll/tokens)|order:5"}}
    _, metrics = compared(results(one, two))
    assert metrics["perplexity"].why == "the signatures differ: exp(nll/tokens)|order:6 and exp(nll/tokens)|order:5"
    two.signatures = one.signatures
    _, metrics = compared(results(one, two))
    assert metrics["perplexity"].verdict == "better"


def test_a_metric_of_one_side_is_listed_without_a_difference(results, written_result):
    one, two = written_result(NLL), written_result(BETTER)
    one.metrics = ["bits_per_byte", "perplexity"]
    two.metrics = ["bits_per_byte", "token_accuracy"]
    _, metrics = compared(results(one, two))
    assert list(metrics) == ["bits_per_byte", "perplexity", "token_accuracy"]
    assert metrics["perplexity"].why == "b has no perplexity"
    assert metrics["token_accuracy"].why == "a has no token_accuracy"
    assert metrics["token_accuracy"].a is None


def test_a_metric_that_is_not_installed_is_listed(results, written_result):
    written = [written_result(NLL), written_result(BETTER)]
    for one in written:
        details = one.details()
        metrics = details["tasks"]["documents"]["metrics"]
        metrics["of_a_package"] = {**metrics["perplexity"], "signature": "v1"}
        one.details = lambda details=details: details
    _, metrics = compared(results(*written))
    assert (
        metrics["of_a_package"].why
        == "no metric of_a_package is installed here, so it cannot be computed; install its package"
    )


def test_a_value_that_was_refused_gives_its_reason(results, written_result):
    one, two = written_result(NLL), written_result(BETTER)
    two.signatures = {"bits_per_byte": {"value": None, "why": "the tokenizer loses text"}}
    _, metrics = compared(results(one, two))
    assert metrics["bits_per_byte"].why == "b has no value: the tokenizer loses text"
    assert metrics["perplexity"].verdict == "better"


def test_baselines_are_no_metrics_of_the_models(results, written_result):
    written = [written_result(nll, zlib_bits=[400.0] * 40) for nll in (NLL, BETTER)]
    for one in written:
        one.metrics = ["bits_per_byte", "zlib_bits_per_byte", "bits_per_byte_minus_zlib"]
    found, metrics = compared(results(*written))
    assert list(metrics) == ["bits_per_byte", "bits_per_byte_minus_zlib"]
    assert found.family == 2


def test_the_largest_gains_and_losses_are_listed_with_their_rows(results):
    first, other = [100.0] * 40, [100.0] * 40
    other[3], other[8], other[20] = 70.0, 110.0, 50.0
    found, _ = compared(results(first, other), top=2)
    (change,) = found.comparisons[0].changes
    assert (change.metric, change.flips, change.better, change.worse) == ("bits_per_byte", False, 2, 1)
    assert [(item.item, item.path, item.row_a, item.row_b) for item in change.gains] == [
        ("doc20", "doc20.py", 20, 20),
        ("doc3", "doc3.py", 3, 3),
    ]
    assert change.gains[0].difference == pytest.approx(-50 / np.log(2) / 100)
    assert [item.item for item in change.losses] == ["doc8"]
    assert change.losses[0].source == "flask==3.1.2"


def test_items_that_flip_are_listed(results, written_result):
    ones = [1.0] * 40
    written = [written_result(NLL, tokens=ones, top1=[1.0] * 10 + [0.0] * 30), written_result(NLL, tokens=ones)]
    written[1].numbers["top1"] = [0.0] * 2 + [1.0] * 20 + [0.0] * 18
    found, metrics = compared(results(*written), top=1)
    (flips,) = found.comparisons[0].changes
    assert (flips.metric, flips.flips, flips.better, flips.worse) == ("token_accuracy", True, 12, 2)
    assert [(item.item, item.a, item.b) for item in flips.gains + flips.losses] == [("doc10", 0, 1), ("doc0", 1, 0)]
    assert metrics["token_accuracy"].test == "mcnemar"
    assert metrics["token_accuracy"].p == pytest.approx(0.012939, abs=1e-6)  # of 2 against 12


def test_results_without_a_shared_task_are_refused(results, written_result):
    one, two = results(NLL, BETTER)
    task = one.evaluation.tasks.pop("documents")
    one.evaluation.tasks["completions"] = task
    with pytest.raises(UserError, match="a has completions and b has documents: they share no task"):
        compared([one, two])


def test_a_task_of_one_side_is_noted(results):
    one, two = results(NLL, BETTER)
    one.evaluation.tasks["completions"] = one.evaluation.tasks["documents"]
    found, _ = compared([one, two])
    assert "only a has the task completions; it is not compared" in found.comparisons[0].notes


DAMAGES = {
    "no table": (
        lambda folder: (folder / "results/documents.parquet").unlink(),
        "documents.parquet is missing, so the",
    ),
    "cut table": (
        lambda folder: (folder / "results/documents.parquet").write_bytes(b"PAR1 cut"),
        "documents.parquet is damaged",
    ),
    "no details": (
        lambda folder: (folder / "details.json").unlink(),
        "has no details.json, so it is not a whole result",
    ),
    "cut details": (
        lambda folder: (folder / "details.json").write_text('{"model"'),
        "details.json is not valid JSON: ",
    ),
    "other details": (lambda folder: (folder / "details.json").write_text("{}"), "details.json: "),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_is_not_whole_is_refused_with_its_file(results, damage):
    one, two = results(NLL, BETTER)
    change, message = DAMAGES[damage]
    change(two.folder)
    with pytest.raises(UserError) as error:
        compared([one, two])
    assert message in str(error.value)
    assert str(two.folder) in str(error.value)


def test_details_and_tables_of_two_runs_are_refused(results, written_result):
    one, two = results(NLL, BETTER)
    (other,) = results([value * 2 for value in NLL])
    (two.folder / "details.json").write_bytes((other.folder / "details.json").read_bytes())
    with pytest.raises(UserError, match=r"gives bits_per_byte .*, but details.json beside its folder says .* two runs"):
        compared([one, two])


def test_another_number_of_rows_is_refused(results):
    one, two = results(NLL, BETTER)
    details = json.loads((two.folder / "details.json").read_text())
    details["tasks"]["documents"]["items"] = 41
    (two.folder / "details.json").write_text(json.dumps(details))
    with pytest.raises(UserError, match=r"has 40 rows of documents, but details\.json beside it says 41"):
        compared([one, two])


@pytest.mark.parametrize(("column", "kind"), [("content", "texts"), ("nll", "numbers")])
def test_a_missing_column_is_named(results, written_result, column, kind):
    other = written_result(BETTER)
    details = other.details()
    other.details = lambda: details
    del getattr(other, kind)[column]
    with pytest.raises(UserError, match=f"documents.parquet has no column {column}; "):
        compared(results(NLL, other))


@pytest.mark.parametrize("lost", [float("nan"), float("inf"), None])
def test_a_table_that_lost_numbers_is_refused(results, lost):
    """Else a value of details.json would stand there without anything that it can be computed from."""
    one, two = results(NLL, BETTER)
    file = two.folder / "results/documents.parquet"
    frame = pd.read_parquet(file)
    frame.loc[3, "nll"] = lost
    frame.to_parquet(file)
    with pytest.raises(UserError, match=r"documents.parquet lacks numbers of bits_per_byte, which details.json gives"):
        compared([one, two])


def test_two_columns_of_one_name_are_refused(results):
    one, two = results(NLL, BETTER)
    file = two.folder / "results/documents.parquet"
    table = pq.read_table(file)
    pq.write_table(table.append_column("nll", table["nll"]), file)
    with pytest.raises(UserError, match=r"documents.parquet has two columns of one name; "):
        compared([one, two])


def test_the_contract_reads_back_what_was_written(results, tmp_path):
    found, _ = compared(results(NLL, BETTER))
    found.write(tmp_path / "comparison.json")
    assert Comparisons.read(tmp_path / "comparison.json") == found


def test_equal_results_give_equal_bytes(results):
    opened = results(NLL, BETTER)
    texts = {json.dumps(compared(opened)[0].as_json()) for _ in range(2)}
    assert len(texts) == 1


def test_the_confidence_decides_interval_and_verdict(results):
    slightly = [
        value * factor for value, factor in zip(NLL, np.random.default_rng(1).uniform(0.8, 1.12, 40), strict=True)
    ]
    _, wide = compared(results(NLL, slightly), inference=Inference(confidence=0.999))
    _, narrow = compared(results(NLL, slightly), inference=Inference(confidence=0.8))
    assert wide["bits_per_byte"].low < narrow["bits_per_byte"].low
    assert (narrow["bits_per_byte"].verdict, wide["bits_per_byte"].verdict) == ("better", "no evidence")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("item", [["a", "list"]] * 40, "column item does not hold texts"),
        ("nll", ["many"] * 40, "a column of nll, bytes is not of numbers"),
    ],
)
def test_a_column_of_another_type_is_refused(results, column, values, message):
    one, two = results(NLL, BETTER)
    table = two.folder / "results/documents.parquet"
    frame = pd.read_parquet(table)
    frame[column] = values
    frame.to_parquet(table)
    with pytest.raises(UserError, match=message):
        compared([one, two])


def test_ids_that_are_numbers_are_read_as_texts(results):
    opened = results(NLL, BETTER)
    for one in opened:
        table = one.folder / "results/documents.parquet"
        pd.read_parquet(table).assign(item=range(40)).to_parquet(table)
    found, _ = compared(opened)
    assert found.comparisons[0].changes[0].gains[0].item.isdecimal()


class Failing:
    """A metric of a package that cannot compute its value."""

    name, inputs, columns, higher_is_better, signature = "failing", "score", ("nll",), True, "v1"
    bounds = (-np.inf, np.inf)

    def aggregate(self, sums):
        raise RuntimeError("broken")


def test_a_plug_in_that_fails_is_not_compared_and_stops_nothing(results, written_result, monkeypatch):
    written = [written_result(NLL), written_result(BETTER)]
    for one in written:
        details = one.details()
        about = {"value": 1.0, "units": 40, "signature": "v1", "higher_is_better": True, "why": "x"}
        details["tasks"]["documents"]["metrics"]["failing"] = about
        one.details = lambda details=details: details
    metrics = load_metrics()
    plugin = MetricPlugin("failing", "far", "1.0", Failing())
    broken = Metrics((*metrics.chosen, plugin), plugins={"failing": plugin})
    monkeypatch.setattr("codex_ml.evaluate.metric_choice.load_metrics", lambda: broken)
    _, found = compared(results(*written))
    assert (found["failing"].verdict, found["failing"].p) == ("not compared", None)
    assert found["failing"].why == "it has no finite value on the items that both results have"
    assert found["bits_per_byte"].verdict == "better"


def test_items_split_at_other_places_are_other_items(results, written_result):
    written = [written_result(NLL), written_result(BETTER)]
    for number, one in enumerate(written):
        one.texts["prompt"] = ["same"] * 40
        one.texts["reference"] = ["same"] * 39 + [f"reference {number}"]
    with pytest.raises(UserError, match=r"1 with other content \(doc39\)"):
        compared(results(*written))


def test_metrics_of_texts_are_compared_whatever_the_number_of_their_words(results, written_result):
    """BLEU counts words of the outputs, which differ between any two models."""
    outputs = [[f"a b c d {'e ' * (number % 5)}f" for number in range(24)], ["a b c d e f g"] * 24]
    written = []
    for texts in outputs:
        rows = [load_metrics(("bleu",)).measure(Pair("", text, "a b c d e f g", "text")) for text in texts]
        one = written_result([1.0] * 24)
        one.numbers |= dict(
            zip(load_metrics(("bleu",)).columns("pair"), map(list, zip(*rows, strict=True)), strict=True)
        )
        one.metrics = ["bleu"]
        written.append(one)
    _, metrics = compared(results(*written))
    assert metrics["bleu"].verdict == "better"
    assert metrics["bleu"].b == pytest.approx(100)
