"""Conflict markers of a merge: every reader of our files names them, the hook refuses them, and prose is left alone."""

import json
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from typer.testing import CliRunner

from codex_ml.cli import hooks
from codex_ml.cli.checks.hash_chain import verified_links
from codex_ml.cli.checks.workspace import check_workspace
from codex_ml.cli.history.stage_chain import TrackedTexts
from codex_ml.cli.param_rules import load_params
from codex_ml.core.conflicts import MARKERS, conflict_line, conflicts
from codex_ml.core.dvcignore import patterns_for
from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.core.import_graph import ImportGraph
from codex_ml.core.io import read_json
from codex_ml.core.object_lines import object_lines
from codex_ml.core.packages import locked_versions
from codex_ml.core.pipeline import load_lock, load_pipeline
from codex_ml.core.plugin_lock import locked_names
from codex_ml.core.record import read_record
from codex_ml.core.yaml import read_yaml
from codex_ml.fetch.pins import read_pins
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers.csv_tables import plan_table
from codex_ml.ingest.readers.json_lines import LinesTask
from codex_ml.ingest.readers.tasks import Context
from codex_ml.policy.rules import load_policy
from codex_ml.tokenizer.foreign_files import read_foreign_json
from codex_ml.tokens.text_tokenizer import _load_backend

CONFLICT = b"<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> other\n"
STYLES = {
    "merge": CONFLICT,
    "diff3": b"<<<<<<< ours\na: 1\n||||||| 1b2c3d4\na: 0\n=======\na: 2\n>>>>>>> theirs\n",
    "no names": b"<<<<<<<\n|||||||\n=======\n>>>>>>>\n",
    "only the begin": b"<<<<<<< Updated upstream\n",
    "only the base": b"||||||| Stash base\n",
    "only the middle": b"=======\n",
    "only the end": b">>>>>>> 0123abc (change (2))\n",
    "windows": CONFLICT.replace(b"\n", b"\r\n"),
}
INPUTS = ("data/policy.yaml", "data/redaction_key", "data/sample.lock", "models/presets.yaml")


def git(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    return subprocess.run(["git", *identity, *arguments], check=check, capture_output=True, text=True)


def found() -> str:
    with pytest.raises(UserError) as error:
        check_workspace()
    assert "\n" not in str(error.value)
    return str(error.value)


READERS = {
    "params.yaml": lambda: load_params(),
    "dvc.yaml": lambda: load_pipeline(),
    "dvc.lock": lambda: load_lock(),
    "data/raw/notes.jsonl.dvc": lambda: read_yaml(Path("data/raw/notes.jsonl.dvc")),
    "data/policy.yaml": lambda: load_policy(Path("data/policy.yaml")),
    "data/detectors.lock": lambda: locked_names("detectors", Path("data/detectors.lock")),
    "data/sample.lock": lambda: read_pins(Path("data/sample.lock")),
    "models/presets.yaml": lambda: load_params(),
    "models/base/tokenizer.json": lambda: read_foreign_json(Path("models/base/tokenizer.json"), 1 << 20),
    "models/tokenizer/tokenizer.json": lambda: _load_backend(Path("models/tokenizer/tokenizer.json")),
    "reports/split/metrics.json": lambda: read_json(Path("reports/split/metrics.json")),
    "reports/split/lineage.json": lambda: read_record("split"),
    "reports/train/lineage.json": lambda: TrackedTexts(None).record("train", ""),
    "data/benchmarks/questions.jsonl": lambda: list(
        object_lines(Path("data/benchmarks/questions.jsonl"), key="split.benchmarks")
    ),
    "requirements.lock": lambda: locked_versions(),
    ".dvcignore": lambda: patterns_for(PurePosixPath("data")),
    "stages/split.py": lambda: ImportGraph().modules(Path("stages/split.py")),
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", READERS)
def test_a_reader_names_the_file_the_line_and_what_to_do(workspace, name, style):
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.read_bytes().rstrip(b"\n") if file.exists() else b'{"first": "line"}'
    file.write_bytes(before + b"\n" + STYLES[style])
    with pytest.raises(UserError) as error:
        READERS[name]()
    message = str(error.value)
    assert message.startswith(f"{name}:{before.count(bytes([10])) + 2}: conflict markers of a merge; "), message
    assert "checkout" not in message
    assert "restore" not in message
    settled = name == "dvc.lock" or name.startswith("reports/")
    assert ("`codex-ml merge`" in message) == settled
    assert (f"`git add {name}`" in message) == (not settled)


def test_markers_between_braces_are_not_taken_for_values(workspace):
    """YAML reads `{<<<<<<< HEAD a: 1}` as a key: the markers must be seen first."""
    Path("params.yaml").write_text("report: {\n<<<<<<< HEAD\n  title: a,\n>>>>>>> other\n}\n")
    with pytest.raises(UserError, match=r"^params.yaml:2: conflict markers of a merge"):
        load_params()


def test_a_record_of_json_lines_that_is_a_marker_is_refused_by_that_name():
    context = Context(Source(kind="jsonl", path="data/raw/a.jsonl"), "data/raw/a.jsonl", 1000)
    data = b'{"text": "a"}\n' + CONFLICT + b'{"text": "=======\\n<<<<<<< not a marker"}\n'
    results = list(LinesTask(context, len(data), 1, data, 1000).read())
    reasons = [str(result.reason) for result in results if hasattr(result, "reason")]
    assert len([reason for reason in reasons if reason.startswith("conflict markers of a merge")]) == 3
    assert len(results) - len(reasons) == 2


@pytest.mark.parametrize("header", ["text", "text,id"])
def test_a_row_of_a_table_that_is_a_marker_is_not_a_document(header):
    """In a table of one column a marker would be a text; with a comma in its name it has as many cells as a row."""
    context = Context(Source(kind="csv", path="data/raw/a.csv"), "data/raw/a.csv", 1000)
    id_ = ",1" if "," in header else ""
    rows = [f"one{id_}", "<<<<<<< HEAD", f"two{id_}", "|||||||" + " base", ">>>>>>> 12ab (Two, three)", f"<b>{id_}"]
    data = f"{header}\n" + "".join(f"{row}\n" for row in rows)
    results = [
        result
        for task in plan_table(iter([data.encode()]), context, delimiter=",", limit=1000)
        for result in task.read()
    ]
    reasons = [result.reason for result in results if hasattr(result, "reason")]
    assert [result.text for result in results if not hasattr(result, "reason")] == ["one", "two", "<b>"]
    assert reasons == [MARKERS] * 3


@pytest.mark.parametrize(
    "name",
    [
        "params.yaml", "dvc.yaml", "dvc.lock", *INPUTS, "data/raw/notes.jsonl.dvc", "models/base/big.dvc", "own.dvc",
        "data/raw/.gitignore", "data/benchmarks/questions.jsonl", "reports/split/metrics.json", ".dvc/config",
        ".dvcignore", "requirements.lock", "torch.lock", ".gitattributes",
    ],
)  # fmt: skip
@pytest.mark.parametrize("style", ["merge", "diff3", "only the end"])
def test_check_names_every_file_of_the_project_that_a_merge_left_in_halves(workspace, name, style):
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.read_bytes() if file.exists() else b"first: line\n"
    file.write_bytes(before.rstrip(b"\n") + b"\n" + STYLES[style])
    git("init", "-q")
    git("add", "-Af")
    line = before.rstrip(b"\n").count(b"\n") + 2
    assert found().startswith(f"{name}:{line}: conflict markers of a merge; ")


def test_check_leaves_documents_about_git_alone(workspace):
    for name in ("data/raw/book.txt", "data/raw/deep/er/book.md"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(CONFLICT)
    Path("data/policy.yaml").write_bytes(Path("data/policy.yaml").read_bytes() + b"# =======\n")
    git("init", "-q")
    git("add", "-Af")
    listed = git("ls-files").stdout.splitlines()
    assert "data/raw/book.txt" in listed
    assert list(conflicts(listed)) == []


def test_verify_calls_them_a_finding(chain):
    chain.write("dvc.lock", (chain.folder / "dvc.lock").read_bytes() + b"\n" + CONFLICT)
    with pytest.raises(CheckFailed, match=r"^dvc.lock:2: conflict markers of a merge; `codex-ml merge`"):
        list(verified_links())


PROSE = {
    "heading.rst": b"Results\n=======\n\ntext\n",
    "heading.md": b"Results\n=======\n",
    "heading.py": b'"""Results\n=======\n"""\n',
    "heading.txt": b"=======\nResults\n=======\n",
    "longer.md": b"Longer than seven\n=================\n",
    "shift.c": b"x = a <<<<<<< b;\n  <<<<<<< indented\n<<<<<<<<<<<<<<< more than seven\n>>>>>>>>>>>>> 13\n",
    "arrows.txt": b"<<<<<<<\n>>>>>>>\n<<<<<<<-\n>>>>>>>-\n",
    "table.md": b"|||||||\n|||||||| a |\n||||||| a | b |\n",
    "mail.txt": b"> > > > > > > cited seven times\n",
    "binary.bin": b"\0\n" + CONFLICT,
    "data/raw/book.txt": CONFLICT,
    "data/raw/sub/git.py": CONFLICT,
    "patch.diff": b"+<<<<<<< HEAD\n-=======\n >>>>>>> other\n",
    "string.py": b"x = b'<<<<<<< HEAD\\n=======\\n'\n",
    "empty.txt": b"",
    "no end.json": b'{"a": "======="}',
}


def hook(*files: str) -> tuple[int, str]:
    result = CliRunner().invoke(hooks.app, ["conflicts", *files])
    return result.exit_code, result.stderr


@pytest.mark.parametrize("name", PROSE)
def test_the_hook_lets_prose_binaries_and_documents_pass(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(PROSE[name])
    assert hook(name) == (0, "")


@pytest.mark.parametrize("style", ["merge", "diff3", "windows", "only the begin", "only the base", "only the end"])
@pytest.mark.parametrize("name", ["a.md", "a.rst", "a.py", "Makefile", "a.txt", "data/raw/a.txt.dvc", "data/x.txt"])
def test_the_hook_refuses_a_half_settled_conflict_in_text(tmp_path, monkeypatch, name, style):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(b"Heading\n=======\n\n"[: None if name.endswith(("md", "rst")) else 0] + STYLES[style])
    code, errors = hook(name)
    assert code == 1
    line = 4 if name.endswith(("md", "rst")) else 1
    assert errors.startswith(f"{name}:{line}: conflict markers of a merge; keep the lines that you want of both sides")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("name", ["a.yaml", "a.json", "a.lock", "a.ndjson", "data/split_ledger/all.txt", "x.toml"])
def test_where_no_heading_can_be_a_forgotten_middle_is_found_too(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(b"first: line\n=======\nlast: line\n")
    assert hook(name)[1].startswith(f"{name}:2: conflict markers of a merge; ")


@pytest.mark.parametrize("style", ["merge", "diff3", "zdiff3"])
@pytest.mark.parametrize("way", ["merge", "rebase", "cherry-pick", "stash", "checkout -m"])
def test_what_git_itself_leaves_is_found(tmp_path, monkeypatch, way, style):
    """Real conflicts of every command that makes them, in the three styles that Git knows."""
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    git("config", "merge.conflictStyle", style)

    def commit(text: str) -> None:
        Path("a.txt").write_text(text)
        git("add", "a.txt")
        git("commit", "-q", "-m", "change")

    commit("head\nold\ntail\n")
    git("branch", "other")
    commit("head\nours\ntail\n")
    if way in ("stash", "checkout -m"):
        git("checkout", "-q", "other")
        Path("a.txt").write_text("head\ntheirs\ntail\n")
        if way == "stash":
            git("stash")
        else:
            git("checkout", "-q", "-m", "main", check=False)
    else:
        git("checkout", "-q", "other")
        commit("head\ntheirs\ntail\n")
    if way == "stash":
        git("checkout", "-q", "main")
        git("stash", "pop", check=False)
    elif way == "cherry-pick":
        git("cherry-pick", "main", check=False)
    elif way != "checkout -m":
        git(way, "main", check=False)
    code, errors = hook("a.txt")
    assert (code, errors.startswith("a.txt:2: conflict markers of a merge; ")) == (1, True)


def test_a_marker_is_found_below_a_million_lines():
    assert conflict_line(b"0123456789abcdef\n" * 1_000_000 + b"<<<<<<< HEAD\n") == 1_000_001
    assert conflict_line(b"=" * 5_000_000) is None


def test_json_keeps_its_own_message_where_there_is_no_marker(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"a": 1}) + "}")
    with pytest.raises(UserError, match="is not valid JSON"):
        read_json(file)
