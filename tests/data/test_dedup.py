"""Near-duplicates: every reported pair is one, nearly every pair is reported, signatures never change."""

import hashlib
import random
import re

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.data import dedup as module
from codex_ml.data.dedup import MinHash, candidates, components, jaccard, near_pairs, shingles

WORDS = [f"w{i}" for i in range(5000)]


def brute_shingles(text):
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + 5]) for i in range(len(words) - 4)}


def brute_jaccard(a, b):
    return len(a & b) / len(a | b) if a and b else 0.0


def planted(seed, pairs, noise):
    """Texts of 174 words, `pairs` of them twice with 10 to 30 last words replaced: similarity 0.70 to 0.89."""
    dice = random.Random(seed)
    texts = []
    for _ in range(pairs):
        words = dice.choices(WORDS, k=174)
        changed = dice.randint(10, 30)
        texts += [" ".join(words), " ".join(words[:-changed] + dice.choices(WORDS, k=changed))]
    return texts + [" ".join(dice.choices(WORDS, k=174)) for _ in range(noise)]


def test_planted_pairs_are_found_and_every_reported_pair_is_one():
    texts = planted(3, pairs=200, noise=100)
    brute = [brute_shingles(text) for text in texts]
    holders = {}
    for index, values in enumerate(brute):
        for value in values:
            holders.setdefault(value, []).append(index)
    sharing = {(a, b) for group in holders.values() for a in group for b in group if a < b}
    true = {pair for pair in sharing if brute_jaccard(brute[pair[0]], brute[pair[1]]) >= 0.7}
    assert len(true) > 190
    found = near_pairs([shingles(text) for text in texts], threshold=0.7, seed=1)
    assert all(brute_jaccard(brute[a], brute[b]) == pytest.approx(similarity, abs=1e-12) for a, b, similarity in found)
    assert {(a, b) for a, b, _ in found} <= true
    assert len(found) / len(true) >= 0.98
    assert found == sorted(found)


@given(
    st.lists(st.sampled_from(["a", "B", "ä", "0", "_x", "漢字"]), max_size=12),
    st.sampled_from([" ", "\n", ", ", "\u2028"]),
)
@settings(max_examples=60, deadline=None)
def test_shingles_are_the_runs_of_five_words(words, separator):
    text = separator.join(words)
    assert shingles(text).tolist() == sorted({xxhash.xxh3_64_intdigest(run.encode()) for run in brute_shingles(text)})
    assert shingles(text).dtype == np.uint64


@given(st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)))
@settings(max_examples=60, deadline=None)
def test_jaccard_is_the_share_of_common_shingles(a, b):
    arrays = [np.array(sorted(s), dtype=np.uint64) for s in (a, b)]
    assert jaccard(*arrays) == brute_jaccard(a, b)


def test_texts_under_five_words_are_never_near_duplicates():
    short = [shingles(text) for text in ("", "one", "a b c d", "a b c d")]
    assert [len(s) for s in short] == [0, 0, 0, 0]
    assert near_pairs(short, threshold=0.5, seed=1) == []
    assert near_pairs([*short, shingles("a b c d e")], threshold=0.5, seed=1) == []


def test_case_and_punctuation_do_not_hide_a_copy():
    texts = ["Def run(a, b): return a + b", "def RUN ( a ; b ) -> return: a * b"]
    assert near_pairs([shingles(t) for t in texts], threshold=1, seed=1) == [(0, 1, 1.0)]


def test_the_order_of_texts_changes_no_pair():
    sets = [shingles(text) for text in planted(4, pairs=20, noise=20)]
    order = random.Random(0).sample(range(len(sets)), len(sets))
    direct = {(a, b) for a, b, _ in near_pairs(sets, threshold=0.7, seed=1)}
    shuffled = near_pairs([sets[i] for i in order], threshold=0.7, seed=1)
    assert {tuple(sorted((order[a], order[b]))) for a, b, _ in shuffled} == direct


def test_the_signature_is_frozen():
    values = np.array([1, 2**63, 2**64 - 1], dtype=np.uint64)
    assert MinHash(1).signature(values)[:2].tolist() == [12966409133967673744, 5406104114401687408]
    assert (
        hashlib.sha256(MinHash(1).signature(values).astype("<u8").tobytes()).hexdigest()
        == "9df9364e53c8befb69317c032d26e1c4eb1b94e6678b37d4c03e6c16f55bb1a4"
    )
    assert (
        hashlib.sha256(MinHash(2).signature(values).astype("<u8").tobytes()).hexdigest()
        == "fa3ee6710fd121ea56e1cd6f9417f0cf35c3050add17f1b02afa033d6be929b1"
    )
    assert xxhash.xxh3_64_intdigest(b"the quick brown fox jumps") == 10403364002775130632


def test_a_signature_is_the_minimum_over_the_whole_set():
    values = np.unique(np.random.Generator(np.random.PCG64(0)).integers(0, 2**63, size=1500, dtype=np.uint64))
    whole = MinHash(1).signature(values)
    assert (whole == np.minimum(MinHash(1).signature(values[:700]), MinHash(1).signature(values[700:]))).all()
    assert whole.shape == (module.BANDS * module.ROWS,)


def test_candidates_agree_in_all_rows_of_a_band():
    signatures = np.arange(4 * 252, dtype=np.uint64).reshape(4, 252)
    assert candidates(signatures) == set()
    signatures[3, 6:12] = signatures[1, 6:12]  # band 1 whole
    signatures[2, 0:5] = signatures[0, 0:5]  # five of the six rows of band 0
    signatures[2, 11:17] = signatures[0, 11:17]  # six rows over a border of bands
    assert candidates(signatures) == {(1, 3)}


def test_a_crowd_of_copies_is_one_family_without_all_pairs():
    copies = [shingles("this is the same licence text in every file")] * 200
    pairs = near_pairs(copies, threshold=0.7, seed=1)
    assert len(pairs) < 200 * 8
    assert components(200, [(a, b) for a, b, _ in pairs]) == [0] * 200


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=15))
@settings(max_examples=80, deadline=None)
def test_a_component_is_named_by_its_smallest_item(pairs):
    reached = [{i} for i in range(12)]
    for _ in range(12):
        for a, b in pairs:
            reached[a] |= reached[b]
            reached[b] |= reached[a]
            for item in list(reached[a]):
                reached[item] |= reached[a]
    assert components(12, pairs) == [min(group) for group in reached]
