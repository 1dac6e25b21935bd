"""tokenizer.add_pieces: a byte-level BPE gets pieces of the corpus; old ids stay, no text is lost, others are refused."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from codex_ml.core.errors import UserError
from codex_ml.tokenizer import added_pieces
from codex_ml.tokenizer.config import Tokenizer as Settings
from codex_ml.tokenizer.local_tokenizer import import_tokenizer
from codex_ml.tokens.engine import byte_letters
from codex_ml.tokens.text_tokenizer import load_tokenizer
from codex_ml.tokens.tokenizer_files import TokensPerByte

from .conftest import CORPUS, END

TEXTS = ["low lower lowest"] * 3 + ["newer newest"] * 2


def write_tiny(folder, merges=("l o", "e r"), *, added=(), model=None, cut=None, **more):
    """A byte-level BPE: the 256 bytes have the ids 0 to 255, then the merges, then </s> and `added`."""
    vocabulary = dict(byte_letters())
    for merge in merges:
        vocabulary["".join(merge.split())] = len(vocabulary)
    pairs = [tuple(merge.split()) for merge in merges]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, **(model or {})))
    backend.pre_tokenizer = cut or pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("</s>", special=True)])
    backend.add_tokens(list(added))
    folder.mkdir(exist_ok=True)
    description = json.loads(backend.to_str())
    description["model"] |= more
    (folder / "tokenizer.json").write_text(json.dumps(description))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return folder


@pytest.fixture
def grow(tmp_path):
    """grow(folder, pieces, texts) -> (the loaded tokenizer, its folder, its growth)."""

    def grow(path, pieces, texts=TEXTS, *, val=None, **changes):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        chosen = Settings(kind="local", path="models/base/theirs", add_pieces=pieces, **changes)
        held_out = None if val is None else (lambda: iter(val))
        growth = import_tokenizer(path, lambda: iter(texts), chosen, out, held_out=held_out)
        return load_tokenizer(out), out, growth

    return grow


def test_known_answer(grow, tmp_path):
    """The words as the old merges cut them: "lo w", " lo w er" and " lo w e s t" 3 times each, "n e w er" and " n e w e s
    t" twice each.

    lo w 9 times -> low (259). Then " " low 6 times -> " low" (260). Then e s and s t 5 times each: of equally frequent
    pairs the one with the smaller ids, e (101) before s (115) -> es (261). Then es t 5 times -> est (262).
    """
    tokenizer, out, _ = grow(write_tiny(tmp_path / "theirs"), 4)
    model = json.loads((out / "tokenizer.json").read_bytes())["model"]
    assert model["merges"] == [["l", "o"], ["e", "r"], ["lo", "w"], ["Ġ", "low"], ["e", "s"], ["es", "t"]]
    assert {text: model["vocab"][text] for text in ("lo", "er", "</s>", "low", "Ġlow", "es", "est")} == {
        "lo": 256, "er": 257, "</s>": 258, "low": 259, "Ġlow": 260, "es": 261, "est": 262,
    }  # fmt: skip
    assert tokenizer.encode("low lowest newest").tolist() == [259, 260, 262, 32, 110, 101, 119, 262]
    assert json.loads((out / "added_pieces.json").read_bytes()) == {
        "first": 259, "old_ids": [[256, 119], [32, 256, 119], [101, 115], [101, 115, 116]],
    }  # fmt: skip
    assert tokenizer.added_pieces == [[256, 119], [32, 256, 119], [101, 115], [101, 115, 116]]
    assert (tokenizer.end, tokenizer.vocab_size) == (258, 263)


def test_the_gain_is_tokens_per_byte_of_train_and_val(grow, tmp_path):
    """train: 3 x 16 + 2 x 12 = 72 bytes; 3 x (2 + 4 + 6) + 2 x (4 + 7) = 58 tokens, then 3 x (1 + 2 + 2) + 2 x (4 + 5)
    = 33. val: "low lower" has 9 bytes; 2 + 4 tokens, then 1 + 2.
    """
    growth = grow(write_tiny(tmp_path / "theirs"), 4, val=["low lower"])[2]
    assert growth.pieces == 4
    assert growth.train == TokensPerByte(before=round(58 / 72, 6), after=round(33 / 72, 6))
    assert growth.val == TokensPerByte(before=round(6 / 9, 6), after=round(3 / 9, 6))


def test_without_add_pieces_the_files_are_the_same_bytes_and_none_more(grow, trained):
    tokenizer, out, growth = grow(trained("byte_bpe"), 0)
    assert growth is None and tokenizer.added_pieces == []
    assert not (out / "added_pieces.json").exists()
    assert json.loads((out / "tokenizer.json").read_bytes()) == json.loads(
        (trained("byte_bpe") / "tokenizer.json").read_bytes()
    )


def test_continuing_a_vocabulary_gives_the_merges_of_training_the_larger_one(grow, trained):
    """The trainer of the tokenizers library, on the same documents, is the judge."""
    _, out, _ = grow(trained("byte_bpe", vocab_size=270), 30, CORPUS)
    judge = json.loads((trained("byte_bpe", vocab_size=300) / "tokenizer.json").read_bytes())["model"]["merges"]
    assert len(judge) == 300 - 2 - 256
    assert json.loads((out / "tokenizer.json").read_bytes())["model"]["merges"] == judge


def test_every_old_token_keeps_its_id_and_its_merge_its_rank(grow, trained):
    tokenizer, out, _ = grow(trained("byte_bpe", vocab_size=270), 30, CORPUS, special_tokens=("<|tool|>",))
    before = json.loads((trained("byte_bpe", vocab_size=270) / "tokenizer.json").read_bytes())["model"]
    after = json.loads((out / "tokenizer.json").read_bytes())["model"]
    assert after["merges"][: len(before["merges"])] == before["merges"]
    assert before["vocab"].items() <= after["vocab"].items()
    assert (tokenizer.special[END], tokenizer.special["<|pad|>"], tokenizer.special["<|tool|>"]) == (268, 269, 270)
    assert (len(tokenizer.added_pieces), tokenizer.vocab_size) == (30, 301)


@pytest.fixture(scope="module")
def grown(trained, tmp_path_factory):
    """(the old tokenizer, the larger one)"""
    out = tmp_path_factory.mktemp("grown")
    chosen = Settings(kind="local", path="models/base/theirs", add_pieces=30)
    import_tokenizer(trained("byte_bpe", vocab_size=270), lambda: iter(CORPUS), chosen, out)
    return load_tokenizer(trained("byte_bpe", vocab_size=270)), load_tokenizer(out)


PARTS = st.lists(
    st.one_of(st.text(max_size=8), st.sampled_from([END, "<|pad|>", "def function_", "return value", " +"]))
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=PARTS)
def test_no_text_is_lost_and_text_without_a_new_piece_keeps_its_ids(grown, parts):
    old, new = grown
    text = "".join(parts)
    ids = new.encode(text).tolist()
    assert new.decode(ids) == text
    assert not {new.end, new.pad} & set(ids)
    parts_of_new = [one for number in ids for one in ([number] if number < 270 else new.added_pieces[number - 270])]
    if max(ids, default=0) < 270:
        assert ids == old.encode(text).tolist()
    assert old.decode(parts_of_new) == text  # each new piece is the text of its old ids


def test_plain_transformers_gives_the_same_ids(grown, grow, trained, tmp_path):
    from transformers import AutoTokenizer

    tokenizer, out, _ = grow(trained("byte_bpe", vocab_size=270), 30, CORPUS)
    plain = AutoTokenizer.from_pretrained(out, local_files_only=True)
    for text in CORPUS[:5]:
        assert (
            plain(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            == tokenizer.encode(text).tolist()
        )
    assert len(plain) == tokenizer.vocab_size == 300
    plain.save_pretrained(tmp_path / "again")
    again = AutoTokenizer.from_pretrained(tmp_path / "again", local_files_only=True)
    assert again("def function_1(value)")["input_ids"] == plain("def function_1(value)")["input_ids"]


def test_added_tokens_of_the_base_stay_in_the_way_of_text(grow, tmp_path):
    """An added token that is not special cuts text before the merges do, so no piece reaches across it."""
    base = write_tiny(tmp_path / "theirs", added=["ow"])
    tokenizer, _, _ = grow(base, 3)
    assert tokenizer.encode("low").tolist() == [108, 259]
    assert not any("ow" in text for text, number in tokenizer.backend.get_vocab().items() if number > 259)


def test_merges_written_as_text_stay_text(grow, tmp_path):
    base = write_tiny(tmp_path / "theirs", merges=("l o", "e r"))
    description = json.loads((base / "tokenizer.json").read_bytes())
    description["model"]["merges"] = ["l o", "e r"]
    (base / "tokenizer.json").write_text(json.dumps(description))
    tokenizer, out, _ = grow(base, 1)
    assert json.loads((out / "tokenizer.json").read_bytes())["model"]["merges"] == ["l o", "e r", "lo w"]
    assert tokenizer.encode("low").tolist() == [259]


def test_a_vocabulary_that_looks_up_whole_words_first_grows_too(grow, tmp_path):
    """As in Llama 3: with ignore_merges a word that is a token is this token, whatever the merges say."""
    base = write_tiny(tmp_path / "theirs", model={"ignore_merges": True})
    tokenizer, _, _ = grow(base, 4)
    assert tokenizer.encode("low lowest newest").tolist() == [259, 260, 262, 32, 110, 101, 119, 262]


def test_the_order_of_the_documents_changes_no_byte(grow, tmp_path):
    base = write_tiny(tmp_path / "theirs")
    files = [(grow(base, 4, texts)[1] / "tokenizer.json").read_bytes() for texts in (TEXTS, TEXTS[::-1])]
    assert files[0] == files[1]


def test_memory_is_bounded_by_forgetting_the_rarer_half_of_the_words(monkeypatch, tmp_path):
    monkeypatch.setattr(added_pieces, "WORDS", 2)
    base = json.loads((write_tiny(tmp_path / "theirs") / "tokenizer.json").read_bytes())
    counts = added_pieces.count_words(added_pieces.backend_of(base), ["low", "low", "new", "won", "low", "wen"])
    assert counts == {(256, 119): 3, (119, 101, 110): 1}  # at the third different word, new and won are forgotten


def test_fewer_pieces_than_asked_for_are_reported_and_none_is_refused(grow, tmp_path, caplog):
    base = write_tiny(tmp_path / "theirs")
    with caplog.at_level(logging.WARNING, "codex_ml"):
        assert len(grow(base, 100, ["abc", "abc"])[0].added_pieces) == 2
    assert "train has 2 pieces to add, not tokenizer.add_pieces 100" in caplog.text
    with pytest.raises(
        UserError, match=r"^tokenizer\.add_pieces 5: train has no piece to add, because no two pieces of"
    ):
        grow(base, 5, ["abc", "def"])


@pytest.mark.parametrize(
    ("kind", "found"), [("unigram", "Unigram"), ("wordpiece", "WordPiece"), ("whitespace", "WordLevel")]
)
def test_other_models_are_refused_by_name(grow, trained, kind, found):
    with pytest.raises(UserError, match=rf"^tokenizer\.add_pieces: .*tokenizer\.json is {found}; only byte-level BPE"):
        grow(trained(kind), 4, CORPUS)


@pytest.mark.parametrize(
    ("kind", "found"),
    [("sentencepiece_bpe", r"BPE of SentencePiece \(byte_fallback\)"), ("sentencepiece_unigram", "Unigram")],
)
def test_models_of_sentencepiece_are_refused_as_model_and_as_json(grow, trained, tmp_path, kind, found):
    with pytest.raises(UserError, match=rf"tokenizer\.json is {found}; only byte-level BPE"):
        grow(trained(kind), 4, CORPUS)
    (tmp_path / "model").mkdir()
    shutil.copy(trained(kind) / "tokenizer.model", tmp_path / "model")
    with pytest.raises(UserError, match=rf"tokenizer\.model is {found}; only byte-level BPE"):
        grow(tmp_path / "model", 4, CORPUS)


def test_a_vocabulary_without_the_bytes_that_utf_8_never_has_grows_too(grow, tmp_path):
    """As in SmolLM2: no UTF-8 text has the bytes 192, 193 and 245 to 255."""
    base = write_tiny(tmp_path / "theirs")
    description = json.loads((base / "tokenizer.json").read_bytes())
    for letter, byte in byte_letters().items():
        if byte in (192, 193, *range(245, 256)):
            del description["model"]["vocab"][letter]
    description["model"]["vocab"]["</s>"] = 258
    (base / "tokenizer.json").write_text(json.dumps(description))
    assert grow(base, 4)[0].encode("low lowest newest").tolist() == [259, 260, 262, 32, 110, 101, 119, 262]


def test_the_file_has_the_ids_that_the_library_gives_to_added_tokens(grow, tmp_path):
    """The library numbers added tokens after the vocabulary, here from 258, whatever id the file says."""
    base = write_tiny(tmp_path / "theirs")
    description = json.loads((base / "tokenizer.json").read_bytes())
    description["added_tokens"][0]["id"] = 400
    (base / "tokenizer.json").write_text(json.dumps(description))
    tokenizer, out, _ = grow(base, 4)
    assert [token["id"] for token in json.loads((out / "tokenizer.json").read_bytes())["added_tokens"]] == [258]
    assert (tokenizer.end, tokenizer.encode("low").tolist(), tokenizer.vocab_size) == (258, [259], 263)


def test_bpe_with_ends_of_words_or_of_characters_is_refused(grow, tmp_path):
    with pytest.raises(UserError, match="is BPE with end_of_word_suffix; only byte-level BPE"):
        grow(write_tiny(tmp_path / "ends", end_of_word_suffix="</w>"), 4)
    words = write_tiny(tmp_path / "words", cut=pre_tokenizers.WhitespaceSplit())
    with pytest.raises(UserError, match="is BPE of characters; only byte-level BPE"):
        grow(words, 4)


def test_only_kind_local_can_add_pieces():
    with pytest.raises(ValueError, match="add_pieces 5 is for kind local; kind byte_bpe is trained: raise vocab_size"):
        Settings(add_pieces=5)
