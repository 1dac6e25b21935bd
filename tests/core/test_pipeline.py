"""dvc.yaml and dvc.lock as data, and the imports of a script as they are in its source."""

import shutil
import subprocess
from pathlib import Path

import pytest

from codex_ml.core.errors import UserError
from codex_ml.core.import_graph import ImportGraph, params_declared  # fmt: skip
from codex_ml.core.pipeline import (  # fmt: skip
    load_lock,
    load_pipeline,
    parse_lock,
    parse_pipeline,
    producers_of,
    remedy,
)


def test_every_form_of_an_output_is_read():
    stages = {
        "a": {
            "cmd": "x",
            "outs": ["o", {"p": {"cache": False}}, {"q": None}],
            "metrics": [{"m": {"cache": False}}],
            "plots": ["l"],
        },
        "b": {"cmd": "y", "deps": ["d.txt", "stages/c.py"], "params": ["seed"], "desc": "B"},
    }
    a, b = parse_pipeline({"stages": stages}, "dvc.yaml").values()
    assert a.outs == ("o", "p", "q", "m", "l")
    assert (a.uncached, a.plain_uncached) == ({"p", "m"}, {"p"})
    assert (a.deps, a.params, a.desc, a.script) == ((), (), "", "stages/a.py")
    assert (b.data, b.code, b.params, b.desc) == (("d.txt",), ("stages/c.py",), ("seed",), "B")


def test_git_ignores_what_lies_in_the_cache_and_nothing_that_lies_in_git(repository, tmp_path, monkeypatch):
    """DVC adds what Git does not ignore to .gitignore files of its own, and a metric that Git ignores is in no commit."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(repository / ".gitignore", ".gitignore")
    subprocess.run(["git", "init", "-q"], check=True)
    specs = load_pipeline(repository / "dvc.yaml").values()
    kept = {out for spec in specs for out in spec.uncached}
    everything = {out for spec in specs for out in spec.outs}
    for out in everything:
        (tmp_path / out).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / out).touch() if Path(out).suffix else (tmp_path / out).mkdir()
    names = "\0".join(sorted(everything))
    done = subprocess.run(
        ["git", "check-ignore", "-z", "--stdin"], input=names, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split("\0")) - {""} == everything - kept
    assert "reports/train/plots" in kept
    assert "reports/train/metrics.json" in kept


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "dvc.yaml: expected a mapping `stages:`"),
        ({}, "dvc.yaml: expected a mapping `stages:`"),
        ({"stages": {}}, "dvc.yaml: expected a mapping `stages:`"),
        ({"stages": {"a": None}}, "dvc.yaml: stage a needs a `cmd` that is one string"),
        ({"stages": {"a": {"cmd": ["x", "y"]}}}, "dvc.yaml: stage a needs a `cmd` that is one string"),
        ({"stages": {"a": {"cmd": "x", "deps": [""]}}}, "dvc.yaml: deps of stage a: expected strings, found ''"),
        (
            {"stages": {"a": {"cmd": "x", "outs": [""]}}},
            "dvc.yaml: outs of stage a: expected a path, or a path with a mapping, found ''",
        ),
        ({"stages": {1: {"cmd": "x"}}}, "dvc.yaml: the name of a stage must be a string, found 1"),
        ({"stages": {"a": {"cmd": "x", "deps": "d"}}}, "dvc.yaml: deps of stage a: expected a list, found 'd'"),
        (
            {"stages": {"a": {"cmd": "x", "params": [{"o.yaml": None}]}}},
            "dvc.yaml: params of stage a: expected strings, found {'o.yaml': None}",
        ),
        (
            {"stages": {"a": {"cmd": "x", "outs": [{}]}}},
            "dvc.yaml: outs of stage a: expected a path, or a path with a mapping, found {}",
        ),
        (
            {"stages": {"a": {"cmd": "x", "outs": [{"o": 1}]}}},
            "dvc.yaml: outs of stage a: expected a path, or a path with a mapping, found {'o': 1}",
        ),
        (
            {"stages": {"a": {"cmd": "x", "outs": [None]}}},
            "dvc.yaml: outs of stage a: expected a path, or a path with a mapping, found None",
        ),
    ],
)
def test_a_pipeline_of_another_shape_is_refused(document, message):
    with pytest.raises(UserError) as error:
        parse_pipeline(document, "dvc.yaml")
    assert str(error.value) == message


MEND = "; bring back the committed one with `git checkout dvc.lock`, or delete it; then run `dvc repro`"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (text, "dvc.lock: expected `schema: '2.0'` and a mapping `stages:`")
            for text in ("[]", "{}", "stages: 1", "schema: '1.0'\nstages: {}")
        ),
        ("stages: {a: 1}", "dvc.lock: stage a has no `cmd`"),
        ("stages: {a: {cmd: [x]}}", "dvc.lock: stage a has no `cmd`"),
        ("stages: {a: {cmd: x, params: 1}}", "dvc.lock: stage a: `params` do not have the form that DVC writes"),
        (
            "stages: {a: {cmd: x, params: {params.yaml: [1]}}}",
            "dvc.lock: stage a: `params` do not have the form that DVC writes",
        ),
        *(
            (
                f"stages: {{a: {{cmd: x, {kind}: {value}}}}}",
                f"dvc.lock: stage a: expected `{kind}` to be a list of `path`, `md5` and `size`, as DVC writes it",
            )
            for kind in ("deps", "outs")
            for value in ("1", "null", "{}", "[x]", "[{path: x}]", "[{md5: x}]", "[{path: x, md5: 1}]")
        ),
    ],
)
def test_a_lock_of_another_shape_is_refused(text, message):
    with pytest.raises(UserError) as error:
        parse_lock(f"schema: '2.0'\n{text}" if text.startswith("stages") else text)
    assert str(error.value) == message + MEND


@pytest.mark.parametrize("damage", [b"schema: '2.0'\nstages: {} # \xff\n", None])
def test_a_lock_that_is_not_text_is_refused_with_a_remedy(tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").mkdir() if damage is None else (tmp_path / "dvc.lock").write_bytes(damage)
    with pytest.raises(UserError) as error:
        load_lock()
    assert str(error.value).startswith("dvc.lock is not ")
    assert str(error.value).endswith(MEND)


def test_a_missing_lock_is_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^dvc\.lock is missing; run `make repro` first$"):
        load_lock()


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("data/splits", "split"),
        ("data/splits/train.parquet", "split"),
        ("data/raw", "fetch"),
        ("models/model/model.safetensors", "train"),
        ("data/sample.lock", None),
        ("data/split", None),
        ("models/tokenizer2", None),
    ],
)
def test_the_producer_of_a_path(repository, path, stage):
    found = producers_of(path, load_pipeline(repository / "dvc.yaml"))
    assert [spec.name for spec in found][:1] == ([stage] if stage else [])


@pytest.fixture
def library(tmp_path, monkeypatch):
    files = {
        "stages/s.py": "from codex_ml.modeling import rows as pack\nmatch x:\n  case 1:\n    try:\n      pass\n"
        "    except E:\n      with y:\n        import codex_ml.core.io as x, os\n",
        "src/codex_ml/__init__.py": "",
        "src/codex_ml/core/io.py": "from codex_ml.core.errors import E\nfrom . import nothing\nfrom numpy import codex_ml\n",
        "src/codex_ml/core/errors.py": "import codex_ml.core.io\n",
        "src/codex_ml/unused.py": "",
        "src/codex_ml/modeling/__init__.py": "",
        "src/codex_ml/modeling/rows.py": "",
        "src/codex_ml/data/other.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_imports_are_found_inside_functions_and_through_modules(library):
    imports = ImportGraph(library)
    assert imports.modules(Path("stages/s.py")) == {
        "src/codex_ml/__init__.py", "src/codex_ml/modeling/__init__.py", "src/codex_ml/modeling/rows.py",
        "src/codex_ml/core/io.py", "src/codex_ml/core/errors.py",
    }  # fmt: skip
    assert imports.folders(Path("stages/s.py")) == {"src/codex_ml/core", "src/codex_ml/modeling"}


def test_a_script_that_is_not_python_is_reported_with_its_line(library):
    (library / "stages/s.py").write_text("a = 1\nb = = 2\n")
    with pytest.raises(UserError, match=r"s\.py:2: not Python: invalid syntax; `git diff .*s\.py` shows"):
        ImportGraph(library).modules(Path("stages/s.py"))


def test_the_sections_of_a_stage_are_the_fields_of_its_params(tmp_path):
    (tmp_path / "s.py").write_text(
        "class Params(Section):\n    seed: Seed = 1\n    train: Train\nclass Other:\n    model: int\n"
    )
    assert params_declared(tmp_path / "s.py") == {"train", "seed"}


REPRO = {
    "models/tokenizer/tokenizer.json": "`dvc repro tokenizer` makes it",
    "models/model/tokenizer.json": "`dvc repro train` makes it",
    "data/splits/train.parquet": "`dvc repro split` makes it",
    "data/raw/sample/a.whl": "`dvc repro fetch` makes it",
    "models/base/t/tokenizer.json": "otherwise",
    "data/raw/a.whl": "otherwise",
    "data/policy.yaml": "otherwise",
    "/elsewhere/tokenizer.json": "otherwise",
}


@pytest.mark.parametrize("path", REPRO)
def test_advice_names_the_stage_that_writes_a_file_and_no_stage_for_other_files(workspace, monkeypatch, path):
    assert remedy(Path(path), "otherwise") == REPRO[path]
    assert remedy(Path.cwd() / path, "otherwise") == REPRO[path]
    monkeypatch.chdir("models")
    assert remedy(Path("..") / path, "otherwise") == REPRO[path]
    assert remedy(Path(path), "otherwise") == "otherwise"  # models/models/...


def test_without_a_pipeline_no_stage_is_named(tmp_path, monkeypatch, workspace):
    Path("dvc.yaml").write_text("stages: 1")
    assert remedy(Path("models/tokenizer"), "otherwise") == "otherwise"
    monkeypatch.chdir(tmp_path)
    assert remedy(Path("models/tokenizer"), "otherwise") == "otherwise"


def test_advice_in_messages_names_stages_and_folders_that_there_are(repository):
    """Every `dvc repro NAME` of the library is a stage; a message about a path of any place takes `remedy`."""
    import re

    stages = load_pipeline(repository / "dvc.yaml")
    found = []
    for file in sorted((repository / "src").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        found += [(file.name, name) for name in re.findall(r"`dvc repro (?:--\S+ )*([a-z_]+)`", text)]
    assert found
    assert {name for _, name in found} <= stages.keys()
