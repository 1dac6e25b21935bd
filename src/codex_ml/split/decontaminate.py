"""Items of public benchmarks inside training text: exact runs of words, wherever case and punctuation differ.

Words are lower-cased and cut as `words` says. A text of 13 words or more is found by any 13 of its words in a row
(Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C), one of 6 to 12 words only as a whole: most
solutions of HumanEval have no line of 13 words. Where most words of an item are single letters of a script without
blanks, both limits are doubled: a letter says less than a word. Paraphrases are not found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.sorted_arrays import begins_of, find
from codex_ml.split.duplicates.shingles import MULTIPLY, word_hashes
from codex_ml.split.duplicates.words import cut, spans, unspaced_letters

RUN_WORDS, FEWEST_WORDS = 13, 6

_IS_WORD = np.array([byte >= 128 or chr(byte).isalnum() or byte == 95 for byte in range(256)])
_BITS = np.array([1 << bit for bit in range(8)], dtype=np.uint8)
_PLACES = np.cumprod(np.full(2 * RUN_WORDS, MULTIPLY, dtype=np.uint64))  # odd, so no word at any place loses a bit

Words = NDArray[np.uint64]
Offsets = NDArray[np.int64]
Span = tuple[int, int]  # the first, and the one after the last


@dataclass(frozen=True)
class Overlap:
    """Where a text holds an item: text[start:end], in characters. The longest of its spans."""

    benchmark: str
    item: str
    start: int
    end: int


@dataclass(frozen=True)
class RunIndex:
    """The runs of all texts, whatever their length: 12 bytes each, and 2 to 4 for the filter.

    Attributes:
        lengths: words of a run, those that occur.
        hashes: (n_runs,) uint64, sorted.
        places: (n_runs,) uint32, of the first word of a run in Benchmarks.words.
        filter: bits, by the first bits of a hash. It spares 15 of 16 runs, or more, the search.
        shift: leaves those first bits.
    """

    lengths: tuple[int, ...]
    hashes: Words
    places: NDArray[np.uint32]
    filter: NDArray[np.uint8]
    shift: np.uint64

    def search(self, hashes: Words) -> tuple[Offsets, Offsets]:
        """Which of the hashes are in the index, and where they are first."""
        keys = (hashes >> self.shift).view(np.int64)
        bits = self.filter[keys >> 3] & _BITS[keys & 7]
        chosen = np.flatnonzero(bits)
        if len(chosen):
            first = find(self.hashes, hashes[chosen])
            return chosen[first >= 0], first[first >= 0]
        return chosen, chosen


@dataclass(frozen=True)
class Benchmarks:
    """An index of items.

    Attributes:
        items: names (benchmark, item).
        unchecked: texts below 6 words, as "BENCHMARK: ITEM (FIELD, n words)", and items without any text.
        words: (n_words,) uint32, halves of the hashes of the words of all texts: a hit is compared with them.
        first_words: (n_items,) int64, where the words of an item begin.
        index: None without any text.
    """

    items: tuple[tuple[str, str], ...]
    unchecked: tuple[str, ...]
    words: NDArray[np.uint32]
    first_words: Offsets
    index: RunIndex | None

    def find(self, text: str) -> list[Overlap]:
        """The items that the text holds, in the order in which they were read; one overlap each."""
        if self.index is None:
            return []
        words = tokenised(text)
        runs = runs_of(words, self.index.lengths)
        chosen, first = self.index.search(np.concatenate(runs))
        if not len(chosen):
            return []
        found: defaultdict[int, list[Span]] = defaultdict(list)  # by item
        begin = 0
        for length, hashes in zip(self.index.lengths, runs, strict=True):
            here = (chosen >= begin) & (chosen < begin + len(hashes))
            for item, in_words in self._spans(words, length, chosen[here] - begin, first[here]):
                found[item] += in_words
            begin += len(hashes)
        characters = spans(text)  # of each word; slow, but few texts hold an item
        return [Overlap(*self.items[item], *_longest(found[item], characters)) for item in sorted(found)]

    def _spans(self, words: Words, length: int, places: Offsets, left: Offsets) -> Iterator[tuple[int, list[Span]]]:
        """Compare the runs of `length` words at `places` with those of the index at `left`: spans in words, by item."""
        index = self.index
        assert index is not None
        same = np.ones(len(places), dtype=bool)
        for offset in range(length):
            same &= self.words[index.places[left].astype(np.int64) + offset] == half_of(words[places + offset])
        places, left = places[same], left[same]
        # A run that many items share and the text repeats is kept once an item, never as items times repetitions.
        distinct, run_of_place = np.unique(left, return_inverse=True)
        after = np.searchsorted(index.hashes, index.hashes[distinct], side="right")
        runs_of_item: defaultdict[int, list[int]] = defaultdict(list)
        for run, (start, stop) in enumerate(zip(distinct.tolist(), after.tolist(), strict=True)):
            for item in self._items_at(index.places[start:stop]).tolist():
                runs_of_item[item].append(run)
        for item, runs in runs_of_item.items():
            chosen = np.zeros(len(distinct), dtype=bool)
            chosen[runs] = True
            yield item, _merged(places[chosen[run_of_place]], length)

    def _items_at(self, places: NDArray[np.uint32]) -> Offsets:
        return np.searchsorted(self.first_words, places, side="right") - 1


def index_of(lengths: tuple[int, ...], hashes: Words, places: NDArray[np.uint32], first_words: Offsets) -> RunIndex:
    """What an item repeats is kept once."""
    order = np.argsort(hashes, kind="stable")
    hashes, places = hashes[order], places[order]
    items = np.searchsorted(first_words, places, side="right")
    distinct = begins_of(hashes, items)
    hashes, places = hashes[distinct], places[distinct]
    bits = max(10, (len(hashes) * 16 - 1).bit_length())  # 16 to 32 bits a run
    shift = np.uint64(64 - bits)
    held = np.zeros(1 << bits, dtype=bool)
    held[hashes >> shift] = True
    return RunIndex(lengths, hashes, places, np.packbits(held, bitorder="little"), shift)


def tokenised(text: str) -> Words:
    """Hashes of the words of a text: (n_words,) uint64, in the order of `words.spans(text)`."""
    # A capital I with a dot is the one character whose lower case is two, and the second would end the word.
    padded = b" " + cut(text.replace("\u0130", "i").lower()).encode("utf-8", "surrogatepass") + b" " * 9
    inside = _IS_WORD[np.frombuffer(padded, np.uint8)]
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    return word_hashes(padded, starts, ends - starts)


def limits(text: str, words: int) -> tuple[int, int]:
    """(words in a row that give an item away, fewest words of a text that is checked) for the text of an item."""
    factor = 2 if 2 * unspaced_letters(text) > words else 1
    return factor * RUN_WORDS, factor * FEWEST_WORDS


def runs_of(words: Words, lengths: tuple[int, ...]) -> list[Words]:
    """Hashes of all runs of so many words, for each of the ascending lengths: a longer run is a shorter one and more.

    Empty for lengths above that of the text.
    """
    total = np.zeros(len(words) + 1, dtype=np.uint64)
    runs, length = [], 0
    for longer in lengths:
        for place in range(length, longer):
            total = total[: max(0, len(words) - place)]
            total += words[place:] * _PLACES[place]
        length = longer
        runs.append(total.copy())
    return runs


def half_of(words: Words) -> NDArray[np.uint32]:
    """The upper halves of the hashes of words, all that is kept of those of an index."""
    return (words >> np.uint64(32)).astype(np.uint32)


def _merged(places: Offsets, length: int) -> list[Span]:
    """Spans (first word, word after the last) of runs that begin at sorted places, joined where they touch.

    Runs of 3 words at 4, 5 and 9 are the spans (4, 8) and (9, 12).
    """
    gaps = np.flatnonzero(np.diff(places) > length)
    firsts = places[np.concatenate([[0], gaps + 1])]
    lasts = places[np.concatenate([gaps, [-1]])] + length
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def _longest(found: list[Span], characters: list[Span]) -> Span:
    """The span of the most characters, the first of equals, after those of different lengths are joined too.

    Args:
        found: spans (first word, word after the last).
        characters: (start, end) of each word.

    Returns:
        (start, end) in characters.
    """
    joined: list[Span] = []
    for first, last in sorted(found):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    whole = ((characters[first][0], characters[last - 1][1]) for first, last in joined)
    return max(whole, key=lambda span: span[1] - span[0])
