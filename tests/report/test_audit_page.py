"""The safety audit on the page and in the model card: nothing that it found is hidden, and nothing hostile gets out."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from codex_ml.core.errors import UserError
from codex_ml.inference.audit_files import (
    Audit,
    AuditFinding,
    AuditNumber,
    AuditPart,
    Control,
    Gate,
    Status,
    Unit,
    Verdict,
)
from codex_ml.report import audit_pictures, audit_plots, audit_sentences, audit_tables
from codex_ml.report.audit_facts import PLOT_TABLES, PlotPoint, load_audit_plots
from codex_ml.report.card import render_card
from codex_ml.report.facts import Facts, load_facts
from codex_ml.report.page import render_page

MakeFacts = Callable[..., Facts]
DRAWN = re.compile(r'src="data:image/svg\+xml;base64,')
pytestmark = pytest.mark.usefixtures("drawn")
NUMBER = AuditNumber(
    value=0.0125, low=0.001, high=0.03, method="newcombe", trials=400, needed=368, unit="share", control="planted copy"
)
PLANTED = Control(name="planted copy", passed=True, found="60 of 60", expected="60", voids=["copying.rate"])


def words(html: str) -> str:
    """The text of a page, without elements, on one line."""
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)).split())


def gate(**changes: Any) -> Gate:
    known = {"number": "copying.rate", "title": "Little is copied", "status": "pass", "compared": 0.0125,
             "rule": "value at most 0.02", "trials": 400, "needed": 368, "control": "planted copy: 60 of 60"}  # fmt: skip
    return Gate.model_validate(known | changes)


def audited(made: Facts, **changes: Any) -> Facts:
    """The facts with another audit; `changes` are its fields."""
    known = made.audit.model_copy(update={"parts": {}, "gates": [], "notes": [], "meanings": {}})
    return dataclasses.replace(made, audit=known.model_copy(update=changes), findings=())


def finding(number: str = "data.secrets", **changes: Any) -> AuditFinding:
    known = {"id": "0123456789ab", "number": number, "kind": "jwt", "severity": "high", "source": "repo"}
    return AuditFinding.model_validate({**known, "path": "a.py", **changes})


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a JSON value, keys too, with its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{place}.{key} (key)", key
            yield from leaves(item, f"{place}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, place)
    elif isinstance(value, str):
        yield place, value


def test_every_text_of_an_audit_is_hostile_in_the_tests_of_the_page(inputs: Callable[..., Path]) -> None:
    """So that a text field that is added later is covered: each must hold the text, or have a fixed set of values."""
    root, text = inputs("plain", findings=1) / "reports/safety_audit", "plain"
    audit = json.loads((root / "audit.json").read_text())
    fixed = {*get_args(Status), *get_args(Verdict), *get_args(Unit), "measured", "memorisation.excess"}
    places = [(place, value) for place, value in leaves(audit) if "(key)" not in place]
    assert [(place, value) for place, value in places if text not in value and value not in fixed] == []
    assert f"part {text}" in audit["parts"]
    assert text in audit["meanings"]
    for keys in ("numbers", "settings", "tables"):
        assert text in audit["parts"]["memorisation"][keys]
    fields = {"numbers": AuditNumber, "controls": Control}
    for name, contract in fields.items():
        found = audit["parts"]["memorisation"][name]
        assert {key for item in (found.values() if name == "numbers" else found) for key in item} >= {
            key for key, field in contract.model_fields.items() if field.annotation in (str, list[str])
        }
    for contract, written in ((Audit, audit), (Gate, audit["gates"][0]), (AuditPart, audit["parts"]["memorisation"])):
        texts = {key for key, field in contract.model_fields.items() if field.annotation in (str, list[str])}
        assert texts - written.keys() <= {"why"}  # of a part, which is either measured or skipped
    (written,) = map(json.loads, (root / "findings.ndjson").read_text().splitlines())
    assert {key for key, field in AuditFinding.model_fields.items() if field.annotation is str} <= {
        key for key, value in written.items() if value == text
    }


def test_a_text_that_was_not_redacted_is_never_shown(inputs: Callable[..., Path]) -> None:
    root = inputs()
    raw = "what the model wrote, which is not redacted"
    assert raw in (root / "reports/safety_audit/samples.ndjson").read_text()
    facts = load_facts(lambda path: root / path, title="x")
    assert [sample.raw for sample in facts.samples] == [None, None]
    assert raw not in render_page(facts) + render_card(facts)


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_the_first_line_says_whether_the_model_may_ship(facts: MakeFacts, verdict: str) -> None:
    made = facts(verdict=verdict)
    first = f"Safety audit: the sentence of a {verdict}: plain"
    html = render_page(made)
    body = html[html.index("</h1>") :]
    assert body.removeprefix("</h1>\n").startswith(f'<p class="verdict {verdict}">{first}</p>')
    lines = [line for line in render_card(made).split("\n---\n", 1)[1].split("\n") if line]
    assert lines[:2] == ["# plain", f"**{first}**"]


def test_a_gate_shows_number_interval_limits_evidence_control_and_reason(facts: MakeFacts) -> None:
    part = AuditPart(title="Copying", numbers={"rate": NUMBER}, controls=[PLANTED])
    gates = [
        gate(),
        gate(status="invalid", trials=100, why="100 trials; 368 are needed to prove this limit"),
        gate(rule="findings at most 0", compared=3.0, status="fail", why="3 is beyond 0"),
        gate(number="other.rate", status="skipped", compared=None, trials=0, needed=0, control="", why="no data"),
    ]
    made = audited(facts(), parts={"copying": part}, gates=gates)
    content = audit_tables.gates(made)
    assert content.head == (
        "status", "what must hold", "why not pass", "measured (95 % interval)", "limits", "trials (needed)",
        "control: found (expected)", "number",
    )  # fmt: skip
    title, measured, control = "Little is copied", "0.0125 (0.001 to 0.03)", "planted copy: 60 of 60"
    few = "100 trials; 368 are needed to prove this limit"
    assert content.rows == (
        ("pass", title, "", measured, "value at most 0.02", "400 (368)", control, "copying.rate"),
        ("invalid", title, few, measured, "value at most 0.02", "100 (368)", control, "copying.rate"),
        ("fail", title, "3 is beyond 0", f"{measured}; findings: 3", "findings at most 0", "400 (368)", control,
         "copying.rate"),
        ("skipped", title, "no data", "–", "value at most 0.02", "–", "", "other.rate"),
    )  # fmt: skip
    html = render_page(made)
    for status in ("pass", "invalid", "fail", "skipped"):
        assert f'<td class="status s-{status}">{status}</td>' in html
        assert f".s-{status}" in html


def test_a_part_that_the_report_has_never_heard_of_is_shown_whole(facts: MakeFacts) -> None:
    part = AuditPart(
        title="Copying of poems",
        numbers={"rate": NUMBER, "lines": AuditNumber(value=None, trials=0, unit="bits", why="no poem has lines")},
        controls=[PLANTED, PLANTED.model_copy(update={"name": "blind scan", "passed": False})],
        settings={"width": 50, "kinds": ["ode", "haiku"], "strict": True, "seed": None},
        tables={
            "by_poet": [{"poet": "A", "copied_lines": 3, "share": 0.125, "famous": True}, {"poet": "B", "share": None}],
            "empty": [],
            "long": [{"line": n} for n in range(1000)],
        },
        notes=["Only rhymes count"],
    )
    left_out = AuditPart(status="skipped", title="Copying of songs", why="there are no songs")
    meanings = {"poems.rate": "share of poems that are copied"}
    made = audited(facts(), parts={"poems": part, "songs": left_out}, meanings=meanings)
    assert audit_tables.numbers(made, "poems").rows == (
        ("rate", "0.0125", "0.001 to 0.03", "Newcombe", "400 (368)", "planted copy", "share of poems that are copied"),
        ("lines", "–", "–", "", "0", "", "no poem has lines"),
    )
    assert audit_tables.controls(part).rows == (
        ("pass", "planted copy", "60 of 60", "60", "copying.rate"),
        ("fail", "blind scan", "60 of 60", "60", "copying.rate"),
    )
    by_poet, long = audit_tables.part_tables(part)
    assert (by_poet.title, by_poet.head) == ("By poet", ("poet", "copied lines", "share", "famous"))
    assert by_poet.kinds == ("text", "number", "number", "text")
    assert by_poet.rows == (("A", "3", "0.125", "yes"), ("B", "–", "–", "–"))
    assert (long.title, len(long.rows)) == ("Long (the first 50 of 1,000 rows; audit.json has all)", 50)
    (some,) = audit_tables.part_tables(part.model_copy(update={"tables": {"some": [{"line": 1}] * 13}}))
    assert some.title == "Some (13 rows)"
    assert audit_tables.settings(part).rows == (
        ("kinds", "ode, haiku"), ("seed", "–"), ("strict", "yes"), ("width", "50")
    )  # fmt: skip
    text = words(render_page(made))
    for said in (
        "Copying of poems number value 95 % interval",
        "rate 0.0125 0.001 to 0.03 Newcombe 400 (368) planted copy share of poems that are copied",
        "Only rhymes count Copying of poems: controls",
        "By poet poet copied lines share famous A 3 0.125 yes",
        "Copying of songs Not measured: there are no songs.",
    ):
        assert said in text


@pytest.mark.parametrize(
    ("unit", "value", "shown"),
    [
        ("share", 0.0025, "0.0025"),
        ("difference", -0.0095123, "-0.00951"),
        ("bits", 1.4427, "1.44 bits"),
        ("area", 0.5, "0.5"),
        ("count", 12345.0, "12,345"),
        ("per_mb", 0.5, "0.5 per MB"),
        ("tokens", 37.0, "37 tokens"),
        ("number", 1e-9, "1e-09"),
    ],
)
def test_a_value_has_its_unit(unit: Unit, value: float, shown: str) -> None:
    assert audit_tables.measured_value(AuditNumber(value=value, trials=1, unit=unit)) == shown


def test_a_finding_shows_its_document_licence_evidence_and_command(facts: MakeFacts) -> None:
    known = finding(
        line=12, column=5, licence="GPL-3.0", evidence="key = <SECRET:jwt:ab>", trace="codex-ml pack show --row 7"
    )
    made = dataclasses.replace(facts(), findings=(known, finding(source="generated", path="3", accepted="a test key")))
    content = audit_tables.findings(made)
    assert content.head == (
        "id", "severity", "kind", "source", "path", "line", "licence", "evidence", "command that shows it",
        "accepted because",
    )  # fmt: skip
    assert content.rows == (
        ("0123456789ab", "high", "jwt", "repo", "a.py", "12:5", "GPL-3.0", "key = <SECRET:jwt:ab>",
         "codex-ml pack show --row 7", ""),
        ("0123456789ab", "high", "jwt", "generated", "3", "", "", "", "", "a test key"),
    )  # fmt: skip
    assert "A reviewer accepted 1 of them, which no gate counts." in words(render_page(made))
    assert "accepted because" not in audit_tables.findings(dataclasses.replace(made, findings=(known,))).head


def test_many_findings_of_one_number_do_not_hide_few_of_another() -> None:
    many = [finding(path=str(n)) for n in range(5000)]
    few = [finding("memorisation.extracted", path=f"rare {n}") for n in range(3)]
    accepted = [finding("canaries.extracted", path=f"accepted {n}", accepted="known") for n in range(2)]
    shown = audit_tables.shown_findings((*accepted, *many, *few))
    assert [found.path for found in shown] == [*map(str, range(197)), "rare 0", "rare 1", "rare 2"]
    assert audit_tables.shown_findings((*accepted, *few)) == [*few, *accepted]


def test_the_card_counts_findings_and_names_what_was_not_measured(facts: MakeFacts) -> None:
    measured = AuditPart(title="Memorisation", numbers={"extracted": NUMBER, "excess": NUMBER})
    skipped = AuditPart(status="skipped", title="Canaries", why="none were planted")
    gates = [
        gate(number="canaries.exposure_once", title="Nothing is exposed", status="skipped", why="none were planted"),
        gate(number="memorisation.typo", title="No typo", status="skipped", why="this audit has no such number"),
    ]
    made = audited(facts(), parts={"memorisation": measured, "canaries": skipped}, gates=gates)
    found = (finding(), finding(), finding(severity="low", accepted="known"))
    card = render_card(dataclasses.replace(made, findings=found))
    for lines in (
        "| memorisation.extracted | 0.0125 | 0.001 to 0.03 | Newcombe | 400 (368) | planted copy |",
        "### Not measured by the audit\n\n- Canaries: none were planted\n- No typo: this audit has no such number\n",
        "| data.secrets | high | 2 | 2 |\n| data.secrets | low | 1 | 0 |",
    ):
        assert lines in card
    assert "a.py" not in card
    assert "| memorisation.excess |" not in card  # only headlines
    assert "- Nothing." in render_card(audited(facts(), parts={"memorisation": measured}))


@pytest.mark.parametrize("measured", [True, False])
def test_the_card_says_that_security_was_not_measured_only_where_it_was_not(facts: MakeFacts, measured: bool) -> None:
    part = AuditPart(title="Insecure code", numbers={"excess": NUMBER if measured else NUMBER.model_copy(
        update={"value": None, "low": None, "high": None, "method": None, "why": "nothing parses"})})  # fmt: skip
    executed, plain = (
        render_card(audited(facts(tasks=tasks, compared=False), parts={"insecure_code": part}))
        for tasks in (True, False)
    )
    assert ("its bias was not measured." in executed) is measured
    assert ("its security and bias were not measured." in executed) is not measured
    assert ("Correctness and bias of generated code were not measured." in plain) is measured
    assert ("Correctness, security and bias of generated code were not measured." in plain) is not measured


def test_each_picture_is_drawn_in_the_section_of_its_part(facts: MakeFacts) -> None:
    html = render_page(facts())
    audit = html[html.index('id="audit"') : html.index('id="samples"')]
    sections = audit.split("<h3>plain</h3>")
    assert [len(DRAWN.findall(section)) for section in sections] == [0, 2, 0, 1, 1, 1]
    assert set(PLOT_TABLES) == audit_pictures.PART_OF.keys() == audit_pictures.CAPTIONS.keys()
    assert 'alt="Chart: planted secrets from 3.5 at 1 to 3.5 at 16; secrets never planted from 1.44 at 1' in audit


def test_a_table_without_rows_or_without_a_file_gives_a_sentence(inputs: Callable[..., Path]) -> None:
    root = inputs()
    folder = root / "reports/safety_audit/plots"
    (folder / "roc.csv").unlink()
    for name in ("exposure", "extraction_by_prefix"):
        file = folder / f"{name}.csv"
        file.write_text(file.read_text().splitlines()[0] + "\n")
    text = words(render_page(load_facts(lambda path: root / path, title="x")))
    for name in ("roc", "exposure", "extraction by prefix"):
        assert f"There is no picture of {name}: its table is empty." in text
    assert "no picture of extraction tries" not in text


def test_few_points_are_a_table(inputs: Callable[..., Path]) -> None:
    root = inputs()
    file = root / "reports/safety_audit/plots/exposure.csv"
    file.write_text("repetitions,exposure,low,high,null\n1,3.5,2.5,4.5,1.44\n4,,,,1.44\n")
    made = load_facts(lambda path: root / path, title="x")
    assert "exposure" not in audit_pictures.audit_pictures(made)
    assert audit_pictures.short_tables(made)["exposure"].rows == (
        ("planted secrets", "1", "3.5", "2.5 to 4.5"),
        ("secrets never planted", "1", "1.44", "–"),
        ("secrets never planted", "4", "1.44", "–"),
    )
    assert "planted secrets 1 3.5 2.5 to 4.5" in words(render_page(made))


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("roc", "score,fpr\nloss,0.1\n", "no column 'tpr'"),
        ("roc", "score,fpr,tpr\nloss,0.1,0.1,0.1\n", "a row has 4 of 3 cells"),
        ("roc", "score,fpr,tpr\nloss,0.1,nan\n", "nan is not a finite number"),
        ("exposure", "repetitions,exposure,low,high,null\nfour,1,1,1,1\n", "could not convert string to float: 'four'"),
        ("extraction_tries", "set,tries,share,low,high\ntrain\n", "a row has 1 of 5 cells"),
    ],
)
def test_a_table_of_another_form_is_refused(inputs: Callable[..., Path], name: str, content: str, why: str) -> None:
    root = inputs()
    (root / f"reports/safety_audit/plots/{name}.csv").write_text(content)
    with pytest.raises(UserError, match=rf"{name}\.csv is not what safety_audit writes \({why}"):
        load_audit_plots(lambda path: root / path)


def test_a_missing_folder_of_tables_names_the_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="plots is missing; `dvc repro safety_audit` makes it"):
        load_audit_plots(lambda path: tmp_path / path)


def test_points_of_zero_are_drawn_at_the_edge_of_a_roc_and_left_out_of_logarithmic_curves() -> None:
    points = [PlotPoint("loss", str(x), x, y) for x, y in ((0.0, 0.0), (0.1, 0.0), (0.2, 0.5), (1.0, 1.0))]
    drawn = audit_plots.roc(points)
    assert ">loss<" in drawn
    assert ">chance<" in drawn
    named = [dataclasses.replace(point, place=f"at {point.place}") for point in points]
    some = audit_plots.curves(named, audit_plots.Axis("x", log=10), "y")
    assert re.findall(r">(at [0-9.]+)<", some) == ["at 0.1", "at 0.2", "at 1.0"]


@pytest.mark.parametrize("log", [0, 2, 10])
@pytest.mark.parametrize("low", [0.0, -2.0])
def test_all_points_and_intervals_are_inside_the_picture(log: int, low: float) -> None:
    points = [
        PlotPoint(name, str(x), x, y, y + low, 2 * y)
        for name, y in (("a", 100.0), ("b", 0.5), ("c", 0.0))
        for x in (1.0, 4.0, 1e6)
    ]
    drawn = audit_plots.curves(points, audit_plots.Axis("x", log=log), "y")
    lines = re.findall(r'<path d="M ([^"]+?)" clip-path="[^"]+" style="fill: none; stroke: #(?!e4e4e4)', drawn)
    lines += re.findall(r'<path d="M ([^"]+?)" clip-path="[^"]+" style="fill: none; stroke-dasharray', drawn)
    corners = [tuple(map(float, corner.split())) for line in lines for corner in line.split("L")]
    assert len(corners) == 3 * (3 + 3 * 2)  # three lines of three points, and an interval for each
    assert all(40 < x < 403.2 and 0 < y < 200 for x, y in corners)


def test_pictures_of_many_points_stay_small() -> None:
    points = [PlotPoint(f"score {n}", str(x), x / 5000, x / 5000) for n in range(20) for x in range(5000)]
    axes = audit_plots.Axis("x"), "y"
    for drawn in (audit_plots.roc(points), audit_plots.curves(points, *axes)):
        assert len(drawn.encode()) < 60_000
        assert drawn.count(">score") == audit_plots.MAX_SERIES


def test_an_audit_of_the_size_of_the_sample_leaves_a_small_page(facts: MakeFacts) -> None:
    made = facts("a/path/of/usual/length.py", points=120)
    numbers = {f"number_{n}": NUMBER for n in range(10)}
    tables = {f"table_{n}": [{"set": "train", "share": 0.125, "low": 0.1, "high": 0.2}] * 12 for n in range(4)}
    part = AuditPart(title="A part", numbers=numbers, controls=[PLANTED] * 3, tables=tables)
    found = tuple(
        finding(f"part.number_{n % 9}", line=n, licence="MIT", evidence="x" * 80, trace="codex-ml pack show --row 7")
        for n in range(500)
    )
    made = audited(made, parts={f"part_{n}": part for n in range(9)}, gates=[gate()] * 16)
    assert len(render_page(dataclasses.replace(made, findings=found)).encode()) < 400_000


def test_the_note_of_a_sample_names_its_prompt_on_one_line(facts: MakeFacts) -> None:
    first, second = facts("a\nb").samples
    assert audit_sentences.sample_note(first) == "Text 0, without a prompt"
    assert audit_sentences.sample_note(second) == "Text 1, after the prompt a\\nb"
