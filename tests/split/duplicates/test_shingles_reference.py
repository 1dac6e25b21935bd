"""The frozen hash, written down a second time: word by word, in Python's integers, with the byte order spelt out."""

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.split.duplicates.shingles import shingles_of

from ..dealing import plain_words

ALL = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
PLACES = (0xA24BAED4963EE407, 0x9FB21C651E98DF25, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)


def word_hash(word):
    if len(word) > 64:
        return xxhash.xxh3_64_intdigest(word)
    value = len(word) * GOLDEN & ALL
    for start in range(0, len(word), 8):
        lane = (value ^ int.from_bytes(word[start : start + 8], "little")) * PLACES[2] & ALL
        value = lane ^ (lane >> 29)
    return value


def mix(value):
    """splitmix64's finaliser (Steele, Lea and Flood 2014; java.util.SplittableRandom)."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & ALL
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & ALL
    return value ^ (value >> 31)


def reference(text):
    words = [word_hash(word.encode()) for word in plain_words(text.lower())]
    runs = (words[i : i + 5] for i in range(len(words) - 4))
    return sorted({mix(sum(w * p for w, p in zip(run, PLACES, strict=True)) & ALL) for run in runs})


@given(st.lists(st.text(max_size=60), max_size=4))
@settings(max_examples=100, deadline=None)
def test_the_hash_of_any_text_equals_the_definition(texts):
    assert [values.tolist() for values in shingles_of(texts)] == [reference(text) for text in texts]


@pytest.mark.parametrize("length", [*range(1, 20), 31, 32, 33, 63, 64, 65, 66, 127, 128, 200])
def test_the_hash_of_words_of_every_length_equals_the_definition(length):
    text = " ".join(f"{i}" + "abcdefgh_0123456789"[i] * (length - 1) for i in range(8))
    assert shingles_of([text])[0].tolist() == reference(text)
    assert len(reference(text)) == 4
