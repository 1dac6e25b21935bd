"""The tokenizer at run time: its attributes are correct, and a damaged folder is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from codex_ml.core.errors import UserError
from codex_ml.tokens.text_tokenizer import load_tokenizer

from .conftest import END, PAD


def test_ids_are_uint32_and_empty_documents_are_kept(loaded):
    tokenizer = loaded("byte_bpe")
    texts = [f"text {i}" * (i % 3) for i in range(130)]
    ids = list(tokenizer.encode_documents(iter(texts)))
    assert [tokenizer.decode(i) for i in ids] == texts
    assert {i.dtype for i in ids} == {np.dtype(np.uint32)}
    assert len(ids[0]) == 0
    assert tokenizer.encode("").dtype == np.uint32
    assert list(tokenizer.encode_documents([])) == []


def write(folder, *, tokens, added):
    vocabulary = {f"t{i}": i for i in range(tokens)}
    extra = [{"id": tokens + i, "content": f"<|{i}|>", "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for i in range(added)]  # fmt: skip
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t0"}
    parts = dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding"))
    (folder / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "added_tokens": extra, "model": model, **parts})
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "t1", "pad_token": "t2"}))


@pytest.mark.parametrize(("tokens", "added"), [(256, 0), (65_536, 0), (65_536, 1), (1000, 3)])
def test_the_vocabulary_size_counts_added_tokens(tmp_path, tokens, added):
    write(tmp_path, tokens=tokens, added=added)
    assert load_tokenizer(tmp_path).vocab_size == tokens + added


def test_the_vocabulary_size_is_the_largest_id_plus_one_even_with_gaps(tmp_path):
    write(tmp_path, tokens=4, added=0)
    text = (tmp_path / "tokenizer.json").read_text().replace('"t3": 3', '"t3": 70000')
    (tmp_path / "tokenizer.json").write_text(text)
    assert load_tokenizer(tmp_path).vocab_size == 70_001


@pytest.mark.parametrize("data", [b"", b"{}", b"not json", b"\xff\xfe", b'{"model": {"type": "BPE"}}', b"[" * 100_000])
def test_a_file_that_is_not_a_tokenizer_is_refused(tmp_path, data):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read as a tokenizer: "):
        load_tokenizer(tmp_path)


def test_a_missing_tokenizer_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.json is missing; name the folder of a whole tokenizer$"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"eos_token": "t1"}, "names no pad_token"),
        ({"pad_token": "t1"}, "names no eos_token"),
        ({"eos_token": "t1", "pad_token": "other"}, "pad_token 'other' is not in the vocabulary"),
        ([], "names no eos_token"),
    ],
)
def test_a_tokenizer_without_an_end_or_pad_token_is_refused(tmp_path, config, told):
    write(tmp_path, tokens=4, added=0)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=told):
        load_tokenizer(tmp_path)


def test_added_pieces_are_read_and_a_damaged_list_of_them_is_refused(tmp_path):
    write(tmp_path, tokens=4, added=0)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "t1", "pad_token": "t1"}))
    assert load_tokenizer(tmp_path).added_pieces == []
    (tmp_path / "added_pieces.json").write_text('{"first": 3, "old_ids": [[0, 1]]}')
    assert load_tokenizer(tmp_path).added_pieces == [[0, 1]]
    (tmp_path / "added_pieces.json").write_text('{"first": 3, "old_ids": [["0"]]}')
    with pytest.raises(UserError, match=r"added_pieces\.json: old_ids\.0\.0: .*`dvc repro tokenizer` makes it anew"):
        load_tokenizer(tmp_path)


def test_a_keyboard_interrupt_during_loading_is_raised_again(trained, monkeypatch):
    import tokenizers

    class Interrupted:
        @staticmethod
        def from_file(name):
            raise KeyboardInterrupt

    folder = trained("byte_bpe")
    monkeypatch.setattr(tokenizers, "Tokenizer", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_tokenizer(folder)


def test_decoding_writes_special_tokens(loaded):
    tokenizer = loaded("byte_bpe")
    assert tokenizer.decode([*tokenizer.encode("a"), tokenizer.end, tokenizer.pad]) == f"a{END}{PAD}"
