"""A template gives records with a prompt their text: the same for training and evaluation, and recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codex_ml.core.errors import UserError
from codex_ml.core.plugins import registered
from codex_ml.documents.document import Document, documents_of, write_documents
from codex_ml.ingest.config import Fields, Source
from codex_ml.ingest.readers import plan_source
from codex_ml.ingest.sources import read_task
from codex_ml.modeling.examples import Scorable, scorables
from codex_ml.modeling.pack_files import PLAIN, Packed
from codex_ml.modeling.prompt_template import template_named, templated
from codex_ml.modeling.rows import Rows
from codex_ml.pack.config import Pack
from codex_ml.pack.pack_splits import pack_splits
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.training import train_tokenizer
from codex_ml.tokens.text_tokenizer import load_tokenizer


def record(prompt: str, completion: str = "42", name: str = "r") -> Document:
    return Document("s", "", name, "", "MIT", "text", prompt=prompt, completion=completion)


TEXT = Document("s", "", "t", "", "MIT", "text", text="a text")


def applied(name: str, document: Document) -> Document:
    (found,) = templated([document], template_named(name))
    return found


def test_plain_changes_nothing():
    document = record("x\n\n### Input:\ny")
    assert applied("plain", document) == document
    assert template_named("plain") == PLAIN


def test_alpaca_is_the_text_of_its_authors():
    document = applied("alpaca", record("Add.\n\n### Input:\n1 and {instruction}"))
    assert document.prompt == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 and {instruction}"
        "\n\n### Response:"
    )
    assert applied("alpaca", record("Say {input}.")).prompt == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nSay {input}.\n\n### Response:"
    )
    assert document.completion == "42"


def test_chat_makes_a_question_and_an_answer():
    document = applied("chat", record("Add é."))
    assert json.loads(document.messages) == [
        {"role": "user", "content": "Add é."},
        {"role": "assistant", "content": "42"},
    ]
    assert (document.prompt, document.completion, document.id) == (None, None, "r")


@pytest.mark.parametrize("name", ["plain", "alpaca", "chat"])
def test_other_documents_stay(name):
    chat = Document("s", "", "c", "", "MIT", "text", messages="[]")
    assert [applied(name, document) for document in (TEXT, chat)] == [TEXT, chat]


def test_one_without_a_text_for_inputs_takes_the_whole_prompt():
    with registered("templates", "mine", {"prompt": "Q: {instruction}"}):
        assert applied("mine", record("Add.\n\n### Input:\n1")).prompt == "Q: Add.\n\n### Input:\n1"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{instruction}", "must be a mapping with prompt and, if wanted, prompt_with_input"),
        ({"prompt_with_input": "{input}"}, "must be a mapping with prompt"),
        ({"prompt": "{instruction}", "end": "x"}, "must be a mapping with prompt"),
        ({"prompt": 3}, "must map to texts"),
        ({"prompt": "Q:"}, "has no {instruction} in prompt"),
        ({"prompt": "{instruction}", "prompt_with_input": "{instruction}"}, "has no {input} in prompt_with_input"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(template, message):
    with registered("templates", "mine", template), pytest.raises(UserError) as caught:
        template_named("mine")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_input_becomes_part_of_the_prompt_that_all_stages_see(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [{"instruction": "Add.", "input": "1", "output": "2"}, {"instruction": "Go.", "input": "", "output": "3"}]
    Path("in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    fields = Fields(prompt="instruction", completion="output", input="input")
    (task,) = plan_source(Source(kind="jsonl", path="in.jsonl", fields=fields), max_bytes=1000)
    found = [(d.prompt, d.completion, d.meta) for d in documents_of(read_task(task).table())]
    assert found == [("Add.\n\n### Input:\n1", "2", ""), ("Go.", "3", "")]


def test_the_rows_that_are_trained_and_the_tokens_that_are_scored_are_of_one_text(tmp_path):
    folder, packed = tmp_path / "tokenizer", tmp_path / "packed"
    folder.mkdir()
    packed.mkdir()
    train_tokenizer(lambda: iter(["a b"] * 3), Tokenizer(kind="byte_bpe", vocab_size=300), folder)
    tokenizer = load_tokenizer(folder)
    write_documents(tmp_path / "d.parquet", [record("Add.", name=str(number)) for number in range(3)])
    files = dict.fromkeys(("train", "val", "test"), tmp_path / "d.parquet")
    settings = Pack(seq_len=256, template="alpaca").with_canaries(planted=False)
    pack_splits(packed, files, tokenizer, settings, kind="byte_bpe", style="off")
    rows = Rows.open(packed, "train")
    assert rows.template == Packed.read(packed / "pack.json").template == template_named("alpaca")
    whole = [tokenizer.end, *tokenizer.encode(applied("alpaca", record("Add.")).prompt), *tokenizer.encode("42")]
    assert rows.tokens[: len(whole)].tolist() == whole
    (scored,) = scorables(templated([record("Add.")], rows.template), tokenizer, loss_on="completions", length=256)
    assert isinstance(scored, Scorable)
    assert scored.tokens.tolist() == [*whole, tokenizer.end]
    assert scored.text == "42"


def test_without_a_template_pack_json_has_no_key_for_it(tmp_path):
    folder, packed = tmp_path / "tokenizer", tmp_path / "packed"
    folder.mkdir()
    packed.mkdir()
    train_tokenizer(lambda: iter(["a b"] * 3), Tokenizer(kind="byte_bpe", vocab_size=300), folder)
    write_documents(tmp_path / "d.parquet", [record("Add.")])
    files = dict.fromkeys(("train", "val", "test"), tmp_path / "d.parquet")
    settings = Pack(seq_len=64).with_canaries(planted=False)
    pack_splits(packed, files, load_tokenizer(folder), settings, kind="byte_bpe", style="off")
    assert "template" not in json.loads((packed / "pack.json").read_text())
    assert Rows.open(packed, "train").template == PLAIN
