"""Turn texts into sets of shingles, which the search for near-duplicates compares.

A shingle is a run of 5 lower-cased words, cut as in `words`. numpy computes them for many texts at once. The hashes are
frozen: they are equal on every machine and in every version, because documents that are added later must still find
their near-duplicates. Used by: split.screen, split.decontaminate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from codex_ml.core.sorted_arrays import begins_of
from codex_ml.split.duplicates.words import cut

SHINGLE_WORDS = 5
LANES = 8  # lanes of 8 bytes per word; the few longer words are hashed one by one

Shingles = NDArray[np.uint64]

_IS_WORD = np.array([byte >= 128 or chr(byte).isalnum() or byte == 95 for byte in range(256)])
_MASKS = np.array([(1 << (8 * length)) - 1 for length in range(9)], dtype=np.uint64)
MULTIPLY = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, as in splitmix64
_PLACES = np.array(
    [0xA24BAED4963EE407, 0x9FB21C651E98DF25, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9],
    dtype=np.uint64,
)


def shingles_of(texts: Sequence[str]) -> list[Shingles]:
    """Hashes of the distinct shingles of each text, sorted: (n,) uint64. Empty for a text of fewer than 5 words."""
    encoded = [_encoded(text) for text in texts]
    data = b" " + b" ".join(encoded) + b" " * 9  # spaces between texts and at both ends; room for the last lane
    ends = np.cumsum([len(text) + 1 for text in encoded])
    steps = np.diff(_IS_WORD[np.frombuffer(data, np.uint8)].view(np.int8))
    starts = np.flatnonzero(steps == 1) + 1
    lengths = np.flatnonzero(steps == -1) + 1 - starts
    words = word_hashes(data, starts, lengths)
    text_of_word = np.searchsorted(ends, starts - 1, side="right")
    count = max(0, len(words) - SHINGLE_WORDS + 1)
    runs = np.zeros(count, dtype=np.uint64)
    for place in range(SHINGLE_WORDS):
        runs += words[place : count + place] * _PLACES[place]
    whole = text_of_word[:count] == text_of_word[SHINGLE_WORDS - 1 : count + SHINGLE_WORDS - 1]
    runs, text_of_run = _mix(runs[whole]), text_of_word[:count][whole]
    edges = np.searchsorted(text_of_run, np.arange(len(texts) + 1))
    return [_distinct(runs[edges[i] : edges[i + 1]]) for i in range(len(texts))]


def _distinct(values: NDArray[np.uint64]) -> Shingles:
    """Sorted and distinct values. np.unique hashes first and takes twice as long."""
    values = np.sort(values)
    return values[begins_of(values)]


def _encoded(text: str) -> bytes:
    """The text in lower case as UTF-8. A word is a run of bytes for which `_IS_WORD` is True."""
    return cut(text.lower()).encode("utf-8", "surrogatepass")


def word_hashes(data: bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hashes of the words data[start : start + length]: (n,) uint64, 8 bytes per step for all words at once."""
    view = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))  # the 8 bytes from each offset on
    hashes = lengths.astype(np.uint64) * MULTIPLY
    rest = np.flatnonzero((lengths > 0) & (lengths <= 8 * LANES))
    place, left = starts[rest], lengths[rest]
    while len(rest):
        lane = (hashes[rest] ^ (view[place] & _MASKS[np.minimum(left, 8)])) * _PLACES[2]
        hashes[rest] = lane ^ (lane >> np.uint64(29))
        more = np.flatnonzero(left > 8)
        rest, place, left = rest[more], place[more] + 8, left[more] - 8
    for word in np.flatnonzero(lengths > 8 * LANES).tolist():
        hashes[word] = xxhash.xxh3_64_intdigest(data[starts[word] : starts[word] + lengths[word]])
    return hashes


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread every bit over all others (Steele, Lea and Flood 2014, Fast splittable pseudorandom number generators)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
