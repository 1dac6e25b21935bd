"""Find items of public benchmarks inside training text: exact runs of words, regardless of case and punctuation.

Words are lower-cased and cut as in `words`. An item text of 13 words or more is found by any run of 13 of its words
(Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C). A text of 6 to 12 words is found only as a
whole: most solutions of HumanEval have no line of 13 words. If most words of an item are single letters of a script
without spaces, both limits are doubled, because a letter carries less information than a word. Paraphrases are not
found. Used by: split.screen, split.benchmarks.
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
_PLACES = np.cumprod(np.full(2 * RUN_WORDS, MULTIPLY, dtype=np.uint64))  # odd factors, so that no bit of a word is lost

Words = NDArray[np.uint64]
Offsets = NDArray[np.int64]
Span = tuple[int, int]  # half-open


@dataclass(frozen=True)
class Overlap:
    """The longest span of a text that holds part of an item: text[start:end], in characters."""

    benchmark: str
    item: str
    start: int
    end: int


@dataclass(frozen=True)
class RunIndex:
    """The runs of all item texts, of all lengths: 12 bytes per run, and 2 to 4 for the filter.

    Attributes:
        lengths: the lengths of runs that occur, in words, ascending.
        hashes: (n_runs,) uint64, sorted.
        places: (n_runs,) uint32, offset of the first word of a run in Benchmarks.words.
        filter: bit set, indexed by the first bits of a hash. At least 15 of 16 runs need no search.
        shift: right shift that leaves these first bits.
    """

    lengths: tuple[int, ...]
    hashes: Words
    places: NDArray[np.uint32]
    filter: NDArray[np.uint8]
    shift: np.uint64

    def search(self, hashes: Words) -> tuple[Offsets, Offsets]:
        """(indices of the hashes that are in the index, offset of the first equal hash in the index): both (k,)."""
        keys = (hashes >> self.shift).view(np.int64)
        bits = self.filter[keys >> 3] & _BITS[keys & 7]
        chosen = np.flatnonzero(bits)
        if len(chosen):
            first = find(self.hashes, hashes[chosen])
            return chosen[first >= 0], first[first >= 0]
        return chosen, chosen


@dataclass(frozen=True)
class Benchmarks:
    """An index of benchmark items.

    Attributes:
        items: names (benchmark, item).
        unchecked: texts that are too short, as "BENCHMARK: ITEM (FIELD, n words)", and items without any text.
        words: (n_words,) uint32, upper halves of the word hashes of all texts. Each hit is compared with them.
        first_words: (n_items,) int64, offset of the first word of each item in `words`.
        index: None if there is no text.
    """

    items: tuple[tuple[str, str], ...]
    unchecked: tuple[str, ...]
    words: NDArray[np.uint32]
    first_words: Offsets
    index: RunIndex | None

    def find(self, text: str) -> list[Overlap]:
        """The items that the text holds, in the order in which they were read; one overlap per item."""
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
        characters = spans(text)  # span of each word; slow, but few texts hold an item
        return [Overlap(*self.items[item], *_longest(found[item], characters)) for item in sorted(found)]

    def _spans(self, words: Words, length: int, places: Offsets, left: Offsets) -> Iterator[tuple[int, list[Span]]]:
        """Compare the runs of `length` words at `places` with the index at `left`; yield (item, spans in words)."""
        index = self.index
        assert index is not None
        same = np.ones(len(places), dtype=bool)
        for offset in range(length):
            same &= self.words[index.places[left].astype(np.int64) + offset] == half_of(words[places + offset])
        places, left = places[same], left[same]
        # A run that many items share and the text repeats is kept once per item, never as items x repetitions.
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
    """Build the index of runs. A run that an item repeats is kept once.

    Args:
        hashes: (n,) uint64, one per run.
        places: (n,) uint32, offset of the first word of each run.
        first_words: as in `Benchmarks`.
    """
    order = np.argsort(hashes, kind="stable")
    hashes, places = hashes[order], places[order]
    items = np.searchsorted(first_words, places, side="right")
    distinct = begins_of(hashes, items)
    hashes, places = hashes[distinct], places[distinct]
    bits = max(10, (len(hashes) * 16 - 1).bit_length())  # 16 to 32 bits per run
    shift = np.uint64(64 - bits)
    held = np.zeros(1 << bits, dtype=bool)
    held[hashes >> shift] = True
    return RunIndex(lengths, hashes, places, np.packbits(held, bitorder="little"), shift)


def tokenised(text: str) -> Words:
    """Hashes of the words of a text: (n_words,) uint64, in the order of `words.spans(text)`."""
    # Only the capital I with a dot has a lower case of two characters, and the second one would end the word.
    padded = b" " + cut(text.replace("\u0130", "i").lower()).encode("utf-8", "surrogatepass") + b" " * 9
    inside = _IS_WORD[np.frombuffer(padded, np.uint8)]
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    return word_hashes(padded, starts, ends - starts)


def limits(text: str, words: int) -> tuple[int, int]:
    """(words per run that identify an item, fewest words of a text that is checked) for the text of an item."""
    factor = 2 if 2 * unspaced_letters(text) > words else 1
    return factor * RUN_WORDS, factor * FEWEST_WORDS


def runs_of(words: Words, lengths: tuple[int, ...]) -> list[Words]:
    """Hashes of all runs of words, one array per length.

    The hash of a longer run is the hash of a shorter run plus terms for its other words.

    Args:
        words: (n,) uint64, hashes of the words of a text.
        lengths: ascending.

    Returns:
        one (max(0, n - length + 1),) uint64 array per length.
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
    """Upper halves of word hashes, (n,) uint32. The index keeps only these."""
    return (words >> np.uint64(32)).astype(np.uint32)


def _merged(places: Offsets, length: int) -> list[Span]:
    """Spans (first word, word after the last) of runs that begin at sorted places. Touching runs are joined.

    Runs of 3 words at 4, 5 and 9 are the spans (4, 8) and (9, 12).
    """
    gaps = np.flatnonzero(np.diff(places) > length)
    firsts = places[np.concatenate([[0], gaps + 1])]
    lasts = places[np.concatenate([gaps, [-1]])] + length
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def _longest(found: list[Span], characters: list[Span]) -> Span:
    """Join touching spans, and return the one with the most characters; the first one of equals.

    Args:
        found: spans (first word, word after the last).
        characters: (start, end) of each word in characters.

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
