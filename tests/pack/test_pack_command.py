"""`codex-ml pack show`: the rows of step N as text."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from codex_ml.cli import main as cli
from codex_ml.documents.document import Document, write_documents
from codex_ml.modeling.canary_files import CanaryList
from codex_ml.modeling.canary_secrets import text_around
from codex_ml.modeling.rows import Rows, rows_of_step
from codex_ml.pack.config import Pack
from codex_ml.pack.pack_splits import pack_splits

from .byte_tokenizer import ByteTokenizer

PARAMS = "seed: 5\ntrain: {micro_batch_size: 2, accumulation: 2, max_steps: 6, warmup_steps: 1}\n"


def documents(count):
    for number in range(count):
        if number % 4 == 1:
            yield Document("qa", "", f"d{number}", "", "MIT", "text", prompt=f"q{number}?", completion=f" a{number}")
        elif number % 7 == 2:
            yield Document("qa", "", f"d{number}", "", "MIT", "text", prompt="", completion="")
        else:
            yield Document("web", f"{number}.txt", f"d{number}", "", "MIT", "text", text=f"text {number}\nline two")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A repository with packed splits, canaries and dropped records among them."""
    monkeypatch.chdir(tmp_path)
    files = {}
    for name, count in (("train", 40), ("val", 3), ("test", 3)):
        files[name] = Path(f"data/splits/{name}.parquet")
        files[name].parent.mkdir(parents=True, exist_ok=True)
        write_documents(files[name], documents(count))
    Path("data/packed").mkdir()
    settings = Pack(seq_len=48, canaries={"plant": "always", "repetitions": (2,), "each": (3,), "controls": 2})
    pack_splits(Path("data/packed"), files, ByteTokenizer(), settings, kind="byte_bpe", style="off")
    Path("params.yaml").write_text(PARAMS)
    Path("dvc.yaml").write_text("stages: {split: {cmd: x, outs: [data/splits]}, pack: {cmd: x, outs: [data/packed]}}")
    Path("src/codex_ml").mkdir(parents=True)
    from codex_ml.tokens import text_tokenizer as tokenizer

    monkeypatch.setattr(tokenizer, "load_tokenizer", lambda folder: ByteTokenizer())
    return tmp_path


@pytest.fixture
def run(capsys, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["codex-ml", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, captured.err

    return run


def as_json(run, *arguments):
    code, out, err = run("pack", "show", "--json", *arguments)
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def test_a_step_shows_the_rows_that_training_reads(here, run):
    rows = Rows.open(Path("data/packed"), "train")
    for step in (1, 6):
        expected = rows_of_step(len(rows), step=step - 1, batch_rows=4, seed=5)
        shown = as_json(run, "--step", str(step))
        assert [row["row"] for row in shown] == expected.tolist()
        labels = rows.batch(expected)["labels"]
        assert [row["trained"] for row in shown] == (labels >= 0).sum(axis=1).tolist()


def test_every_document_has_its_name_from_the_split(here, run):
    """Canaries are between the documents, and dropped records are missing."""
    rows = Rows.open(Path("data/packed"), "train")
    pieces = [piece for row in range(len(rows)) for piece in as_json(run, "--row", str(row))[0]["pieces"]]
    found = {}
    for piece in sorted(pieces, key=lambda piece: (piece["document"], piece["begin"])):
        said = "".join(entry["text"] for entry in piece["runs"])
        found.setdefault(piece["document"], [piece["source"], piece["path"], piece["id"], ""])[3] += said
    split = [d for d in documents(40) if d.content]
    own = [entry for entry in found.values() if entry[0] != "canary"]
    assert len(found) - len(own) == 6 == len(rows.canaries)
    assert [(d.source, d.path, d.id) for d in split] == [tuple(entry[:3]) for entry in own]
    assert [f"<end>{d.content}<end>" for d in split] == [entry[3] for entry in own]
    draws = {number: canary.draw for canary in planted().planted for number in canary.documents}
    assert {number: found[number][3] for number in rows.canaries} == {
        number: f"<end>{text_around(draw, 'text')[0]}<CANARY:{draw}>.\n<end>" for number, draw in draws.items()
    }


def planted():
    return CanaryList.read(Path("data/packed/canaries.json"))


def test_no_secret_of_a_canary_is_shown(here, run):
    rows, listing = Rows.open(Path("data/packed"), "train"), planted()
    holding = [row for row in range(len(rows)) if set(rows.documents(row).tolist()) & set(rows.canaries)]
    for row in holding:
        for form in ((), ("--json",)):
            code, out, _ = run("pack", "show", "--row", str(row), *form)
            assert code == 0 and "<CANARY:" in out
            assert not any(canary.text in out for canary in listing.planted)
        pieces = as_json(run, "--row", str(row))[0]["pieces"]
        assert all((piece["source"] == "canary") == (entry["ids"] == []) for piece in pieces for entry in piece["runs"])


def test_trained_tokens_are_marked(here, run):
    rows = Rows.open(Path("data/packed"), "train")
    row = next(n for n in range(len(rows)) for d in rows.documents(n).tolist() if rows.mask[rows.starts[d] + 1] == 0)
    piece = next(p for p in as_json(run, "--row", str(row))[0]["pieces"] if p["source"] == "qa")
    question, answer = piece["runs"]
    assert (question["trained"], answer["trained"]) == (False, True)
    number = piece["id"][1:]
    assert (question["text"], answer["text"]) == (f"<end>q{number}?", f" a{number}<end>")
    assert answer["ids"] == [*ByteTokenizer().encode(f" a{number}").tolist(), 0]


def test_the_text_output(here, run):
    Path("data/packed").rename("old")
    Path("data/packed").mkdir()
    files = {name: Path(f"data/splits/{name}.parquet") for name in ("train", "val", "test")}
    hostile = [
        Document("web", "a\x1b[2J\n.txt", "1", "", "MIT", "text", text="one\x1b[31m\ntwo"),
        Document("qa", "", "2", "", "MIT", "text", prompt="ask:", completion=" yes"),
    ]
    write_documents(files["train"], hostile)
    pack_splits(
        Path("data/packed"),
        files,
        ByteTokenizer(),
        Pack(seq_len=32),
        kind="byte_bpe",
        style="off",
    )
    code, out, err = run("pack", "show", "--step", "1", "--row", "0")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "row 0: 2 pieces, 22 of 32 places, 18 targets trained",
        "  piece 1: document 0 (web a\\x1b[2J\\n.txt 1), 13 targets from token 0 on",
        "    context | <end>",
        "    trained | one\\x1b[31m",
        "            | two<end>",
        "  piece 2: document 1 (qa 2), 9 targets from token 0 on",
        "    context | <end>ask:",
        "    trained |  yes<end>",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --step N, --row R, or both: they choose what is shown"),
        (("--step", "0"), "there is no step 0; steps go from 1 to 6 (train.max_steps)"),
        (("--step", "7"), "there is no step 7; steps go from 1 to 6 (train.max_steps)"),
        (("--row", "-1"), "there is no row -1; the train stream has rows 0 to "),
        (("--row", "9999"), "there is no row 9999; the train stream has rows 0 to "),
        (("--step", "1", "--row", "9999"), "step 1 does not see row 9999; it sees "),
    ],
)
def test_wrong_arguments_give_one_line(here, run, arguments, message):
    code, out, err = run("pack", "show", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("data/packed/pack.json", "data/packed/pack.json is missing; `dvc repro pack` makes it"),
        ("data/packed/records.ndjson", "data/packed/records.ndjson is missing; `dvc repro pack` makes it"),
        ("data/splits/train.parquet", "data/splits/train.parquet is missing; `dvc repro split` makes it"),
        ("params.yaml", "params.yaml is missing; `git checkout params.yaml` brings back the committed one"),
    ],
)
def test_a_missing_file_is_named(here, run, gone, message):
    Path(gone).unlink()
    assert run("pack", "show", "--step", "2") == (2, "", f"error: {message}\n")


def test_a_split_written_after_packing_is_reported(here, run):
    write_documents(Path("data/splits/train.parquet"), documents(1))
    rows = Rows.open(Path("data/packed"), "train")
    last = next(n for n in range(len(rows)) if np.isin(rows.documents(n), [20, 21, 22]).any())
    code, _, err = run("pack", "show", "--row", str(last))
    assert code == 2
    assert err.startswith("error: data/splits/train.parquet has fewer documents than the packed stream; `dvc repro")
