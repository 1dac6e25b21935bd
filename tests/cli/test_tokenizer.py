"""`codex-ml tokenizer`: what it prints is what the library says, and wrong use ends with one line and code 2."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from codex_ml.cli.tokenizer import app
from codex_ml.documents.document import Document, write_documents
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.training import train_tokenizer
from codex_ml.tokens.text_tokenizer import load_tokenizer

TEXTS = [f"def f{i}(value):\n    return value + {i}\n" for i in range(50)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for kind in ("byte_bpe", "sentencepiece_bpe"):
        made[kind] = tmp_path_factory.mktemp(kind)
        train_tokenizer(lambda: iter(TEXTS), Tokenizer(kind=kind, vocab_size=380), made[kind])
    return made


@pytest.fixture
def run(folders):
    def run(command, *arguments, folder="byte_bpe", input=None):
        where = ["-t", str(folders[folder])] if command != "compare" else []
        return CliRunner().invoke(app, [command, *map(str, arguments), *where], input=input)

    return run


def test_what_is_encoded_comes_back(run, folders):
    text = "def f(value):\n\treturn '<|endoftext|>'\r\n"
    ids = run("encode", text).stdout
    assert [int(word) for word in ids.split()] == load_tokenizer(folders["byte_bpe"]).encode(text).tolist()
    assert run("decode", *ids.split()).stdout_bytes == text.encode()
    assert run("decode", input=ids).stdout_bytes == text.encode()
    assert json.loads(run("decode", "--json", input=ids.replace(" ", ", ")).stdout) == {"text": text}


def test_truncation_end_and_padding_keep_their_order(run, folders):
    tokenizer = load_tokenizer(folders["byte_bpe"])
    ids = tokenizer.encode("return value").tolist()
    found = json.loads(run("encode", "return value", "--max-length", 2, "--add-end", "--pad-to", 4, "--json").stdout)
    assert found["ids"] == [ids[0], tokenizer.end, tokenizer.pad, tokenizer.pad]
    assert found["attention_mask"] == [1, 1, 0, 0]
    assert found["cut"] == len(ids) - 1
    assert found["tokens"][1:] == ["<|endoftext|>", "<|pad|>", "<|pad|>"]
    assert json.loads(run("encode", "return value", "--pad-to", 1, "--json").stdout)["ids"] == ids


def test_a_file_and_standard_input_are_text_too(run, tmp_path):
    (tmp_path / "a.py").write_bytes(b"def f(value):\r\n")
    assert run("encode", "-f", tmp_path / "a.py").stdout == run("encode", "-f", "-", input="def f(value):\r\n").stdout


def test_stats_of_a_split_are_printed_per_language(run, tmp_path):
    documents = [
        Document("s", str(i), str(i), "", "MIT", "python" if i % 2 else "c", text=t) for i, t in enumerate(TEXTS)
    ]
    write_documents(tmp_path / "val.parquet", documents)
    numbers = json.loads(run("stats", tmp_path / "val.parquet", "--json").stdout)
    assert numbers["lossless"] == 1.0
    assert sorted(numbers["languages"]) == ["c", "python"]
    text = run("stats", tmp_path / "val.parquet").stdout
    assert f"bytes_per_token  {numbers['bytes_per_token']}" in text
    assert "  python: bytes_per_token" in text


def test_two_tokenizers_are_compared_on_one_text(run, folders, tmp_path):
    (tmp_path / "text").write_text("".join(TEXTS))
    both = folders["byte_bpe"], folders["sentencepiece_bpe"]
    found = json.loads(run("compare", *both, tmp_path / "text", "--json").stdout)
    assert found["texts_that_differ"] == 1
    assert found["first"]["vocab_size"] == load_tokenizer(both[0]).vocab_size
    assert "the ids of 0 texts differ" in run("compare", both[0], both[0], tmp_path / "text").stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("encode",), "give either a text or --file"),
        (("encode", "x", "-f", "y"), "give either a text or --file"),
        (("encode", "-f", "no_such"), "no_such is missing"),
        (("decode", "7", "x"), "'x' is not a token id; ids are numbers from 0 to"),
        (("decode", "99999999999"), "is not a token id"),
        (("stats", "no.parquet"), "no.parquet is missing"),
        (("compare", "nowhere", "nowhere"), "tokenizer.json is missing"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(run, arguments, told):
    done = run(*arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_teaches(run):
    for command in ("stats", "encode", "decode", "compare"):
        assert len(run(command, "--help").stdout) > 400
