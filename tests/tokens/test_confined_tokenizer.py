"""A tokenizer with rules that may take any time or memory encodes in a limited child; known rules need none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from codex_ml.core.errors import UserError
from codex_ml.tokens import confined_tokenizer
from codex_ml.tokens.bounded_rules import is_bounded
from codex_ml.tokens.confined_tokenizer import ConfinedTokenizer, confined, naming_document
from codex_ml.tokens.lossless import RoundTrip
from codex_ml.tokens.text_tokenizer import load_tokenizer

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def words(normalizer=None, pre_tokenizer=None, decoder=None, model=None):
    made = Tokenizer(model or models.BPE({"a": 0, "b": 1, "aa": 2}, [("a", "a")]))
    if normalizer:
        made.normalizer = normalizer
    if pre_tokenizer:
        made.pre_tokenizer = pre_tokenizer
    if decoder:
        made.decoder = decoder
    made.encode_special_tokens = True
    return made


def sequence(*steps):
    return normalizers.Sequence(list(steps))


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"normalizer": sequence(normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581"))},
        {"normalizer": sequence(normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), "\u2581"))},
        {"pre_tokenizer": pre_tokenizers.ByteLevel(), "decoder": decoders.ByteLevel()},
        {"pre_tokenizer": pre_tokenizers.Sequence([split(LLAMA3), pre_tokenizers.ByteLevel(use_regex=False)])},
        {"pre_tokenizer": pre_tokenizers.Sequence([split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5]+")])},
        {"decoder": decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])},
    ],
)
def test_the_rules_of_published_tokenizers_are_used_in_this_process(rules):
    made = words(**rules)
    assert is_bounded(made) and confined(made) is made


@pytest.mark.parametrize(
    "rules",
    [
        {"normalizer": normalizers.Replace("a", "a" * 9)},
        {"normalizer": sequence(normalizers.Replace("a", "aaa"), normalizers.Replace("a", "aaa"))},
        {"normalizer": normalizers.Replace("", "a")},
        {"normalizer": normalizers.Replace(Regex(r"\A(?:[\s\S]{50000}){4}"), "a")},
        {"normalizer": normalizers.Prepend("a" * 8)},
        {"normalizer": sequence(*[normalizers.ByteLevel()] * 2)},
        {"pre_tokenizer": split(r"(a|aa)+$")},
        {"decoder": decoders.Replace("a", "a" * 9)},
        {"decoder": decoders.Replace(Regex("(a+)+$"), "a")},
        {"model": models.WordPiece({"a": 0}, unk_token="a", max_input_chars_per_word=1001)},
        {"model": models.BPE({"a": 0}, [], continuing_subword_prefix="#" * 17)},
        {"model": models.Unigram([("a", 0.0), ("a" * 1025, -1.0)], unk_id=0)},
    ],
)
def test_a_rule_that_may_explode_on_some_text_is_used_in_a_child(rules):
    assert not is_bounded(words(**rules))


def test_every_kind_that_is_trained_here_is_bounded(trained, tmp_path):
    for kind in ("byte_bpe", "unigram", "wordpiece", "sentencepiece_bpe", "sentencepiece_unigram", "whitespace"):
        assert is_bounded(Tokenizer.from_file(str(trained(kind) / "tokenizer.json"))), kind


def test_the_child_gives_what_this_process_gives(loaded):
    plain = loaded("sentencepiece_unigram", special_tokens=("<|tool|>",))
    child = ConfinedTokenizer(plain.backend)
    for text in ("", "def f(x):\n  return \u00e9\U0001f468", "a<|tool|>b", " " * 50):
        one, other = child.encode(text), plain.backend.encode(text, add_special_tokens=False)
        assert (one.ids, one.offsets, one.word_ids) == (other.ids, other.offsets, other.word_ids)
        assert child.decode(one.ids) == plain.decode(other.ids)
    child.encode_special_tokens = False
    assert plain.special["<|tool|>"] in child.encode("a<|tool|>b").ids
    assert child.token_to_id("<|tool|>") == plain.special["<|tool|>"]


LATE = 200_000  # characters before the rule fires


@pytest.fixture(scope="module")
def late(tmp_path_factory, trained):
    """A tokenizer whose Replace rule fires after LATE characters, or at a snowman, and then writes 100 kB."""
    folder = tmp_path_factory.mktemp("late")
    for file in trained("byte_bpe").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    description = json.loads((folder / "tokenizer.json").read_bytes())
    rule = {"type": "Replace", "pattern": {"Regex": rf"\A(?:[\s\S]{{{LATE // 4}}}){{4}}|\u2603z"}}
    description["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Lowercase"}, {**rule, "content": "b" * 100_000}],
    }
    (folder / "tokenizer.json").write_text(json.dumps(description))
    return load_tokenizer(folder)


class Named:
    source, id = "theirs", "0011"

    def __init__(self, content, path):
        self.content, self.path = content, path


def test_a_rule_that_fires_late_costs_this_process_nothing_and_names_the_document(late, monkeypatch):
    monkeypatch.setattr(late.backend._child, "memory", 256 << 20)
    documents = [Named("a b", "short.txt"), Named("\u2603z" * 20_000, "snow.txt")]
    stream = RoundTrip("train").watch(late, iter(documents))
    assert next(stream).dtype == np.uint32
    with pytest.raises(
        UserError, match=r"train 0011 theirs snow\.txt: the tokenizer's rules cannot be applied to a text: .*"
    ) as error:
        next(stream)
    assert "most likely out of memory" in str(error.value) or "more memory than its limit" in str(error.value)
    assert late.encode("a" * LATE).tolist() == late.encode("b" * 100_000).tolist()  # the next text starts a new child


def test_a_text_that_takes_too_long_is_ended(monkeypatch):
    monkeypatch.setattr(confined_tokenizer, "SECONDS", 1)
    slow = confined(words(pre_tokenizer=split(r"[ab]*[^ab]")))  # reads the rest of the text at each place
    assert slow.encode("aa").ids == [2]
    with pytest.raises(UserError, match="cannot be applied to a text: it used more than 1 s of CPU time and was ended"):
        slow.encode("ab" * 100_000)


def test_half_a_character_is_one_line(loaded, late):
    for tokenizer in (loaded("byte_bpe"), late):
        with pytest.raises(UserError, match="lone surrogate"):
            tokenizer.encode("a\ud800")
        with pytest.raises(UserError, match="lone surrogate"):
            list(tokenizer.encode_documents(["a", "a\ud800"]))
    with (
        pytest.raises(
            UserError, match=r"^pack 0011 theirs x\.py: .*; leave the document out, or use another tokenizer$"
        ),
        naming_document("pack", Named("", "x.py")),
    ):
        loaded("byte_bpe").encode("\ud800")
