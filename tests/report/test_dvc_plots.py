"""`dvc plots show` draws what dvc.yaml declares of the evaluation and of the audit, without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from codex_ml.core.csv_file import csv_text
from codex_ml.inference.audit_files import PLOT_FILES

LOADS_NOTHING = "DVC failed to load some plots"  # what DVC says if it could not read a table, or its own pipeline
NOWHERE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
BITS = "documents,bytes,bits_per_byte,low,high,zlib_bits_per_byte,ngram_bits_per_byte"
HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "</ScRiPt ><svg/onload=alert(1)>",
    "a\u2028;alert(1)",
]
HOSTILE += ["<DVC_METRIC_DATA>", "{plot_divs}{scripts}", '"};alert(1)//', "&lt;/script&gt;<b>", "</style></title>"]
NUMBERS = [30, 3000, 1.5, 1.25, 1.75, 2.5, 2.0]
TABLES = {
    "by_source": csv_text(["source", *BITS.split(",")], [["b==1", *NUMBERS], *([name, *NUMBERS] for name in HOSTILE)]),
    "by_length": f"length,{BITS}\n256 to 1023,30,3000,1.5,1.25,1.75,2.5,2.0\n1024 to 4095,3,300,1.75,,,2.5,\n",
    "calibration": "confidence,accuracy,tokens\n0.25,0.2,100\n0.75,0.7,50\n",
    "pass_at_k": "benchmark,k,pass_at_k,low,high,tasks\nHumanEval,1,0.1000,0.0500,0.2000,164\nown,1,0.5,,,4\n",
    "compared": "task,metric,difference,low,high,p_holm,verdict\ndocuments,bits_per_byte,-0.1,-0.2,-0.05,0.01,better\n",
}
SET = "set,{},windows,share,low,high\ntrain,10,400,0.5,0.25,0.75\nheld-out,10,400,0.0,0.0,0.01\ntrain,100,400,0.5,,\n"
AUDIT = {
    "extraction_by_prefix": SET.format("prefix"),
    "extraction_tries": SET.format("tries"),
    "copied_runs": "length,samples,held_out\n10 to 19,0.5,0.25\n50 or more,0.1,0.0\n",
    "insecure_code": "texts,code,insecure,share,low,high\ngenerated,30,3,0.1,0.05,0.3\nheld-out,30,0,,,\n",
    "exposure": "repetitions,exposure,low,high,null\n1,1.5,0.5,2.5,1.44\n16,9.97,,,1.44\n",
    "roc": "score,fpr,tpr\nloss,0.0,0.0\nloss,0.5,0.5\nloss,1.0,1.0\nzlib,0.5,0.625\n",
}
CURVES = {"extraction_by_prefix": ("prefix", "share"), "extraction_tries": ("tries", "share")}
CURVES |= {"exposure": ("repetitions", "exposure"), "roc": ("fpr", "tpr")}
DRAWN = {
    "by_source": ("bits_per_byte", "source"),
    "by_length": ("bits_per_byte", "length"),
    "pass_at_k": ("pass_at_k", "benchmark"),
    "compared": ("difference", "metric"),
}


STAGES = {"evaluate": TABLES, "safety_audit": AUDIT}


@pytest.fixture(scope="module")
def workspace(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plots")
    shutil.copytree(repository / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local"))
    shutil.copyfile(repository / "dvc.yaml", root / "dvc.yaml")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for stage, tables in STAGES.items():
        folder = root / f"reports/{stage}/plots"
        folder.mkdir(parents=True)
        for name, text in tables.items():
            (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return root


def run_dvc(workspace: Path, *options: str) -> subprocess.CompletedProcess[str]:
    paths = [f"reports/{stage}/plots/{name}.csv" for stage, tables in STAGES.items() for name in tables]
    command = [sys.executable, "-m", "dvc", "plots", "show", *options, *paths]
    environment = {**os.environ, **NOWHERE, "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(command, cwd=workspace, env=environment, text=True, capture_output=True, check=False)


def show(workspace: Path, *options: str) -> str:
    """What DVC prints."""
    done = run_dvc(workspace, *options)
    assert done.returncode == 0, done.stderr
    assert LOADS_NOTHING not in done.stderr, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shown(workspace: Path) -> dict[str, Any]:
    """The filled-in Vega-Lite description of each picture, by the stem of its table."""
    said = json.loads(show(workspace, "--json"))
    assert "errors" not in said
    assert [name for name, found in said["data"].items() if not found] == []
    return {Path(name).stem: found[0]["content"] for name, found in said["data"].items()}


def test_each_table_is_drawn_from_all_its_rows(shown: dict[str, Any]) -> None:
    tables = TABLES | AUDIT
    assert shown.keys() == tables.keys()
    assert {f"{name}.csv" for name in AUDIT} == set(PLOT_FILES)
    for name, picture in shown.items():
        assert "<DVC_" not in json.dumps(picture)
        assert picture["$schema"].startswith("https://vega.github.io/schema/vega-lite/v5")
        assert len(picture["data"]["values"]) == tables[name].count("\n") - 1


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_has_a_line_per_series_its_intervals_and_the_value_without_effect(
    shown: dict[str, Any], name: str
) -> None:
    picture, (place, value) = shown[name], CURVES[name]
    interval, line, null = picture["layer"]
    assert (picture["encoding"]["x"]["field"], picture["encoding"]["x"]["scale"]["type"]) == (place, "log")
    assert picture["encoding"]["detail"]["field"] == line["encoding"]["strokeDash"]["field"] == "series"
    assert (interval["encoding"]["y"]["field"], interval["encoding"]["y2"]["field"]) == ("low", "high")
    assert (line["encoding"]["y"]["field"], null["encoding"]["y"]["field"]) == (value, "null")
    assert picture["encoding"]["x"]["title"] != place  # words, not the name of a column
    assert line["encoding"]["y"]["title"] != value
    assert {place, value} <= picture["data"]["values"][0].keys()


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_has_a_row_per_value_and_a_line_from_low_to_high(shown: dict[str, Any], name: str) -> None:
    picture, (value, row) = shown[name], DRAWN[name]
    interval, point, _ = picture["layer"]
    assert (picture["encoding"]["y"]["field"], picture["encoding"]["y"]["sort"]) == (row, None)
    assert (interval["mark"]["type"], point["mark"]["type"]) == ("rule", "point")
    assert (interval["encoding"]["x"]["field"], interval["encoding"]["x2"]["field"]) == ("low", "high")
    assert point["encoding"]["x"]["field"] == value
    assert {row, value, "low", "high"} <= picture["data"]["values"][0].keys()


def test_a_page_is_written_without_a_network(workspace: Path) -> None:
    """It loads Vega from a CDN when it is opened; the report draws the same pictures without it."""
    show(workspace, "--out", "drawn")
    page = (workspace / "drawn/index.html").read_text(encoding="utf-8")
    assert page.count("vegaEmbed(") == len(TABLES) + len(AUDIT)
    assert "b==1" in page
    own, control = tags_of(page), tags_of(page.replace(r"\u2039", "<").replace(r"\u203a", ">"))
    assert own.keys() == {"html", "head", "title", "style", "body", "div", "script"}
    assert own["script"] - len(TABLES) - len(AUDIT) == 3  # Vega, Vega-Lite and Vega-Embed
    assert control["img"] == 1  # with the plain brackets, the same page runs what was planted


def tags_of(page: str) -> Counter[str]:
    """How often a page has each element, as an HTML parser reads it."""
    found: Counter[str] = Counter()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found[tag] += 1

    Reader(convert_charrefs=False).feed(page)
    return found


def test_a_result_that_is_compared_with_nothing_is_no_error(workspace: Path) -> None:
    file = workspace / "reports/evaluate/plots/compared.csv"
    table = file.read_text(encoding="utf-8")
    file.write_text(TABLES["compared"].splitlines()[0] + "\n", encoding="utf-8")
    try:
        said = json.loads(show(workspace, "--json"))
    finally:
        file.write_text(table, encoding="utf-8")  # the other tests share it
    assert "errors" not in said
    assert said["data"]["reports/evaluate/plots/compared.csv"] == []
