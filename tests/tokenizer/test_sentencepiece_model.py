"""Reading .model files: a damaged file is refused, and so is a tokenizer that gives different ids."""

from __future__ import annotations

import io
import random
import string
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import models

from codex_ml.core.errors import CheckFailed, UserError
from codex_ml.tokenizer.sentencepiece_file import BYTE, GRID, NORMAL, UNKNOWN, read_model
from codex_ml.tokenizer.sentencepiece_model import HARD, prove_equal, to_tokenizer

from .conftest import CORPUS

NAME = Path("their.model")
TEXTS = [*CORPUS, *(c for c in string.printable if not c.isspace())]


def train(texts=TEXTS, **options):
    writer = io.BytesIO()
    defaults = {
        "vocab_size": 380,
        "model_type": "bpe",
        "byte_fallback": True,
        "hard_vocab_limit": False,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=writer, **(defaults | options))
    return writer.getvalue()


def test_fields_are_read_as_sentencepiece_reads_them():
    data = train(add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity")
    model, judge = read_model(data, NAME), sentencepiece.SentencePieceProcessor(model_proto=data)
    assert [text for text, _, _ in model.pieces] == [judge.id_to_piece(i) for i in range(judge.get_piece_size())]
    assert [score for _, score, _ in model.pieces] == [judge.get_score(i) for i in range(judge.get_piece_size())]
    assert [kind == BYTE for _, _, kind in model.pieces] == [judge.is_byte(i) for i in range(judge.get_piece_size())]
    assert model.pieces[0][2] == UNKNOWN
    assert (model.unigram, model.byte_fallback, model.dummy_prefix, model.squeeze) == (False, True, False, False)
    assert (model.charsmap, model.escape) == (b"", True)


@pytest.mark.parametrize(
    "options",
    [
        {},  # nmt_nfkc, dummy prefix, squeezed spaces: the defaults of most published models
        {"model_type": "unigram"},
        {"byte_fallback": False},
        {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    ],
    ids=["defaults", "unigram", "no bytes", "identity"],
)
def test_foreign_models_become_tokenizers_with_the_same_ids(options):
    data = train(**options)
    texts = [text for text in HARD if "\0" not in text] if options.get("byte_fallback") is False else HARD
    prove_equal(to_tokenizer(read_model(data, NAME)), data, [*texts, *CORPUS])


PIECES = (
    " ", " ", "  ", "\t", "\n", "\r", "\u00a0", "\u3000", "\u2003", "\u200b", "\u0085", "\x0b", "\x1c", "\u2028", "\u2581",
    "\ufeff", "a", "b", "fi", "\ufb01", "\u00b2", "e\u0301", "\uff21",
)  # fmt: skip
IDENTITY = {"normalization_rule_name": "identity"}
EXACT = {**IDENTITY, "remove_extra_whitespaces": False}
WHITE_SPACE = {
    "defaults": {},
    "unigram": {"model_type": "unigram"},
    "nfkc": {"normalization_rule_name": "nfkc"},
    "case folded": {"normalization_rule_name": "nmt_nfkc_cf"},
    "identity": IDENTITY,
    "identity, unigram": {"model_type": "unigram", **IDENTITY},
    "identity, no prefix": {"add_dummy_prefix": False, **IDENTITY},
    "exact": EXACT,
    "exact, no prefix": {"add_dummy_prefix": False, **EXACT},
}


@pytest.mark.parametrize("options", WHITE_SPACE.values(), ids=WHITE_SPACE)
def test_white_space_is_encoded_and_decoded_as_in_sentencepiece(options):
    """The library's Strip removes line breaks, tabs and U+0085 at both ends; sentencepiece removes only spaces."""
    random_ = random.Random(7)
    texts = ["".join(random_.choices(PIECES, k=random_.randrange(9))) for _ in range(2000)]
    data = train([*TEXTS, *filter(None, texts[:200])], num_threads=1, **options)
    tokenizer, judge = to_tokenizer(read_model(data, NAME)), sentencepiece.SentencePieceProcessor(model_proto=data)
    for text in texts:
        ids = judge.encode(text)
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids, repr(text)
        assert tokenizer.decode(ids, skip_special_tokens=False) == judge.decode(ids), repr(text)


def test_a_unigram_model_whose_control_pieces_text_could_forge_is_refused():
    data = train(["no angle brackets here"] * 9 + ["abc de"], model_type="unigram", vocab_size=300)
    with pytest.raises(CheckFailed, match="differently from token"):
        prove_equal(to_tokenizer(read_model(data, NAME)), data, HARD)


@pytest.mark.parametrize("kind", ["word", "char"])
def test_model_types_without_a_tokenizer_json_form_are_refused(kind):
    with pytest.raises(UserError, match=r"its model type is [34]; allowed: unigram \(1\) and bpe \(2\)$"):
        read_model(train(model_type=kind, byte_fallback=False), NAME)


def test_a_truncated_file_is_refused_or_read_without_a_crash():
    data = train()
    for end in range(0, len(data), 97):
        try:
            read_model(data[:end], NAME)
        except UserError as error:
            assert str(error).startswith("their.model cannot be used as a SentencePiece model: ")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0b\x00", b"PK\x03\x04", b"\x0a\x02\x0a\x05"],
)
def test_data_that_is_not_a_model_is_refused(data):
    with pytest.raises(UserError, match=r"^their\.model cannot be used as a SentencePiece model: "):
        read_model(data, NAME)


def test_a_tokenizer_that_differs_is_refused():
    data = train()
    tokenizer = to_tokenizer(read_model(data, NAME))
    vocabulary = tokenizer.get_vocab()
    tokenizer.model = models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    with pytest.raises(
        CheckFailed, match=r"tokenizer\.json and tokenizer\.model encode 'def function_0.* differently from token"
    ):
        prove_equal(tokenizer, data, CORPUS)


def test_unigram_scores_of_a_trained_model_sum_exactly_in_float32(trained):
    model = read_model((trained("sentencepiece_unigram") / "tokenizer.model").read_bytes(), NAME)
    assert all((score / GRID).is_integer() for _, score, kind in model.pieces if kind == NORMAL)
    assert min(score for _, score, kind in model.pieces if kind == NORMAL) > -50


def test_the_end_of_a_text_is_stripped_in_time_that_follows_its_length():
    """The rule without a look-behind takes 2 minutes for 80,000 of these, and four times as long for twice as many."""
    tokenizer = to_tokenizer(read_model(train(normalization_rule_name="identity"), NAME))
    assert tokenizer.normalizer.normalize_str("\u2581" * 300_000 + "x") == "\u2581" * 300_001 + "x"
    assert tokenizer.normalizer.normalize_str("x" + " " * 300_000) == "\u2581x"
