"""Which texts a tokenizer of each kind loses. All lossy documents are counted, and the first ones are listed."""

from __future__ import annotations

import io
import json
import tracemalloc

import pytest
import sentencepiece

from codex_ml.documents.document import Document
from codex_ml.tokenizer.config import Tokenizer
from codex_ml.tokenizer.local_tokenizer import import_tokenizer
from codex_ml.tokenizer.measure import tokenizer_metrics
from codex_ml.tokens.lossless import NAMED, RoundTrip, loss_summary, numbers, rows, share_of
from codex_ml.tokens.text_tokenizer import load_tokenizer

from .conftest import CORPUS, LOSSLESS, TRAINED

# What the rules of published tokenizers change: compatibility forms, spaces, U+2581 (SentencePiece's space), long words.
TEXTS = {
    "plain": "return value", "roman numeral": "chapter \u2167", "half width": "\uff76\uff85", "fraction": "\u00bd cup",
    "combined": "a\u0308rger", "precomposed": "\u00e4rger", "three blanks": "a   b", "leading": "  x", "trailing": "x \t",
    "crlf": "a\r\nb", "last line": "a\n", "only white space": " \n\t ", "narrow no-break": "1\u202f000", "next line": "a\u0085b",
    "meta symbol": "\u2581", "meta inside": "x\u2581y", "meta at the end": "x \u2581", "joiner": "\U0001f468\u200d\U0001f680",
    "bidirectional": "\u2067abc\u2069", "soft hyphen": "co\u00adop", "zero width": "a\u200bb", "mark": "\ufeffa", "nul": "a\0b",
    "case": "CamelCase", "punctuation": "f( x )", "contraction": "don 't", "long word": "Ab" * 60, "long path": "a_b-c/" * 30,
    "syriac": "\u0710\u0742\u0712", "surrogate range": "\ud7ff\ue000", "private": "\U0010fffd", "end": "<|endoftext|>",
}  # fmt: skip
META = {name for name, text in TEXTS.items() if "\u2581" in text}
# kind -> what it must lose; WordPiece and whitespace lose white space, and text that is not in the vocabulary
MUST_LOSE = {
    "wordpiece": {"three blanks", "leading", "crlf", "last line", "long word", "long path", "syriac", "private", "punctuation"},
    "whitespace": {"three blanks", "leading", "crlf", "last line", "long word", "long path", "syriac", "private", "case"},
}  # fmt: skip


def documents(texts):
    return [Document("s", f"{name}.txt", name, "", "MIT", "text", text=text) for name, text in texts.items()]


def trip_of(tokenizer, texts=TEXTS, split="train"):
    trip = RoundTrip(split)
    for _ in trip.watch(tokenizer, documents(texts)):
        pass
    return trip


def lost(tokenizer, texts=TEXTS):
    trip = trip_of(tokenizer, texts)
    assert (trip.documents, trip.lossy) == (len(texts), len(trip.named))
    return {loss.id for loss in trip.named}


@pytest.mark.parametrize("kind", TRAINED)
def test_each_kind_loses_exactly_the_documented_text(loaded, kind, monkeypatch):
    monkeypatch.setattr("codex_ml.tokens.lossless.NAMED", len(TEXTS))
    found = lost(loaded(kind))
    if kind in LOSSLESS:
        assert found == (META if kind.startswith("sentencepiece") else set())
    else:
        assert found >= MUST_LOSE[kind]
        assert "plain" not in found


IDENTITY = {"normalization_rule_name": "identity"}
SETTINGS = {
    "defaults": {},
    "nfkc": {"normalization_rule_name": "nfkc"},
    "identity": IDENTITY,
    "exact": {**IDENTITY, "remove_extra_whitespaces": False},
    "exact, no prefix": {**IDENTITY, "remove_extra_whitespaces": False, "add_dummy_prefix": False},
}


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_a_foreign_sentencepiece_model_loses_the_same_text_as_sentencepiece(tmp_path, options, monkeypatch):
    """google/sentencepiece 329, 650: white space and compatibility forms are lost, and U+2581 with every setting."""
    monkeypatch.setattr("codex_ml.tokens.lossless.NAMED", len(TEXTS))
    writer = io.BytesIO()
    known = [text for text in TEXTS.values() if text.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*CORPUS, *known]), model_writer=writer, vocab_size=420, model_type="bpe",
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2, num_threads=1, **options,
    )  # fmt: skip
    (tmp_path / "their.model").write_bytes(writer.getvalue())
    (tmp_path / "out").mkdir()
    settings = Tokenizer(kind="local", path="models/base/their.model")
    import_tokenizer(tmp_path / "their.model", lambda: iter(CORPUS[:5]), settings, tmp_path / "out")
    judge = sentencepiece.SentencePieceProcessor(model_proto=writer.getvalue())
    expected = {name for name, text in TEXTS.items() if judge.decode(judge.encode(text)) != text}
    found = lost(load_tokenizer(tmp_path / "out"))
    assert found == expected
    assert found >= META
    assert (found == META) == (options in (SETTINGS["exact"], SETTINGS["exact, no prefix"]))


NORMALIZERS = {
    "Lowercase": {"case", "long word", "end"} - {"end"},
    "NFKC": {"roman numeral", "half width", "fraction", "combined"},
    "NFD": {"precomposed"},
    "Strip": {"leading", "last line", "trailing"},
    "StripAccents": {"combined"},
}


@pytest.mark.parametrize("kind", NORMALIZERS)
def test_a_byte_level_tokenizer_with_a_normalizer_loses_what_the_normalizer_changes(
    trained, tmp_path, kind, monkeypatch
):
    monkeypatch.setattr("codex_ml.tokens.lossless.NAMED", len(TEXTS))
    description = json.loads((trained("byte_bpe") / "tokenizer.json").read_bytes())
    description["normalizer"] = {"type": kind, **({"strip_left": True, "strip_right": True} if kind == "Strip" else {})}
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    (tmp_path / "tokenizer_config.json").write_bytes((trained("byte_bpe") / "tokenizer_config.json").read_bytes())
    found = lost(load_tokenizer(tmp_path))
    assert found >= NORMALIZERS[kind]
    assert "plain" not in found


def test_lost_text_is_counted_per_split_and_located_without_showing_it(loaded):
    tokenizer = loaded("whitespace")
    trips = [
        trip_of(tokenizer, {"kept": "return value", "gone": "return hunter2secret"}),
        trip_of(tokenizer, {}, "val"),
        trip_of(tokenizer, {f"t{i}": "a  b" for i in range(NAMED + 5)}, "test"),
    ]
    found = numbers(trips)
    assert found["lost"] | {"characters": 0} == {"train": 1, "val": 0, "test": NAMED + 5, "characters": 0}
    assert found["lossless"] == round(1 / (NAMED + 7), 6)
    listed = rows(trips)
    assert len(listed) == 1 + NAMED
    assert listed[0] == {
        "split": "train", "id": "gone", "source": "s", "path": "gone.txt", "character": 7, "characters": 20,
        "lost": listed[0]["lost"],
    }  # fmt: skip
    assert 10 <= listed[0]["lost"] <= 13  # the letters of hunter2secret, except those that [UNK] holds by chance
    line = loss_summary(trips)
    assert line.startswith(
        f"1 of 2 of train, {NAMED + 5} of {NAMED + 5} of test documents decode to a different text, "
    )
    assert "train gone (s gone.txt) from character 7; test t0 (s t0.txt) from character " in line
    assert "hunter2" not in line + json.dumps(listed)


def test_a_lossless_tokenizer_gives_an_empty_summary(loaded):
    trips = [trip_of(loaded("byte_bpe"), split=split) for split in ("train", "val", "test")]
    assert loss_summary(trips) == ""
    assert rows(trips) == []
    assert numbers(trips) == {"lossless": 1.0, "lost": {"train": 0, "val": 0, "test": 0, "characters": 0.0}}


def test_one_lost_document_of_millions_is_not_rounded_away(loaded):
    assert share_of(9_999_999, 10_000_000) < 1
    assert share_of(10_000_000, 10_000_000) == 1
    assert share_of(0, 0) == 1
    texts = [("text", "return value")] * 99 + [("text", "return  value")]
    assert tokenizer_metrics(loaded("whitespace"), texts)["lossless"] == 0.99


def test_memory_does_not_grow_with_the_documents(loaded, monkeypatch):
    monkeypatch.setattr("codex_ml.tokens.engine.BATCH_CHARACTERS", 20_000)
    tokenizer, peaks = loaded("byte_bpe"), []
    for count in (500, 4_000):
        stream = (Document("s", str(i), str(i), "", "MIT", "text", text=f"value {i} " * 40) for i in range(count))
        tracemalloc.start()
        trip = RoundTrip("train")
        assert sum(1 for _ in trip.watch(tokenizer, stream)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]
