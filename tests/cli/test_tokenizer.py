"""`codex-ml tokenizer`: what it prints is what the library says, and wrong use ends with one line and code 2."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from codex_ml.cli.tokenizer import app
from codex_ml.cli.tokenizer_validation import SpecialTokens, TokenizerValidation
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
    for command in ("stats", "encode", "decode", "compare", "special", "validate"):
        assert len(run(command, "--help").stdout) > 400


def test_each_line_of_ids_is_one_text(run):
    texts = ["a b", "def f():\n\treturn 'x'", "", "ünï"]
    lines = "".join(run("encode", text).stdout.strip() + "\n" for text in texts)
    found = run("decode", "--lines", input=lines).stdout.splitlines()
    assert [json.loads(line) for line in found] == texts
    assert all(line.isascii() for line in found)
    refused = run("decode", "1", "--lines")
    assert (refused.exit_code, "give no ids as arguments" in refused.stderr) == (2, True)


def test_special_ids_have_their_roles(run, folders):
    own = load_tokenizer(folders["byte_bpe"])
    printed = run("special", "--json").stdout
    assert len(SpecialTokens.model_validate_json(printed).special) == 2
    assert json.loads(printed)["special"] == [
        {"id": own.end, "token": "<|endoftext|>", "roles": ["end", "begin"]},
        {"id": own.pad, "token": "<|pad|>", "roles": ["pad"]},
    ]
    assert run("special").stdout.split()[:2] == [str(own.end), "<|endoftext|>"]


def checks(result):
    found = TokenizerValidation.model_validate_json(result.stdout)
    assert found.passed == (result.exit_code == 0)
    return {check.name: check.passed for check in found.checks}


@pytest.mark.parametrize(("kind", "model"), [("byte_bpe", None), ("sentencepiece_bpe", True)])
def test_a_whole_tokenizer_is_valid(run, tmp_path, kind, model):
    (tmp_path / "text").write_text("".join(TEXTS))
    found = run("validate", tmp_path / "text", "--json", folder=kind)
    assert found.exit_code == 0
    assert checks(found) == {
        "lossless": True, "ids in range": True, "bulk encoding": True, "config.json": None, "tokenizer.model": model,
    }  # fmt: skip
    assert "1 documents decode to their own text" in run("validate", tmp_path / "text", folder=kind).stdout


def test_a_model_with_other_special_ids_or_too_few_rows_is_not_valid(folders, tmp_path):
    own = load_tokenizer(folders["byte_bpe"])
    (tmp_path / "text").write_text("".join(TEXTS))
    for file in folders["byte_bpe"].glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    right = {
        "vocab_size": own.vocab_size,
        "eos_token_id": [9, own.end],
        "bos_token_id": own.end,
        "pad_token_id": own.pad,
    }
    for change, failed in (
        ({}, []),
        ({"vocab_size": own.vocab_size + 50}, []),
        ({"pad_token_id": 3}, ["config.json"]),
        ({"eos_token_id": None}, ["config.json"]),
        ({"vocab_size": 20}, ["ids in range", "config.json"]),
        ({"vocab_size": "many"}, ["config.json"]),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**right, **change}))
        found = CliRunner().invoke(app, ["validate", str(tmp_path / "text"), "-t", str(tmp_path), "--json"])
        assert [name for name, passed in checks(found).items() if passed is False] == failed
        assert found.exit_code == (1 if failed else 0)


def test_a_tokenizer_that_loses_text_or_whose_files_disagree_is_not_valid(folders, tmp_path):
    (tmp_path / "words").mkdir()
    train_tokenizer(lambda: iter(TEXTS), Tokenizer(kind="whitespace", vocab_size=380), tmp_path / "words")
    (tmp_path / "text").write_text("sk_secret_value  two spaces")
    found = CliRunner().invoke(app, ["validate", str(tmp_path / "text"), "-t", str(tmp_path / "words"), "--json"])
    assert (found.exit_code, checks(found)["lossless"]) == (1, False)
    assert "secret" not in found.stdout + found.stderr
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for file in folders["byte_bpe"].glob("tokenizer*"):
        (mixed / file.name).write_bytes(file.read_bytes())
    (mixed / "tokenizer.model").write_bytes((folders["sentencepiece_bpe"] / "tokenizer.model").read_bytes())
    found = CliRunner().invoke(app, ["validate", str(tmp_path / "text"), "-t", str(mixed), "--json"])
    assert (found.exit_code, checks(found)["tokenizer.model"]) == (1, False)
    assert "secret" not in found.stdout + found.stderr
