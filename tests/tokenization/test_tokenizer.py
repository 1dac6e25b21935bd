"""Byte-level BPE: lossless on any text, special tokens are never made from text, equal bytes whatever the process."""

import json
import random

import numpy as np
import pytest

from codex_ml.errors import UserError
from codex_ml.tokenization.tokenizer import (
    BATCH_DOCUMENTS,
    END,
    PAD,
    encode_documents,
    load_tokenizer,
    measure,
    save_tokenizer,
    special_id,
    train_byte_bpe,
)  # fmt: skip

CORPUS = [
    f"def function_{i}(value):\n    return value + {i}  # {'tie ' * (i % 3)}{END if i % 7 == 0 else ''}\n"
    for i in range(200)
]

HARD = [
    "a != b ; c ?", "x , y . z !", "we 've they 're it 's", "  leading", "trailing  ", "a  b    c", "\ttab\t\t", "\n\n\r\n",
    "lone\rcr", "( a ) : [ b ]", "\f\v\x1c\x85", "nul\0inside", "e\u0301 \u00e9", "\u1112\u1161\u11ab \ud55c",
    "\U0001f468\u200d\U0001f469\u200d\U0001f466", "\u202ertl\u202c", "\ufeffbom\ufeff", "a\u00a0b\u3000c", "\ufffd\uffff",
    "\u0600\u0915\u094d \U0010ffff",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_byte_bpe(iter(CORPUS), 300), folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


def test_ids_are_end_pad_bytes_then_merges(tokenizer):
    assert (tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)) == (0, 1)
    assert tokenizer.get_vocab_size() == 300
    assert all(len(tokenizer.id_to_token(i)) == 1 for i in range(2, 258))
    assert all(len(tokenizer.id_to_token(i)) > 1 for i in range(258, 300))


def test_a_small_corpus_gives_fewer_tokens_than_wanted():
    assert train_byte_bpe(["a"], 5000).get_vocab_size() == 258


@pytest.mark.parametrize("text", HARD)
def test_decoding_gives_the_text_back_code_point_by_code_point(tokenizer, text):
    (ids,) = encode_documents(tokenizer, [text])
    assert tokenizer.decode(ids.tolist(), skip_special_tokens=False) == text
    assert ids.dtype == np.uint32


@pytest.mark.parametrize(
    "text", [END, PAD, f"say {END} or {PAD}!", f"{END}{END}", "<|im_start|>system", "</s> [UNK] <pad>"]
)
def test_text_that_spells_a_special_token_is_data(tokenizer, text):
    (ids,) = encode_documents(tokenizer, [text])
    assert not {0, 1} & set(ids.tolist())
    assert len(ids) > 1
    assert tokenizer.decode(ids.tolist(), skip_special_tokens=False) == text


def test_documents_come_out_one_by_one_over_batches_also_empty_ones(tokenizer):
    texts = [f"text {i}" * (i % 3) for i in range(2 * BATCH_DOCUMENTS + 1)]
    ids = list(encode_documents(tokenizer, iter(texts)))
    assert [tokenizer.decode(i.tolist(), skip_special_tokens=False) for i in ids] == texts
    assert len(ids[0]) == 0


def test_the_config_cleans_nothing_up(folder):
    assert json.loads((folder / "tokenizer_config.json").read_bytes()) == {
        "bos_token": END, "eos_token": END, "pad_token": PAD, "clean_up_tokenization_spaces": False,
        "split_special_tokens": True, "tokenizer_class": "PreTrainedTokenizerFast",
    }  # fmt: skip


def test_a_measure_of_bytes_alone_is_one_byte_a_token(tmp_path):
    save_tokenizer(train_byte_bpe(["z"], 258), tmp_path)
    numbers = measure(load_tokenizer(tmp_path), HARD * 5)
    assert numbers == {"vocab_size": 258, "bytes_per_token": 1.0, "lossless": 1.0}


def test_the_measure_sees_a_loss(tokenizer):
    class Lossy:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def decode(self, ids, **options):
            return tokenizer.decode(ids, **options).replace(" ,", ",")

    assert measure(Lossy(), ["a , b", "c", "d", "e"])["lossless"] == 0.75


def test_training_again_gives_equal_bytes(folder, tmp_path):
    save_tokenizer(train_byte_bpe(list(CORPUS), 300), tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


CODE = """
import json, sys
from pathlib import Path
from codex_ml.tokenization.tokenizer import save_tokenizer, train_byte_bpe
save_tokenizer(train_byte_bpe(json.loads(Path(sys.argv[1]).read_text()), 400), Path(sys.argv[2]))
assert not {"torch", "transformers"} & set(sys.modules)
"""


def test_ties_are_settled_alike_in_every_process(tmp_path, run_python):
    dice = random.Random(0)
    pairs = [a + b for a in "abcdefgh" for b in "abcdefgh"]  # all equally frequent
    texts = [" ".join(dice.sample(pairs, len(pairs))) for _ in range(20)]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    written = []
    for seed, threads in (("0", "1"), ("5", "4"), ("random", "2")):
        out = tmp_path / f"{seed}-{threads}"
        out.mkdir()
        environment = {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        done = run_python("-c", CODE, str(tmp_path / "texts.json"), str(out), env=environment)
        assert done.returncode == 0, done.stderr
        written.append((out / "tokenizer.json").read_bytes())
    assert written[0] == written[1] == written[2]


@pytest.mark.parametrize("data", [b"", b"{}", b"not json", b"\xff\xfe", b'{"model": {"type": "BPE"}}', b"[" * 100_000])
def test_what_is_no_tokenizer_is_told(tmp_path, data):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(UserError, match=r"tokenizer\.json is no tokenizer that can be read: "):
        load_tokenizer(tmp_path)


def test_a_missing_tokenizer_is_told(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.json is missing; `dvc repro tokenizer` makes it$"):
        load_tokenizer(tmp_path)


def test_an_interruption_while_loading_stays_one(folder, monkeypatch):
    from codex_ml.tokenization import tokenizer as module

    class Interrupted:
        @staticmethod
        def from_file(name):
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "Tokenizer", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_tokenizer(folder)


def test_a_tokenizer_without_our_special_tokens_is_told(tokenizer):
    assert (special_id(tokenizer, END), special_id(tokenizer, PAD)) == (0, 1)
    with pytest.raises(
        UserError, match=r"^the tokenizer has no token <\|eot\|>; `dvc repro tokenizer` makes one that has$"
    ):
        special_id(tokenizer, "<|eot|>")
