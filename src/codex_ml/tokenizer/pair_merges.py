"""Continue the merges of a byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) on counted words.

The words are sequences of ids that the old merges leave. Old merges never join a new piece, because its text is not in
the old vocabulary. So the new merges, which come after all old ones, change only words in which a new pair occurs.
Used by: tokenizer.added_pieces.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise

Pair = tuple[int, int]
LEAST = 2  # a pair that occurs once would become a piece that occurs once


def learn_merges(words: Mapping[tuple[int, ...], int], texts: Mapping[int, str], most: int) -> list[tuple[Pair, int]]:
    """Learn up to `most` new pieces: again and again, the most frequent pair of neighbours becomes one piece.

    Of equally frequent pairs the one with the smaller ids comes first. A pair whose text is an old token is never
    merged, so that text without a new piece keeps its ids. A pair whose text is a new piece, made of another pair,
    gets a merge to the same id.

    Args:
        words: ids of a word -> how often it occurs. Their order does not matter.
        texts: id -> text of every old token. New ids follow the largest one.

    Returns:
        ((left id, right id), id of the piece) per merge, in the order in which the encoding applies them.

    >>> learn_merges({(0, 1, 2): 3, (0, 1): 1}, {0: "a", 1: "b", 2: "c"}, most=2)
    [((0, 1), 3), ((3, 2), 4)]
    """
    old = last = max(texts)
    texts, numbers = dict(texts), {text: number for number, text in texts.items()}
    table, merges = _PairTable(words), []
    while last - old < most and (pair := table.most_frequent()) is not None:
        text = texts[pair[0]] + texts[pair[1]]
        number = numbers.setdefault(text, last + 1)
        if number <= old:
            table.leave(pair)
            continue
        last, texts[number] = max(last, number), text
        merges.append((pair, number))
        table.merge(pair, number)
    return merges


class _PairTable:
    """How often each pair of neighbours occurs in the words, and in which words."""

    def __init__(self, words: Mapping[tuple[int, ...], int]) -> None:
        self._words = [list(word) for word in words]
        self._weights = list(words.values())
        self._counts: defaultdict[Pair, int] = defaultdict(int)
        self._places: defaultdict[Pair, set[int]] = defaultdict(set)  # words that have, or had, the pair
        self._left: set[Pair] = set()
        for place, word in enumerate(self._words):
            self._add(place, word)
        self._heap = [(-count, pair) for pair, count in self._counts.items()]
        heapq.heapify(self._heap)

    def _add(self, place: int, word: list[int]) -> None:
        for pair in pairwise(word):
            self._counts[pair] += self._weights[place]
            self._places[pair].add(place)

    def most_frequent(self) -> Pair | None:
        """The most frequent pair that is not left as it is; None if none occurs `LEAST` times."""
        while self._heap:
            count, pair = heapq.heappop(self._heap)
            current = self._counts[pair]
            if pair in self._left or current < LEAST:
                continue
            if current == -count:
                return pair
            heapq.heappush(self._heap, (-current, pair))  # an entry from before some of its words changed
        return None

    def leave(self, pair: Pair) -> None:
        """Never return this pair again."""
        self._left.add(pair)

    def merge(self, pair: Pair, number: int) -> None:
        """Replace the pair by `number` in all words, from left to right."""
        changed: set[Pair] = set()
        for place in self._places.pop(pair):
            word = self._words[place]
            for before in pairwise(word):
                self._counts[before] -= self._weights[place]
            word = self._words[place] = _joined(word, pair, number)
            self._add(place, word)
            changed.update(after for after in pairwise(word) if number in after)
        for after in changed:
            heapq.heappush(self._heap, (-self._counts[after], after))


def _joined(word: list[int], pair: Pair, number: int) -> list[int]:
    joined: list[int] = []
    at = 0
    while at < len(word):
        if tuple(word[at : at + 2]) == pair:
            joined.append(number)
            at += 2
        else:
            joined.append(word[at])
            at += 1
    return joined
