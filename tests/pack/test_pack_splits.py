"""Packing the splits: equal bytes, correct numbers, and a list of the records that were cut or dropped."""

import hashlib
import json

import numpy as np
import pytest

from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document, write_documents
from codex_ml.modeling.canary_files import CanaryList
from codex_ml.modeling.rows import IGNORE, Rows
from codex_ml.pack.config import Pack
from codex_ml.pack.pack_splits import pack_splits

from .byte_tokenizer import END, ByteTokenizer

WORDS = [" ".join(f"word{n}" for n in range(count)) for count in (200, 1)]


def text(content, number=0):
    return Document("s", f"{number}.txt", f"t{number}", "", "MIT", "text", text=content)


def record(id, prompt, completion):
    return Document("s", "", id, "", "MIT", "text", prompt=prompt, completion=completion)


def packed(folder, *, train=(), val=(), test=(), tokenizer=None, **settings):
    """(data/packed, reports/pack/details.json)"""
    files = {}
    for name, documents in (("train", train), ("val", val), ("test", test)):
        files[name] = folder / f"{name}.parquet"
        write_documents(files[name], documents)
    out = folder / "packed"
    out.mkdir()
    if "canaries" in settings:
        settings["canaries"] = {"plant": "always", **settings["canaries"]}
    details = pack_splits(out, files, tokenizer or ByteTokenizer(), Pack(**settings), kind="byte_bpe", style="off")
    return out, details.as_json()


NO_RECORDS = dict.fromkeys(("cut_prompt", "cut_completion", "cut_both", "too_long", "empty", "untrained"), 0)


def test_pack_json_has_the_old_ids_of_added_pieces(tmp_path):
    tokenizer = ByteTokenizer()
    tokenizer.added_pieces = [[5, 6], [7, 8, 9]]
    out, _ = packed(tmp_path, train=[text("a")], tokenizer=tokenizer, seq_len=16)
    assert json.loads((out / "pack.json").read_bytes())["added_pieces"] == [[5, 6], [7, 8, 9]]


def test_details_of_a_small_corpus(tmp_path):
    out, metrics = packed(tmp_path, train=[text("a" * 20), text("b" * 10)], val=[text("c" * 5)], seq_len=16)
    assert metrics == {
        "train": {
            "documents": 2, "tokens": 33, "targets": 32, "rows": 2, "cut_documents": 1, "fill": 1.0, "records": NO_RECORDS
        },
        "val": {"documents": 1, "tokens": 7, "targets": 6, "rows": 1, "cut_documents": 0, "fill": 0.375, "records": NO_RECORDS},
        "test": {"documents": 0, "tokens": 1, "targets": 0, "rows": 0, "cut_documents": 0, "fill": None, "records": NO_RECORDS},
    }  # fmt: skip
    about = json.loads((out / "pack.json").read_bytes())
    del about["streams"]
    assert about == {
        "dtype": "<u2", "seq_len": 16, "layout": "packed", "tokenizer_kind": "byte_bpe", "vocab_size": 258, "begin": 0, "end": 0, "pad": 1,
        "loss_on": "completions",
    }  # fmt: skip
    assert (out / "records.ndjson").read_bytes() == b""
    assert not (out / "canaries.json").exists()


@pytest.mark.parametrize("too_long", ["cut", "drop"])
def test_every_record_without_a_trained_token_is_listed(tmp_path, too_long):
    """Prompt longer than the row, empty completion, both empty, long completion: huggingface/trl 6668, 5826."""
    train = [
        record("long", WORDS[0], " yes"), record("ok", "2+2=", " 4"), record("empty", "say nothing:", ""),
        record("both-empty", "", ""), record("no-prompt", "", "free text"), record("long-completion", "list:", WORDS[0]),
    ]  # fmt: skip
    out, metrics = packed(tmp_path, train=train, seq_len=64, too_long=too_long)
    lines = [json.loads(line) for line in (out / "records.ndjson").read_bytes().splitlines()]
    cut = {"cut": ("cut", "cut_prompt", "cut_completion"), "drop": ("drop", "too_long", "too_long")}[too_long]
    assert [(line["row"], line["id"], line["action"], line["reason"]) for line in lines] == [
        (0, "long", cut[0], cut[1]),
        (3, "both-empty", "drop", "empty"),
        (5, "long-completion", cut[0], cut[2]),
    ]
    assert {(line["split"], line["source"], line["path"]) for line in lines} == {("train", "s", "")}
    assert sum(metrics["train"]["records"].values()) == 3
    rows = Rows.open(out, "train")
    batch = rows.batch(np.arange(len(rows)))
    targets = {}
    for row in range(len(rows)):
        place = 0
        for document, (_, length) in zip(rows.documents(row).tolist(), rows.row_pieces(row).tolist(), strict=True):
            labels = batch["labels"][row, place : place + length]
            targets[document] = labels[labels != IGNORE].tolist()
            place += length
    said = {"long": " yes", "ok": " 4", "empty": "", "no-prompt": "free text"}
    kept = [r.id for r in train if r.id != "both-empty" and (too_long == "cut" or not r.id.startswith("long"))]
    assert sorted(targets) == list(range(len(kept)))
    for document, id in enumerate(kept):
        if id == "long-completion":
            assert ByteTokenizer().decode(targets[document]) == WORDS[0][:58]
        else:
            assert targets[document] == [*ByteTokenizer().encode(said[id]).tolist(), END]


def test_a_completion_stays_with_its_prompt_and_every_row_has_a_target(tmp_path):
    dice = np.random.Generator(np.random.PCG64(2))
    train = [record(str(n), "p" * int(a), "c" * int(b)) for n, (a, b) in enumerate(dice.integers(0, 90, (200, 2)))]
    out, metrics = packed(tmp_path, train=train, seq_len=64)
    rows = Rows.open(out, "train")
    documents = np.concatenate([rows.documents(row) for row in range(len(rows))])
    assert sorted(documents.tolist()) == list(range(metrics["train"]["documents"]))
    assert metrics["train"]["cut_documents"] == 0
    assert (rows.batch(np.arange(len(rows)))["labels"] != IGNORE).any(axis=1).all()


def test_too_long_fail_gives_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^val: the record x of s has 101 tokens, but a row holds at most 15; raise"):
        packed(tmp_path, val=[record("x", "p" * 100, "y")], seq_len=16, too_long="fail")


def test_equal_splits_give_equal_bytes(tmp_path):
    train = [text("x" * (n * 7 % 40), n) for n in range(50)]
    digests = []
    for name in "ab":
        (tmp_path / name).mkdir()
        out, _ = packed(
            tmp_path / name, train=train, val=train[:3], seq_len=48, canaries={"repetitions": (1, 2), "each": (2, 2)}
        )
        digests.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in out.iterdir()})
    assert digests[0] == digests[1]
    assert {"canaries.json", "train.bin", "val.rows"} <= digests[0].keys()


def test_canaries_are_in_train_only_and_where_the_list_says(tmp_path):
    train = [text(f"text number {n}", n) for n in range(20)]
    settings = {"repetitions": (1, 3), "each": (2, 2), "controls": 4}
    out, metrics = packed(tmp_path, train=train, val=train[:5], test=train[:5], seq_len=64, canaries=settings)
    listing = CanaryList.read(out / "canaries.json")
    assert metrics["canaries"] == {"design": "random", "different": 4, "inserted": 8, "controls": 4}
    assert (metrics["train"]["documents"], metrics["val"]["documents"]) == (28, 5)
    rows = Rows.open(out, "train")
    assert sorted(number for canary in listing.planted for number in canary.documents) == list(rows.canaries)
    assert listing.repetitions == [1, 1, 3, 3]
    for canary in listing.planted:
        for number in canary.documents:
            begin, stop = rows.starts[number : number + 2].astype(int)
            assert rows.tokens[begin + 1 : stop].tolist() == canary.ids
    stream = {name: ByteTokenizer().decode(Rows.open(out, name).tokens) for name in ("train", "val", "test")}
    for canary, repetitions in zip(listing.planted, listing.repetitions, strict=True):
        assert stream["train"].count(canary.text) == repetitions
        assert canary.text not in stream["val"] + stream["test"]
    assert not any(canary.text in stream["train"] for canary in listing.controls)
    assert listing.frame.secret_tokens == 10
    assert {canary.begin for canary in listing.planted} == {len("The access code of ABCDEF is ")}


def test_unlikely_canaries_are_of_tokens_that_the_train_split_never_uses(tmp_path):
    settings = {"design": "unlikely", "repetitions": (2,), "each": (3,), "controls": 2}
    train = [text(f"text number {n}", n) for n in range(20)]
    out, metrics = packed(tmp_path, train=train, seq_len=64, canaries=settings)
    assert metrics["canaries"] == {"design": "unlikely", "different": 3, "inserted": 6, "controls": 2}
    listing = CanaryList.read(out / "canaries.json")
    used = set().union(*(ByteTokenizer().encode(document.text).tolist() for document in train))
    assert len(listing.frame.pool) == 32 and not used & set(listing.frame.pool)
    stream = ByteTokenizer().decode(Rows.open(out, "train").tokens)
    assert [stream.count(canary.text) for canary in [*listing.planted, *listing.controls]] == [2, 2, 2, 0, 0]


def test_a_corpus_that_holds_a_canary_is_refused(tmp_path):
    settings = {"repetitions": (1,), "each": (1,), "controls": 1}
    (tmp_path / "a").mkdir()
    out, _ = packed(tmp_path / "a", train=[text("x")], seq_len=64, canaries=settings)
    with pytest.raises(UserError, match=r"^train: the document 0\.txt of s holds a secret that pack\.canaries invents"):
        packed(tmp_path, train=[text((out / "canaries.json").read_text())], seq_len=64, canaries=settings)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, "<u2"), (65_537, "<u4")])
def test_the_dtype_follows_from_the_largest_id_of_the_tokenizer(tmp_path, vocab_size, dtype):
    tokenizer = ByteTokenizer()
    tokenizer.vocab_size = vocab_size
    out, _ = packed(tmp_path, train=[text("abc")], tokenizer=tokenizer)
    assert json.loads((out / "pack.json").read_bytes())["dtype"] == dtype
    assert np.fromfile(out / "train.bin", dtype).tolist() == [0, 99, 100, 101, 0]


def test_a_tokenizer_too_large_for_uint16_is_refused_before_a_byte_is_written(tmp_path):
    tokenizer = ByteTokenizer()
    tokenizer.vocab_size = 65_537
    with pytest.raises(UserError, match=r"^pack\.dtype uint16 holds ids up to 65535; the tokenizer has 65537 tokens"):
        packed(tmp_path, train=[text("abc")], tokenizer=tokenizer, dtype="uint16")
    assert list((tmp_path / "packed").iterdir()) == []


def test_a_chat_has_the_ids_of_its_template_and_no_second_bos(tmp_path, chats):
    """OpenRLHF 393, huggingface/trl 1400: a BOS from the template and a second one from the packer."""
    messages = '[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]'
    chat = Document("s", "", "c", "", "MIT", "text", messages=messages)
    out, _ = packed(tmp_path, train=[chat], tokenizer=ByteTokenizer("template"), seq_len=32)
    ids = [*ByteTokenizer().encode("<user:hi><assistant:yo>").tolist(), END]
    batch = Rows.open(out, "train").batch(np.array([0]))
    assert batch["input_ids"][0, :24].tolist() == [*ids[:-1], 1]
    assert batch["labels"][0, :24].tolist() == [*[IGNORE] * 19, *ids[20:], IGNORE]


def test_pack_json_has_turn_ends_only_if_there_are_chats(tmp_path, monkeypatch):
    import sys
    from types import SimpleNamespace

    def encode_conversation(tokenizer, messages, tools):
        return SimpleNamespace(
            ids=np.array([5, 6, 9, 7], dtype=np.uint32), trained=np.array([False, True, True, False])
        )

    fake = SimpleNamespace(encode_conversation=encode_conversation, turn_ends=lambda tokenizer: [END, 11])
    monkeypatch.setitem(sys.modules, "codex_ml.tokens.chat", fake)
    tokenizer = ByteTokenizer()
    tokenizer.special = {"<end>": END, "<turn>": 9, "<never seen>": 11}
    chat = Document("s", "", "c", "", "MIT", "text", messages='[{"role": "user", "content": "hi"}]')
    for name, template, documents, expected in (
        ("text", None, [text("abc")], None),
        ("chat", "t", [chat], [9, 11]),
        ("template only", "t", [text("abc")], [11]),
    ):
        (tmp_path / name).mkdir()
        tokenizer.chat_template = template
        out, metrics = packed(tmp_path / name, train=documents, tokenizer=tokenizer, seq_len=64)
        assert json.loads((out / "pack.json").read_bytes()).get("turn_ends") == expected
        assert metrics["train"]["records"] == NO_RECORDS


@pytest.mark.parametrize("plant", ["never", "always"])
def test_a_split_whose_records_are_all_dropped_is_refused(tmp_path, plant):
    told = r"^train: none of its 2 records has a token to train \(1 too_long, 1 empty\); a chat needs an answer"
    with pytest.raises(UserError, match=told):
        packed(tmp_path, train=[record("a", "p" * 60, "c"), record("b", "", "")], val=[text("c")], seq_len=48,
               too_long="drop", canaries={"plant": plant, "repetitions": (1,), "each": (1,), "controls": 1})  # fmt: skip
