"""A parameter that names a missing thing gives one line with the present ones, before anything is written."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codex_ml.cli.checks.workspace import problems
from codex_ml.cli.param_rules import validate_params
from codex_ml.core.errors import UserError
from codex_ml.core.pipeline import load_pipeline
from codex_ml.core.stage import Stage

REPOSITORY = Path(__file__).parents[2]
FILES = ("app/main.py", "app/tests/test_main.py", "docs/guide.md", "node_modules/x.js")
"""What every container below holds."""
RECORD = {"text": "a text of a record", "customer": "c1", "id": "1", "lizenz": "MIT", "meta_key": "m"}
"""What every record below holds."""


@pytest.fixture
def project(workspace):
    """The workspace with sources of every kind, each of which names nothing wrong."""
    raw = workspace / "data/raw"
    for name in FILES:
        (raw / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / "folder" / name).write_text(f"# {name}\nvalue = 1\n")
    with zipfile.ZipFile(raw / "code.zip", "w") as archive:
        for name in FILES:
            archive.writestr(name, f"# {name}\nvalue = 1\n")
    with tarfile.open(raw / "code.tar", "w") as archive:
        for name in FILES:
            member = tarfile.TarInfo(name)
            member.size = 6
            archive.addfile(member, io.BytesIO(b"x = 1\n"))
    (raw / "notes.jsonl").write_text("".join(json.dumps({**RECORD, "id": str(n)}) + "\n" for n in range(30)))
    (raw / "table.csv").write_text("id,text,customer,empty\n1,a text,c1,\n2,another text,c2,\n")
    (raw / "table.tsv").write_text("id\ttext\tcustomer\n1\ta text\tc1\n")
    pq.write_table(pa.Table.from_pylist([RECORD]), raw / "rows.parquet")
    return workspace


def run(stage, params):
    """The main function of a stage script, in this process."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(f"names_{stage}", REPOSITORY / f"stages/{stage}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    declared = load_pipeline()[stage]
    sections = SimpleNamespace(**{section: getattr(params, section) for section in declared.params})
    module.main(Stage(declared, sections, params.runtime, {}))


def ingest(source):
    """Read one source."""
    params = {"fetch": {"sample": False}, "ingest": {"sources": [source]}, "runtime": {"workers": 1, "progress": "off"}}
    run("ingest", validate_params(params))


CONTAINERS = {"files": "data/raw/folder", "zip": "data/raw/code.zip", "tar": "data/raw/code.tar"}
GLOBS = [
    ({"glob": "**/*.pyy"}, "glob: '**/*.pyy' matches no file of"),
    ({"glob": "*.py"}, "glob: '*.py' matches no file of"),  # below folders only
    ({"glob": "App/**"}, "glob: 'App/**' matches no file of"),
    ({"include": ["**/*.markdown"]}, "include: '**/*.markdown' matches no file of"),
    ({"include": ["**/*.md", "doc/**"]}, "include: 'doc/**' matches no file of"),
    ({"exclude": ["test/**"]}, "exclude: 'test/**' matches no file of"),
    ({"exclude": ["**/tests", "vendor"]}, "exclude: 'vendor' matches no file of"),
]


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize(("settings", "message"), GLOBS, ids=[str(settings) for settings, _ in GLOBS])
def test_a_glob_that_matches_nothing_is_named(project, kind, settings, message):
    with pytest.raises(UserError) as error:
        ingest({"kind": kind, "path": CONTAINERS[kind], "licence": "MIT", **settings})
    assert str(error.value).startswith(f"ingest.sources.0.{message} {CONTAINERS[kind]}; ")
    assert "\n" not in str(error.value)
    assert not (project / "data/corpus").exists()


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"glob": "app/**", "exclude": ["**/tests/**"]},
        {"include": ["docs/*.md"], "exclude": ["node_modules"]},  # what no glob asks for may be excluded
        {"glob": "**/*.md"},
        {"include": ["**/*.js"], "exclude": ["app/tests", "app/tests/test_main.py"]},  # one lies in the other
    ],
)
def test_globs_that_match_are_read(project, kind, settings):
    ingest({"kind": kind, "path": CONTAINERS[kind], "licence": "MIT", **settings})
    assert (project / "data/corpus/documents.parquet").is_file()


def test_a_default_glob_need_not_match_beside_another(project):
    (project / "data/raw/prose").mkdir()
    (project / "data/raw/prose/a.md").write_text("words\n")
    ingest({"kind": "files", "path": "data/raw/prose", "include": ["**/*.md"]})
    with pytest.raises(UserError, match=r"^ingest\.sources\.0\.glob: '\*\*/\*\.py' matches no file of data/raw/prose"):
        ingest({"kind": "files", "path": "data/raw/prose"})


def test_results_of_several_workers_are_joined(project):
    for number in range(3):
        with zipfile.ZipFile(project / f"data/raw/part{number}.zip", "w") as archive:
            archive.writestr(f"only{number}/a.py", "x = 1\n")
    source = {
        "kind": "zip",
        "path": "data/raw/part*.zip",
        "glob": "only0/*.py",
        "include": ["only1/*.py", "only2/*.py"],
    }
    params = {"fetch": {"sample": False}, "ingest": {"sources": [source]}, "runtime": {"workers": 2, "progress": "off"}}
    run("ingest", validate_params(params))
    source["exclude"] = ["only3"]
    with pytest.raises(UserError, match="exclude: 'only3' matches no file"):
        run("ingest", validate_params(params))


TABLES = {
    "jsonl": "data/raw/notes.jsonl", "csv": "data/raw/table.csv", "tsv": "data/raw/table.tsv",
    "parquet": "data/raw/rows.parquet",
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("field", ["id", "group", "licence", "language", "tools", "prompt", "messages"])
def test_a_field_that_no_record_has_is_named(project, kind, field):
    with pytest.raises(UserError) as error:
        ingest({"kind": kind, "path": TABLES[kind], "fields": {field: "custmer"}})
    message = f"ingest.sources.0.fields.{field}: no record of {TABLES[kind]} has 'custmer'; did you mean customer?"
    assert str(error.value) == message
    assert not (project / "data/corpus").exists()
    with pytest.raises(UserError, match=r"; its fields are .*customer.*text"):
        ingest({"kind": kind, "path": TABLES[kind], "fields": {field: "zzz"}})


@pytest.mark.parametrize("kind", TABLES)
def test_fields_that_a_record_has_are_read(project, kind):
    ingest({"kind": kind, "path": TABLES[kind], "fields": {"group": "customer", "text": "text", "tools": "tools"}})


def test_a_field_of_the_last_record_and_an_empty_column_exist(project):
    with (project / "data/raw/notes.jsonl").open("a") as lines:
        lines.write(json.dumps({"text": "the last one", "rare": "x"}) + "\n")
    ingest({"kind": "jsonl", "path": TABLES["jsonl"], "fields": {"group": "rare"}})
    ingest({"kind": "csv", "path": TABLES["csv"], "fields": {"group": "empty"}})


def test_a_field_after_thousands_of_others_exists(project):
    with (project / "data/raw/many.jsonl").open("w") as lines:
        for number in range(1500):
            lines.write(json.dumps({"text": f"text {number}", f"field{number}": 1}) + "\n")
    ingest({"kind": "jsonl", "path": "data/raw/many.jsonl", "fields": {"language": "language", "group": "field1499"}})


SPLIT = {"val": 0.2, "test": 0.2, "quality": {"min_alphanumeric_share": None}}


@pytest.fixture
def corpus(workspace):
    lines = [
        {
            "id": str(n),
            "text": " ".join(f"w{n}x{k}" for k in range(30)),
            "licence": "MIT",
            "team": f"t{n % 3}",
            "nothing": None,
        }
        for n in range(40)
    ]
    (workspace / "data/raw/notes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ingest({"kind": "jsonl", "path": "data/raw/notes.jsonl"})
    return workspace


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stratify": "nonsense"}, "split.stratify: 'nonsense' is in no document; present: language, licence, nothing, source, team"),
        ({"stratify": "langauge"}, "split.stratify: 'langauge' is in no document; did you mean language?"),
        ({"stratify": "Team"}, "split.stratify: 'Team' is in no document; did you mean team?"),
        ({"stratify": "group"}, "split.stratify: 'group' is in no document; present: language"),
        ({"stratify": "nothing"}, "split.stratify: 'nothing' is empty in every document; present: language, licence, source, team"),
        ({"stratify": "text"}, "split.stratify: 'text' is in no document"),
        (
            {"quality": {"languages": {"pyhton": {"max_lines": 9}}}},
            "split.quality.languages: no document is in 'pyhton'; present: text; or remove it",
        ),
        ({"licences": ["MIT", "Apache 2.0"]}, "split.licences: 'Apache 2.0' is not an SPDX licence, so no document is under it; did you mean Apache-2.0?"),
        ({"licences": ["proprietary"]}, "split.licences: 'proprietary' is not an SPDX licence"),
        ({"licences": ["MIT OR ISC"]}, "split.licences: MIT OR ISC combines licences"),
        ({"benchmarks": [{"path": "data/benchmarks/none.jsonl"}]}, "data/benchmarks/none.jsonl"),
    ],
)  # fmt: skip
def test_a_name_of_split_that_no_document_has_is_refused(corpus, settings, message):
    params = validate_params({"split": {**SPLIT, **settings}, "runtime": {"workers": 1, "progress": "off"}})
    with pytest.raises(UserError) as error:
        run("split", params)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (corpus / "data/splits").exists()
    assert [path for path in (corpus / "data").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("field", ["language", "licence", "source", "team"])
def test_an_existing_stratum_is_accepted(corpus, field):
    languages = {"Text": {"max_line_length": None, "max_mean_line_length": None}}
    quality = {**SPLIT["quality"], "languages": languages}
    run(
        "split",
        validate_params({"split": {**SPLIT, "stratify": field, "quality": quality}, "runtime": {"progress": "off"}}),
    )


@pytest.mark.parametrize(
    ("unknown", "licence", "ways"),
    [
        ("drop", "unknown", r"40 licence unknown\); state the licence in ingest\.sources .*LicenseRef-NAME.*or set split\.unknown_licence: keep$"),
        ("drop", "GPL-3.0-only", r"40 licence not allowed\); list their licence in split\.licences$"),
        ("keep", "LicenseRef-Acme", r"40 licence not allowed\); list their licence"),
    ],
)  # fmt: skip
def test_if_no_document_passed_the_message_says_what_to_change(corpus, unknown, licence, ways):
    lines = [json.loads(line) for line in Path("data/raw/notes.jsonl").read_text().splitlines()]
    Path("data/raw/notes.jsonl").write_text("".join(json.dumps({**line, "licence": licence}) + "\n" for line in lines))
    ingest({"kind": "jsonl", "path": "data/raw/notes.jsonl"})
    with pytest.raises(UserError, match=ways):
        run("split", validate_params({"split": {**SPLIT, "unknown_licence": unknown}, "runtime": {"progress": "off"}}))


def test_a_licence_of_your_own_passes_if_it_is_listed(corpus):
    """The usual case: private code whose licence has a name of its own."""
    lines = [json.loads(line) for line in Path("data/raw/notes.jsonl").read_text().splitlines()]
    Path("data/raw/notes.jsonl").write_text("".join(json.dumps({**line, "licence": ""}) + "\n" for line in lines))
    ingest({"kind": "jsonl", "path": "data/raw/notes.jsonl", "licence": "LicenseRef-Acme"})
    split = {**SPLIT, "licences": ["licenseref-acme"]}
    run("split", validate_params({"split": split, "runtime": {"progress": "off"}}))
    manifest = json.loads(Path("reports/split/manifest.json").read_text())
    assert '"LicenseRef-Acme": ' in json.dumps(manifest)


SOURCE = {"kind": "jsonl", "path": "data/raw/notes.jsonl"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": {"licences": ["BSD 3"]}}, r"params\.yaml: split\.licences: 'BSD 3' is not an SPDX licence, .*BSD-3"),
        ({"ingest": {"sources": [{**SOURCE, "licence": "Apache 2"}]}}, r"params\.yaml: ingest\.sources\.0\.licence: 'Apache 2' is not an SPDX"),
        ({"ingest": {"sources": [{**SOURCE, "path": "data/raw/*.jsnl"}]}}, r"ingest\.sources\.0\.path data/raw/\*\.jsnl does not exist"),
        ({"ingest": {"sources": [{**SOURCE, "path": "data/raw/note.jsonl"}]}}, r"ingest\.sources\.0\.path data/raw/note\.jsonl does not exist"),
    ],
)  # fmt: skip
def test_check_finds_what_the_parameters_alone_show(project, changes, message):
    params = validate_params({"fetch": {"sample": False}, "ingest": {"sources": [SOURCE]}, **changes})
    assert any(re.search(message, problem) for problem in problems(params, load_pipeline()))


def test_check_accepts_a_glob_that_matches_and_licences_of_your_own(project):
    sources = [{**SOURCE, "path": "data/raw/*.jsonl", "licence": "LicenseRef-a OR MIT"}]
    params = {"fetch": {"sample": False}, "ingest": {"sources": sources}, "split": {"licences": ["LicenseRef-a"]}}
    found = list(problems(validate_params(params), load_pipeline()))
    assert not [problem for problem in found if "ingest" in problem or "licences" in problem]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": {"fold": 5}}, "split.fold has no effect with split.folds 0; remove it, or write 0, its default"),
        ({"split": {"contaminated": "report"}}, "split.contaminated has no effect with split.benchmarks []"),
        ({"pack": {"canaries": {"plant": "never", "each": [3, 3, 3]}}}, "pack.canaries.each has no effect with pack.canaries.plant never"),
        ({"pack": {"canaries": {"plant": "never", "controls": 3}}}, "pack.canaries.controls has no effect"),
        ({"pack": {"canaries": {"plant": "never", "design": "unlikely"}}}, "pack.canaries.design has no effect"),
        ({"model": {"lora": {"targets": ["q_proj"]}}}, "model.lora.targets has no effect with model.lora.rank 0; remove it, or write [], its default"),
        ({"model": {"lora": {"alpha": 8}}}, "model.lora.alpha has no effect with model.lora.rank 0"),
        ({"model": {"lora": {"dora": True}}}, "model.lora.dora has no effect with model.lora.rank 0; remove it, or write false"),
        ({"train": {"decay_steps": 0.5}}, "train.decay_steps has no effect with train.schedule cosine; remove it, or write 0.2"),
        ({"train": {"schedule": "constant", "min_lr_ratio": 0.5}}, "train.min_lr_ratio has no effect with train.schedule constant"),
        ({"train": {"early_stopping": {"min_delta": 0.1}}}, "train.early_stopping.min_delta has no effect with train.early_stopping.patience null"),
        ({"model": {"path": "models/base/x", "layers": 3}}, "model.layers has no effect with model.path, because that model has its own; write null"),
        ({"model": {"architecture": "gpt2", "kv_heads": 2}}, "model.kv_heads: gpt2 cannot share heads of keys and values; use 0"),
        ({"ingest": {"sources": [{**SOURCE, "revision": "v1"}]}}, "ingest.sources.0.revision has no effect with kind jsonl"),
        ({"ingest": {"sources": [{**SOURCE, "glob": "**/*.md"}]}}, "ingest.sources.0.glob has no effect with kind jsonl"),
        ({"ingest": {"sources": [{**SOURCE, "exclude": ["a"]}]}}, "ingest.sources.0.exclude has no effect with kind jsonl"),
        ({"ingest": {"sources": [{**SOURCE, "group": "folder"}]}}, "ingest.sources.0.group has no effect with kind jsonl"),
        ({"ingest": {"sources": [{"kind": "zip", "path": "data/raw/a.zip", "fields": {"text": "b"}}]}}, "ingest.sources.0.fields has no effect with kind zip"),
        ({"ingest": {"sources": [{"kind": "zip", "path": "data/raw/a.zip", "gitignore": False}]}}, "ingest.sources.0.gitignore has no effect with kind zip"),
        ({"ingest": {"sources": [{**SOURCE, "max_bad_records": 5}]}}, "ingest.sources.0.max_bad_records has no effect with bad_records fail"),
    ],
)  # fmt: skip
def test_a_value_without_effect_is_refused(changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        validate_params(changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_every_default_may_be_written_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    validate_params({**validate_params({}).model_dump(mode="json")})
