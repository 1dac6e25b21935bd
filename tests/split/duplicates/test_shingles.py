"""Texts are compared by their runs of five words, with hashes that never change."""

import hashlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.split.duplicates.shingles import shingles_of

from ..dealing import plain_words

TEXT = st.text(max_size=60)
WORDY = st.lists(
    st.sampled_from(
        ["a", "B", "ä", "ß", "İ", "0", "_x", "漢字", "\u0301", "\ud800", "½", "-", "\u2028", "\0", "é" * 40]
    ),
    max_size=14,
).flatmap(lambda words: st.sampled_from([" ", "\n", ", ", "\u2028", "", "\xa0"]).map(lambda s: s.join(words)))


def reference(text):
    words = plain_words(text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def jaccard(a, b):
    return len(a & b) / len(a | b) if a and b else 0.0


@given(st.lists(st.one_of(TEXT, WORDY), max_size=6))
@settings(max_examples=200, deadline=None)
def test_shingles_are_the_runs_of_five_words(texts):
    texts = [*texts, " ".join(texts)]  # its runs have much in common with theirs
    naive = [reference(text) for text in texts]
    hashes = shingles_of(texts)
    found = [set(values.tolist()) for values in hashes]
    assert [len(values) for values in hashes] == [len(values) for values in found] == [len(values) for values in naive]
    for i in range(len(texts)):
        for j in range(i):
            assert jaccard(found[i], found[j]) == jaccard(naive[i], naive[j])


@pytest.mark.parametrize(
    "codes",
    [
        pytest.param(range(0x32400), id="planes with letters"),
        pytest.param(range(0x32400, 0x110000), id="others", marks=pytest.mark.slow),
    ],
)
def test_every_character_is_a_word_or_part_of_one_or_a_separator(codes):
    every = [chr(code) for code in codes]
    step = 4096
    for start in range(0, len(every), step):
        text = " ".join(f"a{c}b" for c in every[start : start + step])
        assert len(shingles_of([text])[0]) == len(reference(text)), hex(start)


@given(st.lists(st.one_of(TEXT, WORDY), max_size=8))
@settings(max_examples=100, deadline=None)
def test_many_texts_at_once_give_the_same_shingles_as_each_alone(texts):
    for together, text in zip(shingles_of(texts), texts, strict=True):
        assert together.dtype == np.uint64
        assert together.tolist() == shingles_of([text])[0].tolist() == sorted(set(together.tolist()))


def test_no_texts_have_no_shingles():
    assert shingles_of([]) == []
    assert [len(values) for values in shingles_of(["", "", ""])] == [0, 0, 0]


@pytest.mark.parametrize("letter", ["a", "ä", "한"])
def test_words_of_every_length_differ_in_every_byte(letter):
    """Words are hashed 8 bytes at a time up to 64 bytes, longer ones whole."""
    runs = set()
    lengths = range(1, 201)
    for length in lengths:
        word = (letter * length).encode()[:length].decode(errors="ignore") or "b"
        variants = {word, *(word[:i] + "z" + word[i + 1 :] for i in range(len(word)))}
        runs |= {f"one two {variant} four five" for variant in variants}
    found = shingles_of(sorted(runs))
    assert all(len(values) == 1 for values in found)
    assert len({int(values[0]) for values in found}) == len(runs)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 63, 64, 65, 200])
@pytest.mark.parametrize("count", [4, 5, 6])
def test_the_position_of_a_word_does_not_change_its_hash(length, count):
    """The last word of all texts is read together with the bytes after it; these must not change the hash."""
    run = " ".join(f"{i}" + "x" * (length - 1) for i in range(count))
    alone = shingles_of([run])[0].tolist()
    assert len(alone) == max(0, count - 4)
    for before, after in (("", ". "), ("!! ", ""), ("\xa0", "\u2028"), ("(", ")" * 99)):
        assert shingles_of([before + run + after])[0].tolist() == alone
    assert shingles_of(["some other text", run, "and one more"])[1].tolist() == alone


def test_the_order_of_words_counts():
    words = ["a", "b", "c", "d", "e"]
    orders = [" ".join(random.Random(i).sample(words, 5)) for i in range(300)]
    assert len({int(values[0]) for values in shingles_of(orders)}) == len(set(orders))


def test_fewer_than_five_words_give_no_shingle():
    short = shingles_of(["", "one", "a b c d", "a b c d", "?!", "a, b; c\nd"])
    assert [len(values) for values in short] == [0] * 6


def test_case_and_punctuation_do_not_hide_a_copy():
    a, b = shingles_of(["Def run(a, b): return a + b", "def RUN ( a ; b ) -> return: a * b"])
    assert a.tolist() == b.tolist() != []


SPACED = [
    "the quick brown fox jumps over the lazy dog",
    "Ein schöner TAG im Größten Wald " + "ä" * 70 + " 한국어 문장 0_x",
]
UNSPACED = [
    "漢字 かな混じり文を書くと、空白はどこにもない。",
    "กำลังเขียนข้อความภาษาไทยโดยไม่เว้นวรรค",
    "一 abc_1 二 ภาษา x",
]
DIGESTS = {
    "spaced": "fae21237eceb6510b81acf71722211e072c0fa5cfd1a09408f6ddd6dad702b53",
    "all": "793b00632b2a9c5aa6adac2c2d83354b3394e1c49ded05ba085d283b5145086c",
}
CODE = f"""
import hashlib
from codex_ml.split.duplicates.shingles import shingles_of
texts = {[*SPACED, *UNSPACED]!r}
print(hashlib.sha256(b"".join(s.astype("<u8").tobytes() for s in shingles_of(texts))).hexdigest())
"""


@pytest.mark.parametrize(("texts", "name"), [(SPACED, "spaced"), ([*SPACED, *UNSPACED], "all")])
def test_hashes_are_frozen(texts, name):
    """Documents that are added later find their near-duplicates only if the hashes never change."""
    values = np.concatenate(shingles_of(texts))
    assert hashlib.sha256(values.astype("<u8").tobytes()).hexdigest() == DIGESTS[name]


@pytest.mark.parametrize("seed", ["0", "7"])
def test_the_hash_seed_of_the_process_changes_nothing(run_python, seed):
    run = run_python("-c", CODE, env={"PYTHONHASHSEED": seed})
    assert run.stdout.strip() == DIGESTS["all"], run.stderr
