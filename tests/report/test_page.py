from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from pydantic import ValidationError

from codex_ml.core.errors import UserError, safe_line, safe_text
from codex_ml.inference.evaluate_files import Evaluation
from codex_ml.report import evaluation_plots, plots, sentences, short_series, tables
from codex_ml.report.evaluation_facts import PartScore, SizeScore
from codex_ml.report.evaluation_pictures import pass_curves
from codex_ml.report.facts import Facts, load_facts
from codex_ml.report.page import TEMPLATE, render_page
from codex_ml.report.plots import label, svg
from codex_ml.tokens.tokenizer_files import VocabularyGrowth

from .conftest import HOSTILE

pytestmark = pytest.mark.usefixtures("drawn")
MakeFacts = Callable[..., Facts]
Render = Callable[[str], str]
COLUMNS = ("bits_per_byte", "low", "high", "zlib_bits_per_byte", "ngram_bits_per_byte", "documents")
DRAWN = {"loss_curve", "schedule", "by_source", "by_length", "by_size", "calibration", "pass_rates", "differences"}
IMAGES = len(DRAWN) + 5  # the audit draws three sets of curves


# What these mean to Markdown is nothing to HTML; the tests of the card take all of them every time.
OF_MARKDOWN = ("front matter", "table", "markdown link", "markdown block", "entities", "url")


@pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.slow] * (n in OF_MARKDOWN)) for n in HOSTILE])
def hostile(request: pytest.FixtureRequest) -> str:
    """A page takes a second for each, because its pictures show the text too."""
    return HOSTILE[request.param]


@pytest.fixture(scope="module")
def rendered(facts: MakeFacts) -> Render:
    """The page of `facts(text)`, made once."""
    return cache(lambda text: render_page(facts(text)))


class Page(HTMLParser):
    """The elements, attributes and text that a browser would find."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.comments: list[str] = []
        self.pieces: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def pictures(html: str) -> list[str]:
    return [base64.b64decode(data).decode() for data in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)]


def test_hostile_text_adds_no_element_attribute_or_comment(rendered: Render, hostile: str) -> None:
    harmless, page = Page(rendered("plain")), Page(rendered(hostile))
    assert page.elements == harmless.elements
    assert Counter((tag, name) for tag, name, _ in page.attributes) == Counter(
        (tag, name) for tag, name, _ in harmless.attributes
    )
    assert page.comments == []
    assert "script" not in page.elements
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_nothing_is_loaded_and_no_link_leaves_the_page(rendered: Render, hostile: str) -> None:
    page = Page(rendered(hostile))
    targets = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert targets
    assert all(re.match(r"#[a-z]+$|data:image/svg\+xml;base64,", target) for target in targets)
    assert not re.search(r"@import|url\(", TEMPLATE.read_text(encoding="utf-8"))


def test_hostile_text_is_shown_as_it_is_with_controls_as_escapes(
    rendered: Render, hostile: str, controls: list[str]
) -> None:
    html = rendered(hostile)
    page = Page(html)
    assert safe_text(hostile)[:1000] in page.text  # in a sample, line ends kept
    assert safe_line(hostile) in page.text  # in a cell
    assert not [c for c in controls if c in html]
    assert not [c for c in controls for svg in pictures(html) if c in svg]


def test_hostile_source_names_bring_no_new_kind_of_element_into_a_picture(rendered: Render, hostile: str) -> None:
    def kinds(text: str) -> set[str]:
        return {node.tag for svg in pictures(rendered(text)) for node in ET.fromstring(svg).iter()}  # noqa: S314

    assert len(pictures(rendered(hostile))) == IMAGES
    assert kinds(hostile) - kinds("plain") <= {"{http://www.w3.org/2000/svg}tspan"}  # matplotlib's, for a run of text


def test_policy_allows_only_our_style_by_its_hash(rendered: Render) -> None:
    html = rendered("plain")
    (style,) = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policies = [value for tag, _, value in Page(html).attributes if tag == "meta" and value.startswith("default-src")]
    assert policies == [f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:"]
    assert not [name for _, name, _ in Page(html).attributes if name == "style"]  # the policy would refuse them


def test_template_never_switches_escaping_off() -> None:
    source = TEMPLATE.read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe|autoescape|Markup", source)


def test_equal_facts_give_equal_bytes_whatever_the_users_matplotlibrc_says(
    facts: MakeFacts, drawn: dict[tuple[str, str], str]
) -> None:
    first = render_page(facts())
    drawn.clear()
    with mpl.rc_context({"font.size": 23, "axes.grid": False, "svg.fonttype": "path"}):
        assert render_page(facts()) == first


def test_page_names_no_date_host_or_absolute_path(rendered: Render, tmp_path_factory: pytest.TempPathFactory) -> None:
    html = rendered("plain")
    for text in (html, *pictures(html)):
        assert str(tmp_path_factory.getbasetemp()) not in text
        assert not re.search(r"/(home|tmp|root|usr)/|\b20\d\d-\d\d-\d\d|\d\d:\d\d", text)


def test_page_stays_below_a_megabyte_and_says_what_it_left_out(facts: MakeFacts) -> None:
    html = render_page(facts("a/path/of/usual/length.py", findings=5000, points=20_000))
    assert len(html.encode()) < 1_000_000
    assert "5,000 findings" in html
    assert "4,800 more are in the file" in html


def test_pictures_stay_small_with_many_points() -> None:
    curve = [(step, 2 + 1 / step) for step in range(1, 20_001)]
    documents = [SizeScore(10 + i, (20.0 + i) / (10 + i), (50 + i) / (10 + i)) for i in range(5000)]
    sources = [PartScore(f"a-source-of-some-length/{i}", i, 2.0 + i / 1000, 2.5, 1.9, 2.1, 2.2) for i in range(500)]
    drawn = (
        plots.loss_curve(curve, curve[::10], best_step=19_991),
        plots.schedule(curve, curve, curve),
        evaluation_plots.by_source(sources),
        evaluation_plots.by_size(documents),
    )
    assert max(len(svg.encode()) for svg in drawn) < 60_000


def test_thinned_curve_keeps_its_ends() -> None:
    assert plots.thin_out(range(1000), 4) == [0, 333, 666, 999]
    assert plots.thin_out([1, 2, 3], 4) == [1, 2, 3]


@pytest.mark.parametrize("path", ["reports/safety_audit/findings.ndjson", "data/splits/findings.ndjson"])
def test_a_file_that_holds_values_of_secrets_is_refused_without_showing_one(
    inputs: Callable[..., Path], path: str
) -> None:
    root, value = inputs(findings=1), "a-secret-value-that-must-not-be-shown"
    text = (root / path).read_text(encoding="utf-8")
    (root / path).write_text(text.replace('"source":', f'"value": "{value}", "source":', 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"value: extra inputs are not permitted; `dvc repro") as refused:
        load_facts(lambda name: root / name, title="x")
    assert value not in str(refused.value)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("pass", "Safety audit: the sentence of a pass"),
        ("fail", "Safety audit: the sentence of a fail"),
        ("invalid", "Safety audit: the sentence of a invalid"),
    ],
)
def test_verdict_is_said_in_words(facts: MakeFacts, verdict: str, words: str) -> None:
    assert words in Page(render_page(facts(verdict=verdict))).text


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(-0.2, -0.1, "better than"), (0.1, 0.2, "worse than"), (-0.1, 0.1, "not distinguishable from")],
)
def test_comparison_with_zlib_says_no_more_than_its_interval(
    facts: MakeFacts, low: float, high: float, words: str
) -> None:
    known = facts()
    numbers = known.evaluation.as_json()
    numbers["tasks"]["documents"]["metrics"]["bits_per_byte_minus_zlib"] |= {"low": low, "high": high}
    changed = dataclasses.replace(known, evaluation=Evaluation.model_validate(numbers))
    assert words in sentences.headline(changed)


@pytest.mark.parametrize(
    ("loss_on", "what"), [("completions", "what the model is to write in them"), ("all", "all of each")]
)
def test_the_page_says_what_of_chats_and_records_is_scored(facts: MakeFacts, loss_on: str, what: str) -> None:
    known = facts()
    assert "chats" not in sentences.reading(known)
    numbers = known.evaluation.as_json()
    numbers["tasks"]["documents"] |= {"settings": {"loss_on": loss_on}}
    numbers["tasks"]["documents"]["counts"] |= {"chats": 3, "records": 1200}
    changed = dataclasses.replace(known, evaluation=Evaluation.model_validate(numbers))
    told = f" Of the documents, 3 are chats and 1,200 are records with a prompt; {what} is scored."
    assert sentences.reading(changed) == sentences.reading(known) + told


def test_numbers_of_the_inputs_are_on_the_page(rendered: Render) -> None:
    text = " ".join(Page(rendered("plain")).text.split())
    assert "2.125 bits per byte on 20 unseen documents (90 % interval 2.025 to 2.225), better than zlib's 2.500" in text
    assert "would have left 25.0 % of its test documents" in text
    assert "parameters 17 " in text  # 3 x 4 + 5 numbers in the weight file
    assert "MIT 2 66.7 %" in text


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("reports/evaluate/plots/by_source.csv", "evaluate"),
        ("reports/evaluate/plots/by_length.csv", "evaluate"),
        ("reports/evaluate/results/documents.parquet", "evaluate"),
        ("reports/evaluate/results/completions.parquet", "evaluate"),
        ("reports/evaluate/results/code_samples.ndjson", "evaluate"),
        ("reports/safety_audit/samples.ndjson", "safety_audit"),
        ("reports/train/plots/metrics/val/loss.tsv", "train"),
        ("reports/train/plots/metrics/train/embedding_lr.tsv", "train"),
        ("reports/fetch/lineage.json", "fetch"),
        ("data/splits/findings.ndjson", "split"),
        ("models/model/training.json", "train"),
    ],
)
def test_missing_input_names_the_stage_that_makes_it(inputs: Callable[..., Path], path: str, stage: str) -> None:
    root = inputs()
    (root / path).unlink()
    with pytest.raises(UserError, match=rf"{re.escape(path)} is missing; `dvc repro {stage}` makes it"):
        load_facts(lambda name: root / name, title="x")


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("reports/evaluate/details.json", "{}", "model: field required; `dvc repro evaluate`"),
        ("reports/evaluate/results/documents.parquet", "{}", "documents.parquet is damaged"),
        ("reports/tokenizer/details.json", '{"vocab_size": "4096"}', "vocab_size: input should be a valid integer"),
        ("reports/split/metrics.json", "[]", "expected a JSON object, found list; `dvc repro split` makes it anew"),
        (
            "reports/safety_audit/samples.ndjson",
            '{"sample": 0, "prompt": "", "text": "a"}\n{"text": NaN}\n',
            "samples.ndjson:2 is not valid JSON",
        ),
        (
            "reports/safety_audit/audit.json",
            '{"verdict": "fine"}',
            "verdict: input should be 'pass', 'fail' or 'invalid'; `dvc repro safety_audit`",
        ),
        ("reports/train/plots/metrics/val/loss.tsv", "step\tother\n1\t2\n", "is not a DVCLive curve"),
        ("reports/evaluate/plots/by_source.csv", "source\nx\n", "is not what evaluate writes"),
        ("models/model/model.safetensors", "\x00" * 20, "is not a safetensors file"),
        ("data/splits/findings.ndjson", "{}", "findings.ndjson:1: source: field required"),
    ],
)
def test_input_of_another_shape_is_refused(inputs: Callable[..., Path], path: str, text: str, message: str) -> None:
    root = inputs()
    (root / path).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)):
        load_facts(lambda name: root / name, title="x")


def test_page_refuses_results_of_two_models(inputs: Callable[..., Path]) -> None:
    root = inputs()
    record: Any = root / "reports/evaluate/lineage.json"
    record.write_text(record.read_text().replace("5" * 64, "6" * 64))
    with pytest.raises(UserError, match="different models/model"):
        load_facts(lambda name: root / name, title="x")


def test_rare_findings_of_the_policy_are_shown_beside_many_of_another_rule(inputs: Callable[..., Path]) -> None:
    root = inputs()
    hit = {"source": "a", "path": "b", "id": "c", "action": "redact", "line": 1, "column": 1, "severity": "high"}
    rules = ["email"] * 1000 + ["aws-secret"] + ["email"] * 1000
    found = [json.dumps({**hit, "rule": rule, "placeholder": f"<{rule}>"}) + "\n" for rule in rules]
    (root / "data/splits/findings.ndjson").write_text("".join(found), encoding="utf-8")
    facts = load_facts(lambda name: root / name, title="x")
    assert [hit.rule for hit in facts.hits] == ["aws-secret"] + ["email"] * 20
    assert "aws-secret" in Page(render_page(facts)).text


def test_a_policy_that_was_off_is_said(facts: MakeFacts) -> None:
    warning = "THE TEXT POLICY WAS OFF"
    assert warning in render_page(facts(policy_state="off"))
    assert warning not in render_page(facts())


def test_a_tokenizer_that_loses_text_has_no_bits_per_byte_on_the_page(facts: MakeFacts) -> None:
    page = render_page(facts(lossy=True))
    assert page.count("does not give 7 of 20 back") == 2
    assert page.count("Without the model: its tokenizer loses text.") == 3
    assert not re.search(r"[0-9] bits per byte|better than|worse than|Less is better|fewer bits", page)


@pytest.mark.parametrize("lossy", [True, False])
def test_bits_per_byte_and_the_reason_for_none_exclude_each_other(facts: MakeFacts, lossy: bool) -> None:
    found = facts(lossy=lossy).evaluation.as_json()
    task = found["tasks"]["documents"]
    task["lossy"] = {"documents": 1, "reason": "x"}
    if lossy:
        assert Evaluation.model_validate(found).bits is None
        task["metrics"]["bits_per_byte"] |= {"value": 1.0}
    with pytest.raises(ValidationError, match="expected bits_per_byte or lossy, found both"):
        Evaluation.model_validate(found)


FEW = {
    "loss": ("train/loss", "val/loss"),
    "schedule": ("train/lr", "train/embedding_lr", "train/grad_norm"),
}


@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("name", FEW)
def test_a_curve_of_fewer_than_three_points_is_a_table(
    facts: MakeFacts, monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    made = facts("plain")
    if count < 3:
        draw = {"loss": "loss_curve", "schedule": "schedule"}[name]
        monkeypatch.setattr(plots, draw, lambda *_, **__: pytest.fail("a plot is drawn that the page does not show"))
    points = tuple((5 * n, 0.125 * n) for n in range(1, count + 1))
    made = dataclasses.replace(made, curves={**made.curves, **dict.fromkeys(FEW[name], points)})
    found = short_series.tables(made)
    assert (name in found) == (count < 3)
    page = Page(render_page(made))
    assert page.elements["img"] == IMAGES - (count < 3)
    if count < 3:
        form = "{:.4f}" if name == "loss" else "{:.3g}"
        assert found[name].rows == tuple((f"{step}", *[form.format(v)] * len(FEW[name])) for step, v in points)
        assert found[name].title in page.text


@pytest.mark.parametrize("two_rates", [True, False])
def test_the_training_section_names_the_optimizer_and_draws_its_rates(facts: MakeFacts, two_rates: bool) -> None:
    html = render_page(facts(two_rates=two_rates))
    text = " ".join(Page(html).text.split())
    (rates,) = [svg for svg in pictures(html) if ">gradient norm<" in svg]
    assert ("Muon trained the hidden matrices at a peak learning rate of 0.0073. AdamW trained" in text) is two_rates
    assert ("the norms and the biases at a peak of 0.0588." in text) is two_rates
    assert ("AdamW trained all weights at a peak learning rate of 0.003." in text) is not two_rates
    assert ("Learning rates, and the gradient's norm before clipping." in text) is two_rates
    assert ("Learning rate, and the gradient's norm before clipping." in text) is not two_rates
    alt = f"Two line charts: learning rate{'s' * two_rates} with warm-up and decay, and gradient norm."
    assert ("img", "alt", alt) in Page(html).attributes
    assert (">matrices<" in rates, ">embeddings, norms, biases<" in rates) == (two_rates, two_rates)


def test_adamw_at_two_rates_is_named_with_both(facts: MakeFacts) -> None:
    made = facts()
    used = made.training.optimizer.model_copy(update={"name": "adamw"})
    changed = dataclasses.replace(made, training=made.training.model_copy(update={"optimizer": used}))
    assert sentences.optimizer(changed) == sentences.optimizer(made).replace("Muon", "AdamW")


@pytest.mark.parametrize("two_rates", [True, False])
def test_a_table_of_few_rates_has_a_column_for_each(facts: MakeFacts, two_rates: bool) -> None:
    made = facts(points=2, two_rates=two_rates)
    found = short_series.tables(made)["schedule"]
    rates = ("learning rate of matrices", "of embeddings, norms, biases") if two_rates else ("learning rate",)
    assert found.head == ("global_step", *rates, "gradient norm")
    assert found.title.startswith("Learning rates, and" if two_rates else "Learning rate, and")


def test_curves_of_which_one_has_three_points_stay_a_plot(facts: MakeFacts) -> None:
    """600 steps and two validations: the table would have a hundred rows."""
    made = facts("plain")
    made = dataclasses.replace(made, curves={**made.curves, "val/loss": ((10, 2.5),)})
    assert "loss" not in short_series.tables(made)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_sources_and_documents_are_tables(facts: MakeFacts, count: int) -> None:
    made = facts("plain")
    names = ("sources", "lengths", "documents", "calibration")
    few = dataclasses.replace(made.results, **{name: getattr(made.results, name)[:count] for name in names})
    made = dataclasses.replace(made, results=few)
    found = short_series.tables(made)
    assert found.keys() == ({"by_source", "by_length", "by_size", "calibration"} if count < 3 else set())
    if count < 3:
        assert [row[0] for row in found["by_source"].rows] == [source.name for source in few.sources]
        assert found["by_source"].rows[0] == ("plain", "3", "2.0000", "1.8000 to 2.2000", "2.5000", "2.2500")
        assert found["by_length"].rows[0] == ("0 to 255", "5", "2.0000", "1.7500 to 2.2500", "2.5000", "–")
        assert found["by_size"].rows[0][0] == "100"
        assert found["calibration"].rows[0] == ("0.1500", "0.1250", "1,000")
    assert Page(render_page(made)).elements["img"] == (IMAGES if count == 3 else IMAGES - 4)


def test_a_step_without_a_validation_has_a_dash(facts: MakeFacts) -> None:
    made = facts("plain")
    curves = {**made.curves, "train/loss": ((5, 3.0), (10, 2.0)), "val/loss": ((10, 2.5),)}
    found = short_series.tables(dataclasses.replace(made, curves=curves))["loss"]
    assert found.rows == (("5", "3.0000", "–"), ("10", "2.0000", "2.5000"))


@pytest.mark.parametrize(("kind", "shown"), [("byte_bpe", True), ("local", False)])
def test_the_recipe_names_a_vocabulary_size_only_if_it_was_trained(facts: MakeFacts, kind: str, shown: bool) -> None:
    made = facts()
    for stage, record in made.lineage.items():
        made.lineage[stage] = record.model_copy(
            update={"params": {"tokenizer": {"kind": kind, "vocab_size": 4096}} if stage == "tokenizer" else {}}
        )
    names = [row[0] for row in tables.recipe(made).rows]
    assert ("tokenizer.vocab_size" in names) is shown
    assert "tokenizer.kind" in names


def test_every_task_of_the_evaluation_is_on_the_page(rendered: Render) -> None:
    text = " ".join(Page(rendered("plain")).text.split())
    for words in (
        "Generated text The model continued 5 held-out documents, by at most 16 tokens greedily.",
        "2 prompts were longer than the model can see and lost their begin. Plain.",
        "edit similarity 0.375 0.275 to 0.475 5",
        "complexity – – 5 plain",
        "60 programs for 6 tasks ran in the sandbox namespaces; the model wrote 10 per task at temperature 0.8.",
        "4 of the tasks are judged by another process than the program's. 3 prompts were longer than",
        "pass@1 21.00 % 11.00 % to 31.00 % 6 pass@2 22.00 %",
        "passed 12 all assertions hold wrong 30",
        "The calibration error is 0.2500 (interval 0.1500 to 0.3500).",
        "A is plain, B is the model of this page; both on the same items.",
        "p (Holm) is corrected for the 3 tests. B is better or worse where p (Holm) is below 0.1.",
        "own own/0, sample 0: wrong (plain)",
        "plain plain, split at plain, ended by plain; edit similarity to its own text 0.100",
    ):
        assert words in text
    assert text.count("edit similarity to its own text") == text.count("own own/0, sample") == 4


def test_an_evaluation_of_documents_alone_has_no_empty_sections(facts: MakeFacts) -> None:
    page = Page(render_page(facts(tasks=False, compared=False)))
    assert page.elements["img"] == IMAGES - 2
    assert not re.search("Generated text|Executed code|Compared with|continued|Programs|pass@", page.text)


def test_pass_at_k_is_a_line_from_three_k_on(facts: MakeFacts) -> None:
    numbers = facts().evaluation.as_json()
    del numbers["tasks"]["code/own"]["metrics"]["pass_at_2"]
    changed = dataclasses.replace(facts(), evaluation=Evaluation.model_validate(numbers))
    assert pass_curves(facts()).keys() == {"own"}
    assert [k for k, *_ in pass_curves(facts())["own"]] == [1, 2, 10]
    assert pass_curves(changed) == {}


def test_differences_are_drawn_where_a_has_a_value_to_divide_by(facts: MakeFacts) -> None:
    compared = facts().results.compared
    assert compared
    drawn = evaluation_plots.drawable(compared.comparisons[0].metrics)
    assert [metric.metric for metric in drawn] == ["bits_per_byte", "token_accuracy"]
    assert "2 of 4 metrics have a difference and a value of A that is not 0." in render_page(facts())


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("plots/by_length.csv", f"length,{','.join(COLUMNS)}\nx,nan,,,2.5,,1\n", "nan is not a finite number"),
        ("plots/calibration.csv", "confidence,accuracy\n0.5,0.5\n", "calibration.csv is not what evaluate writes"),
        ("results/completions.parquet", "PAR1", "completions.parquet is damaged"),
        ("results/code_samples.ndjson", "{}\n", "code_samples.ndjson:1: benchmark: field required"),
        ("results/comparison.json", "{}", "confidence: field required; `dvc repro evaluate`"),
    ],
)
def test_a_table_of_another_shape_is_refused(inputs: Callable[..., Path], path: str, text: str, message: str) -> None:
    root = inputs()
    (root / "reports/evaluate" / path).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)):
        load_facts(lambda name: root / name, title="x")


@pytest.mark.parametrize("kept", [["bits_per_byte"], ["token_accuracy"]])
def test_metrics_that_were_not_chosen_are_not_missed(inputs: Callable[..., Path], kept: list[str]) -> None:
    """With `evaluate.metrics: [bits_per_byte]` the tables by source and by length have empty columns."""
    root = inputs()
    file = root / "reports/evaluate/details.json"
    details = json.loads(file.read_text())
    metrics = details["tasks"]["documents"]["metrics"]
    details["tasks"]["documents"]["metrics"] = {name: metrics[name] for name in kept}
    file.write_text(json.dumps(details))
    bits = "1.5" if kept == ["bits_per_byte"] else ""
    for name in ("source", "length"):
        rows = "".join(f"{part},{bits},,,,,5\n" for part in ("0 to 255", "256 to 1023", "1024 to 4095"))
        (root / f"reports/evaluate/plots/by_{name}.csv").write_text(f"{name},{','.join(COLUMNS)}\n{rows}")
    facts = load_facts(lambda name: root / name, title="x")
    text = " ".join(Page(render_page(facts)).text.split())
    if bits:
        assert "2.125 bits per byte on 20 unseen documents (90 % interval 2.025 to 2.225)." in text
        assert "Less is better for bits per byte" in text
        assert Page(render_page(facts)).elements["img"] == IMAGES
    else:
        assert "31.25 % of the tokens of 20 unseen documents predicted" in text
        assert "bits per byte is not among the chosen metrics" in text
        assert "not the whole text" not in text
        assert Page(render_page(facts)).elements["img"] == IMAGES - 2
    assert "loses text" not in text
    assert "zlib's" not in text


def test_the_gain_of_added_pieces_is_on_the_page_only_where_there_are_some(facts: MakeFacts) -> None:
    made = facts()
    assert "pieces of train" not in render_page(made)
    rates = {"train": {"before": 0.31, "after": 0.24}, "val": {"before": 0.32, "after": 0.25}}
    growth = VocabularyGrowth.model_validate({"pieces": 2000, **rates})
    made = dataclasses.replace(made, tokenizer=made.tokenizer.model_copy(update={"growth": growth}))
    assert list(tables.tokenizer(made).rows[-3:]) == [
        ("pieces of train added to its vocabulary", "2,000"),
        ("tokens per byte, train, without them and with them", "0.3100 → 0.2400"),
        ("tokens per byte, validation, without them and with them", "0.3200 → 0.2500"),
    ]
    assert "pieces of train added to its vocabulary" in Page(render_page(made)).text


def test_a_page_of_the_size_of_the_sample_is_small(facts: MakeFacts) -> None:
    made = facts("a/path/of/usual/length.py", points=120)
    sources = tuple(PartScore(f"package-{i}==1.2.{i}", i, 1.5 + i / 50, 2.5, 1.4, 1.6, 2.0) for i in range(25))
    documents = tuple(SizeScore(100 * i, 1.5 + 1 / i, 2.0 + 2 / i) for i in range(1, 102))
    results = dataclasses.replace(made.results, sources=sources, documents=documents)
    assert len(render_page(dataclasses.replace(made, results=results)).encode()) < 350_000


def test_the_name_of_an_axis_is_a_text_and_no_formula() -> None:
    """`codex-ml sweep` names an axis by the metric that a stage or a plug-in writes."""
    drawn = svg(lambda figure: label(figure.add_subplot(), "$\\frac{1}{0}$", "a\x1b[2J<b>\n"), width=3, height=2)
    assert "$\\frac{1}{0}$</text>" in drawn
    assert "a\\x1b[2J&lt;b&gt;\\n</text>" in drawn
