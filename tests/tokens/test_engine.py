"""Fast engines are chosen only if they give the ids of `tokenizers`, also on texts on which engines often differ."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from codex_ml.core.errors import UserError
from codex_ml.tokens import engine
from codex_ml.tokens.engine import (
    byte_letters,
    byte_ranks,
    choose_engine,
    encode_all,
    gigatoken_engine,
    tiktoken_engine,
    tokenizers_engine,
)  # fmt: skip

from .conftest import CORPUS, END, PAD

ENGINES = {"tiktoken": tiktoken_engine, "gigatoken": gigatoken_engine}


def hostile_texts():
    dice = random.Random(3)
    alphabet = "ab  \t\n\r\0\x0b\x1c\x85\u00a0\u2028'sST0\u0663\u00b2_-=\u00e9e\u0301\u4e2d\U0001f468\u200d\ufeff\uffff"
    yield from ("".join(dice.choices(alphabet, k=dice.randrange(60))) for _ in range(400))
    yield from (END, f"{PAD}{END}x", " " * 999, "", "a" * 4000)


def differing(made, tokenizer, texts):
    texts = list(texts)
    pairs = zip(made(texts), tokenizers_engine(tokenizer)(texts), strict=True)
    return [text for text, (a, b) in zip(texts, pairs, strict=True) if not np.array_equal(a, b) or a.dtype != np.uint32]


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_gives_the_same_ids_on_hostile_text(loaded, name):
    pytest.importorskip(name)
    backend = loaded("byte_bpe", special_tokens=("<|tool|>",)).backend
    made = ENGINES[name](backend)
    assert differing(made, backend, [*hostile_texts(), *engine.HARD_TEXTS, *CORPUS, "a<|tool|>b"]) == []


def split_first(pattern, **changes):
    letters = byte_letters()
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocabulary | {"ab": 256, "abc": 257}, [("a", "b"), ("ab", "c")], **changes))
    from tokenizers import Regex

    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.encode_special_tokens = True
    return tokenizer


def test_other_patterns_are_adopted():
    backend = split_first(r"\p{N}{1,3}| ?\p{L}+|[^\p{L}\p{N}]+")
    made = tiktoken_engine(backend)
    assert differing(made, backend, [*hostile_texts(), "abcabc 1234567 aabbcc"]) == []


def test_what_tiktoken_cannot_express_is_left_to_tokenizers(loaded):
    assert tiktoken_engine(loaded("unigram").backend) is None
    assert tiktoken_engine(loaded("sentencepiece_bpe").backend) is None
    assert tiktoken_engine(loaded("wordpiece").backend) is None
    assert tiktoken_engine(split_first(r"\s+", ignore_merges=True)) is None
    cut = split_first(r"\s+")
    cut.add_tokens([AddedToken("cut here", special=False)])
    assert tiktoken_engine(cut) is None
    assert gigatoken_engine(loaded("sentencepiece_unigram").backend) is None


def test_ranks_are_refused_if_ids_are_not_in_merge_order():
    letters = byte_letters()
    vocabulary = {letter: i for i, letter in enumerate(letters)} | {"ab": 300, "abc": 299}
    assert byte_ranks({"vocab": vocabulary, "merges": [["a", "b"], ["ab", "c"]]}) is None
    assert byte_ranks({"vocab": vocabulary, "merges": [["ab", "c"]]}) is None  # no merge makes ab
    vocabulary["abc"] = 301
    ranks = byte_ranks({"vocab": vocabulary, "merges": ["a b", "ab c"]})
    assert ranks[b"abc"] == 301 and ranks[b"\0"] == vocabulary["\u0100"] and len(ranks) == 258


def test_the_byte_level_alphabet_is_that_of_tokenizers():
    assert set(byte_letters()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_letters().values()) == list(range(256))


def wrong(tokenizer):
    right = tokenizers_engine(tokenizer)
    return lambda texts: [ids[:-1] if END in text else ids for ids, text in zip(right(texts), texts, strict=True)]


def failing(tokenizer):
    def encode(texts):
        raise RuntimeError("no")

    return encode


def unbuildable(tokenizer):
    raise ValueError("no such pattern")


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (wrong, "gigatoken is not used: its ids differ from those of tokenizers for this vocabulary"),
        (failing, "gigatoken cannot be used for this vocabulary (no)"),
        (unbuildable, "tiktoken cannot be used for this vocabulary (no such pattern)"),
    ],
)
def test_an_engine_that_differs_or_fails_is_not_used_and_the_log_says_so(loaded, monkeypatch, caplog, bad, told):
    backend = loaded("byte_bpe").backend
    monkeypatch.setattr(engine, "gigatoken_engine", bad)
    monkeypatch.setattr(engine, "tiktoken_engine", bad)
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(engine.log, "propagate", True)
    with caplog.at_level("INFO", logger="codex_ml"):
        chosen = choose_engine(backend, CORPUS)
    assert differing(chosen, backend, CORPUS) == []
    assert told in caplog.text
    assert caplog.messages[-1] == "tokens: encoded by tokenizers"


def test_a_pattern_that_only_tokenizers_supports_is_left_to_it():
    backend = split_first(r"\h+|(?<a>b)\g<a>?|[^\h]")  # in Oniguruma \h is a hexadecimal digit and \g<a> a call
    texts = ["abcb 0x1F"] * 20_000
    assert [ids.tolist() for ids in encode_all(backend, texts)] == [backend.encode(texts[0]).ids] * len(texts)


def test_bulk_encoding_equals_single_encoding_with_every_engine(loaded, monkeypatch):
    tokenizer = loaded("byte_bpe")
    texts = CORPUS * 40
    expected = [tokenizer.encode(text).tolist() for text in CORPUS] * 40
    find = engine.importlib.util.find_spec
    for missing in ((), ("gigatoken",), ("gigatoken", "tiktoken")):

        def installed(name, missing=missing):
            return None if name in missing else find(name)

        with monkeypatch.context() as patch:
            patch.setattr(engine.importlib.util, "find_spec", installed)
            assert [ids.tolist() for ids in encode_all(tokenizer.backend, iter(texts))] == expected


def test_texts_are_read_lazily(loaded, monkeypatch):
    monkeypatch.setattr(engine, "BATCH_CHARACTERS", 1000)
    drawn = 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield "ten letter"

    stream = encode_all(loaded("byte_bpe").backend, endless())
    for _ in range(50):
        next(stream)
    assert drawn < 100


def test_engines_do_not_change_the_tokenizer(loaded):
    backend = loaded("byte_bpe").backend
    before = backend.to_str()
    choose_engine(backend, CORPUS)
    assert json.loads(backend.to_str()) == json.loads(before)


def test_a_regular_expression_that_fails_on_a_text_is_one_line():
    backend = split_first(r"(a+)+$")
    with pytest.raises(UserError, match=r"^the tokenizer's rules cannot be applied to a text: "):
        list(encode_all(backend, ["fine", "a" * 5000 + "!"]))
