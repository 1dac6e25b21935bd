"""`codex-ml ledger`: its output, and the files that it writes."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import whole_app
from codex_ml.cli.param_rules import load_params
from codex_ml.core.paths import SPLIT_LEDGER
from codex_ml.split.ledger.folder import NEW, read_ledger

from .test_splits_end_to_end import corpus, main_of, splits, where, workspace  # noqa: F401


@pytest.fixture
def accepted(workspace, monkeypatch):  # noqa: F811
    """A workspace whose first split is binding; the current folder."""
    monkeypatch.setattr("codex_ml.cli.ledger.go_to_top", lambda: Path.cwd())
    splits([corpus(3, 60)])
    assert run("accept")[0] == 0
    return workspace


def run(*arguments):
    result = CliRunner().invoke(whole_app(), ["ledger", *arguments])
    return result.exit_code, result.stdout, result.stderr


def ledger():
    return read_ledger(SPLIT_LEDGER, salt=load_params().split.salt)


def test_accept_reports_its_changes_and_the_next_commands(accepted):
    size = len((SPLIT_LEDGER / "all.txt").read_bytes().splitlines()) - 1
    code, out, _ = run("accept")
    steps = ["next: git add data/split_ledger", "      dvc repro"]
    assert (code, out.splitlines()) == (0, [f"ledger: 0 new lines; data/split_ledger holds {size}", *steps])
    NEW.unlink()
    assert run("accept")[::2] == (2, f"error: {NEW} is missing; `dvc repro split` makes it\n")


def test_accept_and_show_count_documents_and_not_the_headers(workspace, monkeypatch):  # noqa: F811
    monkeypatch.setattr("codex_ml.cli.ledger.go_to_top", lambda: Path.cwd())
    splits([corpus(3, 20)])
    rows = [line for line in NEW.read_text().splitlines() if not line.startswith("#")]
    assert run("accept")[1].startswith(f"ledger: {len(rows)} new lines; data/split_ledger holds {len(rows)}\n")
    assert json.loads(run("show", "--json")[1])["lines"] == len(rows)


def test_a_split_after_accept_adds_no_line_and_moves_nothing(accepted):
    before = where()
    splits([corpus(3, 60)])
    assert where() == before
    assert len(NEW.read_bytes().splitlines()) == 2


def test_show_counts_documents_and_tombstones(accepted):
    found = json.loads(run("show", "--json")[1])
    assert found["contents"]["train"] + found["contents"]["val"] + found["contents"]["test"] == len(where())
    assert found["contradictory"] == {"contents": 0, "units": 0} and found["forgotten"] == 0
    assert run("show")[1].startswith(f"lines          {found['lines']}\ncontents       train ")


def one_in_test():
    known = ledger()
    lines = (SPLIT_LEDGER / "all.txt").read_text().splitlines()[1:]
    return next(line[:16] for line in lines if line.endswith("T")), known


def test_forget_by_content_keeps_the_lines_but_they_do_not_count(accepted):
    content, before = one_in_test()
    whole = (SPLIT_LEDGER / "all.txt").read_bytes()
    code, out, _ = run("forget", content, "--reason", "the author asked for it", "--dry-run")
    assert code == 0 and out.startswith(f"{content}  test\nbefore: train ") and out.endswith("(--dry-run)\n")
    assert not (SPLIT_LEDGER / "forgotten.txt").exists()
    code, out, _ = run("forget", content, "--reason", "the author asked for it", "--json")
    found = json.loads(out)
    assert found["forgotten"] == {content: "test"} and found["before"]["test"] - found["after"]["test"] == 1
    assert (SPLIT_LEDGER / "forgotten.txt").read_text() == f"{content} the author asked for it\n"
    assert (SPLIT_LEDGER / "all.txt").read_bytes() == whole
    assert len(ledger()) == len(before) - 1 and ledger().size == before.size
    splits([corpus(3, 60)])
    assert run("accept")[1].startswith("ledger: 0 new lines")


def test_forget_by_id_and_by_path_finds_the_documents(accepted):
    documents = [json.loads(line) for line in Path("data/splits/dropped.ndjson").read_text().splitlines()]
    found = json.loads(run("forget", documents[0]["id"], "--reason", "x", "--dry-run", "--json")[1])["forgotten"]
    assert len(found) == 1
    files = {"kind": "files", "glob": "**/*.jsonl", "licence": "MIT"}
    splits([[one] for one in corpus(5, 40, copies=0)], source=files)
    assert run("accept")[0] == 0
    paths = pq.read_table("data/splits/val.parquet").column("path").to_pylist()
    found = json.loads(run("forget", *paths, "--reason", "x", "--json")[1])["forgotten"]
    assert list(found.values()) == ["val"] * len(paths) and paths[0].endswith(".jsonl")


def test_forget_gone_forgets_contents_that_the_corpus_does_not_hold(accepted):
    kept = len(ledger())
    assert json.loads(run("forget", "--gone", "--reason", "x", "--json")[1])["forgotten"] == {}
    splits([corpus(3, 60)[:50]])
    found = json.loads(run("forget", "--gone", "--reason", "left the corpus", "--json")[1])["forgotten"]
    assert 0 < len(found) <= 10
    assert len(ledger()) == kept - len(found)
    assert json.loads(run("forget", "--gone", "--reason", "x", "--json")[1])["forgotten"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--reason", "x"), "give either --gone, or the ids, paths or contents to forget"),
        (("a", "--gone", "--reason", "x"), "give either --gone, or the ids, paths or contents to forget"),
        (("no-such-thing", "--reason", "x"), "no-such-thing is neither the id nor the path of a document in "),
        (("", "--reason", "x"), "an empty name names no document"),
        (("A" * 16, "--reason", "x"), f"{'A' * 16} is neither the id nor the path of a document in "),
        (("--gone", "--reason", " "), "--reason must be one line of 1 to 200 characters"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(accepted, arguments, message):
    code, _, errors = run("forget", *arguments)
    assert (code, errors.count("\n")) == (2, 1)
    assert errors.startswith(f"error: {message}")
    assert [path.name for path in SPLIT_LEDGER.iterdir()] == ["all.txt"]


def test_convert_replaces_the_former_file(workspace, monkeypatch):  # noqa: F811
    monkeypatch.setattr("codex_ml.cli.ledger.go_to_top", lambda: Path.cwd())
    shutil.rmtree(SPLIT_LEDGER)
    Path("data/split_ledger.ndjson").touch()
    assert run("accept")[2] == "error: data/split_ledger.ndjson is a ledger of the former form; run `codex-ml ledger convert`; it moves no document\n"  # fmt: skip
    code, out, _ = run("convert")
    assert (code, out.splitlines()[0]) == (0, "ledger: 0 new lines; data/split_ledger holds 0")
    assert out.splitlines()[1] == "next: git rm --cached --quiet --ignore-unmatch data/split_ledger.ndjson"
    assert not Path("data/split_ledger.ndjson").exists()
    assert run("convert")[0] == 2


def test_the_documents_of_a_contradiction_are_named(accepted, caplog):
    """Another history had the text of one test document in train, and a near-copy of another one."""
    assert Path("data/splits/contradictions.ndjson").read_bytes() == b""
    lines = (SPLIT_LEDGER / "all.txt").read_text().splitlines()
    line = next(line for line in lines if line.endswith("T"))
    (SPLIT_LEDGER / "other.txt").write_text(f"{lines[0]}\n{line[:-1]}R\n")
    before = where()
    splits([corpus(3, 60)])
    assert where() == before
    [named] = [json.loads(line) for line in Path("data/splits/contradictions.ndjson").read_text().splitlines()]
    assert named.pop("id") and named.pop("source") == "shards" and named.pop("path") == ""
    assert named == {
        "contradiction": "its content is in lines of several splits",
        "answers": ["test", "train"],
        "result": "test",
    }
    about = json.loads(Path("reports/split/manifest.json").read_text())["ledger"]
    assert (about["lines"], about["contradictions"], len(about["first"])) == (len(lines), 1, 1)
    assert "the ledger gives two answers for 1 documents; the cleaner split counts" in caplog.text
