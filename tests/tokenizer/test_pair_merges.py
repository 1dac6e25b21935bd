"""New merges are those of byte-pair encoding on the words that the old merges leave: answers by hand, and by a naive way."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.tokenizer.pair_merges import learn_merges

LETTERS = {0: "a", 1: "b", 2: "c", 3: "d"}


@pytest.mark.parametrize(
    ("words", "most", "merges"),
    [
        ({(0, 1, 2): 3, (0, 1): 1}, 1, [((0, 1), 4)]),  # ab 4, bc 3
        ({(0, 1, 2): 3, (0, 1): 1}, 9, [((0, 1), 4), ((4, 2), 5)]),  # then (ab)c 3, then nothing
        ({(1, 2): 2, (0, 3): 2}, 2, [((0, 3), 4), ((1, 2), 5)]),  # equally frequent: the smaller ids
        ({(0, 0, 0, 0, 0): 1}, 9, [((0, 0), 4)]),  # aa aa a: each pair of the rest occurs once
        ({(0, 0, 0, 0): 1, (0, 0): 1}, 9, [((0, 0), 4)]),  # aa aa and aa: (aa)(aa) occurs once
        ({(0, 0, 0, 0): 2}, 9, [((0, 0), 4), ((4, 4), 5)]),
        ({(0, 1): 1, (1, 2): 1}, 9, []),  # no pair occurs twice
        ({(0,): 100}, 9, []),
        ({}, 9, []),
        ({(0, 1): 5}, 0, []),
    ],
)
def test_known_answers(words, most, merges):
    assert learn_merges(words, LETTERS, most) == merges


def test_a_pair_that_spells_an_old_token_stays_two_tokens():
    """cd is an old token, which the old merges did not give here: so text without a new piece keeps its ids."""
    words = {(2, 3): 9, (0, 2, 3): 2}
    assert learn_merges(words, {**LETTERS, 7: "cd"}, 9) == [((0, 2), 8), ((8, 3), 9)]  # ac 2, then (ac)d 2


def test_a_pair_that_spells_a_new_piece_gets_its_id_and_counts_once():
    """abc is learnt as (ab)c. In other words the old tokens are a and bc: they get a further merge, no further piece."""
    texts = {**LETTERS, 4: "ab", 5: "bc"}
    words = {(4, 2): 9, (0, 5): 8, (3, 3): 2}
    assert learn_merges(words, texts, 2) == [((4, 2), 6), ((0, 5), 6), ((3, 3), 7)]
    assert learn_merges(words, texts, 1) == [((4, 2), 6)]


def naive(words, texts, most):
    """Count all pairs again after each merge (Sennrich et al. 2016, figure 1)."""
    words = Counter(words)
    old = {text: number for number, text in texts.items()}
    texts, numbers, merges, left = dict(texts), dict(old), [], set()
    while len(numbers) - len(old) < most:
        counts = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                counts[pair] += count
        several = [(-count, pair) for pair, count in counts.items() if count > 1 and pair not in left]
        if not several:
            break
        pair = min(several)[1]
        text = texts[pair[0]] + texts[pair[1]]
        if text in old:
            left.add(pair)
            continue
        number = numbers.setdefault(text, max(texts) + 1)
        texts[number] = text
        merges.append((pair, number))
        joined = Counter()
        for word, count in words.items():
            out, rest = [], list(word)
            while rest:
                if tuple(rest[:2]) == pair:
                    out, rest = [*out, number], rest[2:]
                else:
                    out, rest = [*out, rest[0]], rest[1:]
            joined[tuple(out)] += count
        words = joined
    return merges


WORDS = st.dictionaries(st.lists(st.integers(0, 5), min_size=1, max_size=8).map(tuple), st.integers(1, 4), max_size=12)


@given(words=WORDS, most=st.integers(0, 12))
def test_merges_equal_those_of_counting_all_pairs_again(words, most):
    texts = {**LETTERS, 4: "ab", 5: "aab"}
    assert learn_merges(words, texts, most) == naive(words, texts, most)


@given(words=WORDS, dice=st.randoms(use_true_random=False))
def test_the_order_of_the_words_changes_nothing(words, dice):
    shuffled = list(words.items())
    dice.shuffle(shuffled)
    assert learn_merges(dict(shuffled), LETTERS | {4: "e", 5: "f"}, 8) == learn_merges(
        words, LETTERS | {4: "e", 5: "f"}, 8
    )
