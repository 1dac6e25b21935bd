"""What docs/ claims is so."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise, product
from pathlib import Path

import pytest

from codex_ml.cli.param_rules import Params, validate_params
from codex_ml.core.config import TRACKERS
from codex_ml.core.sections import known_keys
from codex_ml.core.yaml import parse_yaml, read_yaml
from codex_ml.ingest.config import BUILT_IN as SOURCE_KINDS
from codex_ml.policy.nested import NestedCleaner
from codex_ml.policy.redact import redact
from codex_ml.policy.rules import load_policy, parse_policy
from codex_ml.policy.scan import Scanner
from codex_ml.safety_audit.audit_numbers import NUMBERS
from codex_ml.safety_audit.config import SIZES
from codex_ml.safety_audit.gate_evidence import smallest_samples, smallest_trials
from codex_ml.statistics.proportions import clopper_pearson
from codex_ml.tokenizer.config import BUILT_IN as TOKENIZER_KINDS
from codex_ml.train.config import Model, Train
from codex_ml.train.recipe import optimizer_plan

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))


def links(file):
    """(page, heading) of each link from a page to a page; the heading is "" if the link names none."""
    for page, _, heading in (
        link.partition("#") for link in re.findall(r"\]\(([^)\s:]+)\)", file.read_text(encoding="utf-8"))
    ):
        yield (file.parent / page).resolve() if page else file, heading


@pytest.mark.shipped
@pytest.mark.parametrize("file", [*DOCS, ROOT / "README.md"], ids=lambda file: file.name)
def test_links_lead_to_pages_and_headings_that_exist(file):
    for page, heading in links(file):
        titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert not heading or heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.shipped
def test_the_front_page_leads_to_every_page():
    assert {page for page, _ in links(ROOT / "README.md")} >= set(DOCS)


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.name)
def test_no_page_states_a_time_that_was_not_measured(file):
    text = " ".join(file.read_text(encoding="utf-8").split())
    assert not re.search(r"\b0(?:\.0+)? (?:seconds|minutes|hours)\b", text)


def test_every_kind_of_source_is_explained_and_no_other():
    rows = re.findall(r"^\| (`[a-z`, ]+`) \|", (ROOT / "docs/data.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(name.strip("` ") for row in rows for name in row.split(",")) == sorted(SOURCE_KINDS)


def test_every_tracker_and_gauge_is_explained_and_no_other():
    from codex_ml.train.endpoint import GAUGES

    text = (ROOT / "docs/tracking.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z]+)` \| `logs/train/([a-z]+)/`", text, re.MULTILINE)
    trackers = TRACKERS
    assert rows == [(name, name) for name in trackers]
    gauges = {f"codex_ml_{name}" for name, _ in GAUGES.values()} | {"codex_ml_gpu_memory_used_bytes"}
    assert set(re.findall(r"`(codex_ml_[a-z_]+)`", text)) == gauges


WITHOUT_YAML = {
    "commands.md",
    "environment.md",
    "plan.md",
    "setup.md",
    "smollm2_audit.md",
}  # pages that set no parameter


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.name)
def test_yaml_in_docs_is_valid(file, project, monkeypatch):
    monkeypatch.chdir(project)
    blocks = re.findall(r"```yaml\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL)
    assert bool(blocks) == (file.name not in WITHOUT_YAML)
    for text in blocks:
        validate_params(parse_yaml(text, file.name))


def experiments(text):
    """The values that each `dvc exp run` of a page sets, one mapping per experiment; "1,2" is a sweep."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    for command in re.findall(r"^dvc exp run .*$", blocks, re.MULTILINE):
        words = shlex.split(command, comments=True)
        knobs = [word.split("=", 1) for flag, word in pairwise(words) if flag in ("-S", "--set-param")]
        for values in product(*(value.split(",") for _, value in knobs)):
            yield dict(zip((key for key, _ in knobs), values, strict=True))


@pytest.mark.shipped
@pytest.mark.parametrize("file", [*DOCS, ROOT / "README.md"], ids=lambda file: file.name)
def test_params_yaml_allows_what_the_experiments_of_a_page_set(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    for values in experiments(file.read_text(encoding="utf-8")):
        params = read_yaml(ROOT / "params.yaml")
        for key, value in values.items():
            *sections, name = key.split(".")
            inner = params
            for section in sections:
                inner = inner[section]
            assert name in inner, key
            inner[name] = parse_yaml(f"value: {value}", file.name)["value"]
        validate_params(params)


def test_the_page_on_training_shows_a_sweep_of_both_rates():
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    rates = [(e["train.lr"], e["train.embedding_lr"]) for e in experiments(text) if "model.preset" in e]
    assert len(set(rates)) == 4


@pytest.mark.parametrize("width", [128, 768, 2048])
def test_the_page_on_training_states_the_factor_of_a_width(width):
    text = " ".join((ROOT / "docs/training.md").read_text(encoding="utf-8").split())
    plan = optimizer_plan(Model(hidden_size=width), Train(lr=1.0, embedding_lr=8.0))
    assert plan.embedding_lr == 8 * plan.lr
    assert f"by {f'{plan.lr:.2f}'.removesuffix('.00')} at {'width ' * (width == 128)}{width:,}" in text


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.name)
def test_keys_and_files_that_docs_name_exist(file):
    text = file.read_text(encoding="utf-8")
    keys = set(known_keys(Params))
    sections = {key.split(".")[0] for key in keys}
    named = {name for name in re.findall(r"`([a-z_]+\.[a-z_]+)[:`]", text) if name.split(".")[0] in sections}
    assert named or file.name in WITHOUT_YAML
    assert all(name in keys or any(key.startswith(name + ".") for key in keys) for name in named)
    for path in re.findall(r"`((?:data|docs)/[a-z_]+(?:\.[a-z]+)?)`", text):
        assert (ROOT / path).exists() or path in ("data/raw", "data/splits", "data/corpus", "data/packed"), path


def test_every_kind_of_tokenizer_is_explained_and_no_other():
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|", text, re.MULTILINE)
    assert sorted(re.findall(r"`([a-z_]+)`", " ".join(rows))) == sorted(TOKENIZER_KINDS)


def test_the_picture_of_the_house_shows_every_package_and_no_other():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    picture = re.search(r"```\n(faces.*?)```", text, re.DOTALL).group(1)
    lines = [
        line.split(maxsplit=1)[1] if not line.startswith(" ") else line.strip() for line in picture.split("\n") if line
    ]
    packages = {path.parent.name for path in (ROOT / "src/codex_ml").glob("*/__init__.py")}
    verbs = {path.stem for path in (ROOT / "stages").glob("*.py")}
    others = {line.split()[0] for line in lines if line.split()[0] in packages - verbs}
    drawn = next(set(line.split()) for line in lines if line.startswith("fetch"))
    assert drawn == verbs
    assert others | drawn == packages


@pytest.mark.parametrize("file", DOCS, ids=lambda file: file.name)
def test_a_file_of_the_library_that_a_page_names_exists(file):
    """Whole paths, and those below the package: `train/run.py`. Inventions of an example are named after it."""
    named = re.findall(r"`((?:src/|stages/|core/|[a-z_]+/)[a-z_/]+\.py)`", file.read_text(encoding="utf-8"))
    invented = [path for path in named if "shorten" in path or "mbox" in path]
    for path in sorted(set(named) - set(invented)):
        assert (ROOT / path).is_file() or (ROOT / "src/codex_ml" / path).is_file(), path
    assert file.name != "architecture.md" or len(set(named) - set(invented)) > 10


def test_the_page_on_the_audit_explains_every_number_and_no_other():
    text = (ROOT / "docs/audit.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z_]+\.[a-z_0-9]+)` \| (.+) \|$", text, re.MULTILINE) == list(NUMBERS.items())


@pytest.mark.shipped
def test_the_page_on_the_audit_gives_a_reason_for_every_gate_and_its_limit():
    text = (ROOT / "docs/audit.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \(`([a-z_]+\.[a-z_0-9]+)`\) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    gates = load_policy(ROOT / "data/policy.yaml").gates
    rows = [row for row in rows if row[1] in NUMBERS]
    assert [row[:3] for row in rows] == [(gate.title, gate.number, gate.text) for gate in gates]
    assert all(len(reason) > 9 for *_, reason in rows)


def test_the_page_on_the_audit_states_the_smallest_numbers_of_trials():
    text = (ROOT / "docs/audit.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d.]+) % \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    assert len(rows) == 4
    for limit, *trials in rows:
        smallest = [function(float(limit) / 100, 0.95) for function in (smallest_trials, smallest_samples)]
        assert smallest == [int(count.replace(",", "")) for count in trials]
    sizes = re.findall(r"^\|.*`safety_audit\.(windows|samples)`\) \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    for key, *counts in sizes:
        assert [getattr(SIZES[size], key) for size in ("small", "full")] == [int(c.replace(",", "")) for c in counts]
    assert [key for key, *_ in sizes] == ["windows", "samples"]
    assert f"ends at {clopper_pearson(0, 26).high:.0%}".replace("%", " %") in text
    assert f"none of 200 texts is 0 to {100 * clopper_pearson(0, 200).high:.1f} %" in text


VALUES = [
    "u8Kq2vXw" + "91LmZr4TbN6s",
    "pR3xV7nQ" + "52HdYc8WkJ4g",
    "zT6bM1fS" + "94GjLu7EvA2q",
    "wD5hC9yN" + "38PkRx6UaB1m",
]


@pytest.mark.shipped
def test_the_page_on_data_states_how_far_a_name_reaches():
    scanner = Scanner(load_policy(ROOT / "data/policy.yaml"))
    a, b, c, d = VALUES

    def kept(text):
        found = {text[finding.start : finding.end] for finding in scanner.scan(text)}
        return [value for value in VALUES if value in text and value not in found]

    assert kept(f"user,password\njo,{a}\njim,{b}\nann,{c}\nsue,{d}\n") == []
    assert (
        kept("".join(f"{value}\n" for value in ["id,a,b,c,d,password", *(f"1,n,n,n,n,{v}" for v in VALUES)])) == VALUES
    )
    assert kept(f'token = ["{a}", "{b}", "{c}"]\n') == []
    assert kept(f'token = ["short", "{b}"]\n') == [b]
    assert kept(f'token:\n  - "{a}"\n  - "{b}"\n') == []
    assert kept(f"token:\n  - {a}\n  - {b}\n") == []
    assert kept(f"TOKENS=({a} {b})\n") == [b]
    assert kept(f"user    token\njo      {a}\njim     {b}\n") == [a, b]
    assert scanner.scan("password = epzffedrppdf\n") == []
    cleaner = NestedCleaner(scanner)
    rows = [{"user": "jo", "password": value} for value in VALUES] + [{"tokens": VALUES}]
    cleaned = cleaner.clean(rows, lambda text, found: redact(text, found, b"a key of the test"))
    assert str(cleaned).count("<SECRET:") == 8 and not any(value in str(cleaned) for value in VALUES)


@pytest.mark.shipped
def test_the_page_on_data_adds_a_name_to_the_policy():
    page, policy = (ROOT / "docs/data.md").read_text(encoding="utf-8"), (ROOT / "data/policy.yaml").read_text("utf-8")
    line = re.search(r"^echo '(.+)' \| codex-ml policy try$", page, re.MULTILINE).group(1)
    added = policy.replace("\n  secret:\n    [", "\n  secret:\n    [geheimnis, ")
    assert Scanner(parse_policy(policy)).scan(line) == []
    assert [finding.rule for finding in Scanner(parse_policy(added)).scan(line)] == ["assigned-secret"]
