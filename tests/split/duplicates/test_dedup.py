"""A document is kept if and only if it is not a near-duplicate of a document that is kept before it."""

import random
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.split.crew import Crew
from codex_ml.split.duplicates import dedup as module
from codex_ml.split.duplicates import pairs
from codex_ml.split.duplicates.dedup import ShingleIndex, crossing, keep_first
from codex_ml.split.duplicates.shingle_sets import ShingleSets, block_of
from codex_ml.split.duplicates.shingles import shingles_of

from ..dealing import WORDS, naive_pairs, near, stored, text

NO_ROWS = np.zeros(0, np.int64)


def index_of(sets, rows=None, threshold=0.7, workers=0):
    rows = np.arange(len(sets.sizes)) if rows is None else rows
    return ShingleIndex(sets, rows, threshold=threshold, crew=Crew(workers))


def pairs_of(families):
    """{(earlier row, later row): similarity} of the verified pairs."""
    first, second = families.first.tolist(), families.second.tolist()
    assert all(a < b for a, b in zip(first, second, strict=True))
    result = dict(zip(zip(first, second, strict=True), families.similarity.tolist(), strict=True))
    assert len(result) == len(first)
    return result


def greedy(order, pinned, similar):
    """The definition, by all pairs: {row: the rows that it could be dropped for, empty for a kept one}."""
    kept, result = [], {}
    for row, stays in zip(order, pinned, strict=True):
        early = {k for k in kept if (min(k, row), max(k, row)) in similar}
        result[row] = set() if stays else early
        if stays or not early:
            kept.append(row)
    return result


def families(seed, singles=150, sizes=(2, 3, 5, 40, 90), changes=4):
    """Texts of 6 to 200 words, families of copies with a few words replaced, and texts too short to compare."""
    dice = random.Random(seed)
    texts = [text(dice, dice.randint(6, 200)) for _ in range(singles)]
    for size in sizes:
        original = text(dice, dice.randint(80, 200))
        texts += [near(dice, original, dice.randint(0, changes)) for _ in range(size)]
    texts += ["just a few words"] * 5
    dice.shuffle(texts)
    return texts


@cache
def known_families(seed):
    """Texts and their similar pairs."""
    texts = families(seed)
    return texts, naive_pairs(texts, 0.7)


def check(folder, texts, order, pinned, similar=None, threshold=0.7):
    """`keep_first` on these rows against the definition; returns its result."""
    similar = naive_pairs(texts, threshold) if similar is None else similar
    with stored(folder, texts) as sets:
        index = index_of(sets, np.array(order, np.int64), threshold)
        result = keep_first(index, np.array(order, np.int64), np.array(pinned, bool))
    expected = greedy(order, pinned, similar)
    kept_by = result.kept_by.tolist()
    assert {row for row in order if kept_by[row] < 0} == {row for row in order if not expected[row]}
    for row in order:
        if kept_by[row] >= 0:
            assert kept_by[row] in expected[row]
            assert kept_by[kept_by[row]] == -1
    assert {kept_by[row] for row in set(range(len(texts))) - set(order)} <= {-1}
    for pair, similarity in pairs_of(result).items():
        assert similarity == pytest.approx(similar[pair], abs=1e-6)
    return result


@pytest.mark.parametrize("leaders", [1, 2, 4, 32])
@pytest.mark.parametrize("share_pinned", [0.0, 0.3])
def test_the_kept_documents_are_those_of_comparing_all_pairs(tmp_path, monkeypatch, leaders, share_pinned):
    monkeypatch.setattr(module, "LEADERS", leaders)
    for seed in (0, 1):
        dice = random.Random(seed)
        texts, similar = known_families(seed)
        order = dice.sample(range(len(texts)), len(texts) - 20)
        pinned = [dice.random() < share_pinned for _ in order]
        result = check(tmp_path / str(seed), texts, order, pinned, similar)
        assert (result.kept_by >= 0).sum() > 50


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_small_families_of_borderline_pairs_are_decided_the_same_way(tmp_path_factory, data):
    """Overlapping runs of numbers, with every similarity from 0 to 1, and long chains."""
    runs = data.draw(st.lists(st.tuples(st.integers(0, 40), st.integers(3, 40)), min_size=1, max_size=30))
    texts = [" ".join(f"w{i}" for i in range(start, start + length)) for start, length in runs]
    pinned = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    order = data.draw(st.permutations(range(len(texts))))
    leaders = data.draw(st.sampled_from([1, 2, 4, 32]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEADERS", leaders)
        check(tmp_path_factory.mktemp("runs") / "s", texts, order, pinned)


def test_the_first_of_a_family_is_kept_whatever_its_row(tmp_path):
    texts = families(7, singles=0, sizes=(60,))
    for number, order in enumerate((list(range(len(texts))), list(range(len(texts)))[::-1])):
        result = check(tmp_path / str(number), texts, order, [False] * len(order))
        assert result.kept_by[next(row for row in order if len(texts[row].split()) > 4)] == -1


@pytest.mark.parametrize("texts", [
    ["this is the same licence text in every file"] * 2000,
    [f"this is the same licence text in every file of the project and of its parts {i}" for i in range(2000)],
])  # fmt: skip
def test_a_large_family_takes_no_comparison_of_all_pairs(tmp_path, monkeypatch, texts):
    seen = []
    real = pairs.similarities
    monkeypatch.setattr(pairs, "similarities", lambda sets, a, b: seen.append(len(a)) or real(sets, a, b))
    with stored(tmp_path / "s", texts) as sets:
        result = keep_first(index_of(sets), np.arange(2000), np.zeros(2000, bool))
    assert result.kept_by.tolist() == [-1] + [0] * 1999
    assert sum(seen) <= 2000 * module.LEADERS


def test_chains_do_not_join_a_corpus_into_one_family(tmp_path):
    """Each text resembles its neighbours only; every second or third one is kept."""
    words = [f"n{i}" for i in range(2000)]
    texts = [" ".join(words[start : start + 104]) for start in range(0, 1500, 12)]
    similar = naive_pairs(texts, 0.7)
    assert set(similar) == set(pairwise(range(len(texts))))
    result = check(tmp_path / "s", texts, range(len(texts)), [False] * len(texts))
    assert (result.kept_by < 0).sum() >= len(texts) / 2
    assert all(row - keeper == 1 for row, keeper in enumerate(result.kept_by.tolist()) if keeper >= 0)


def test_texts_under_five_words_are_never_near_duplicates(tmp_path):
    texts = ["", "a b c d", "a b c d", "one", "one", "a b c d e", "a b c d e"]
    result = check(tmp_path / "s", texts, range(7), [False] * 7)
    assert result.kept_by.tolist() == [-1] * 6 + [5]


def test_pinned_documents_all_stay_and_are_not_compared(tmp_path):
    texts = ["a family of the same six words", *["A family of the same six words!"] * 4]
    result = check(tmp_path / "s", texts, [2, 4, 0, 1, 3], [True, True, False, True, False])
    assert result.kept_by.tolist() == [2, -1, -1, 2, -1]
    assert not {(2, 4), (1, 2), (1, 4)} & set(zip(result.first.tolist(), result.second.tolist(), strict=True))


@pytest.mark.parametrize("block", [1, 7, 97])
def test_the_blocks_in_which_documents_are_added_make_no_difference(tmp_path, block):
    texts = families(4, singles=60)
    with stored(tmp_path / "whole", texts) as whole, stored(tmp_path / "cut", texts, block=block) as cut:
        assert whole.sizes.tolist() == cut.sizes.tolist() == [len(values) for values in shingles_of(texts)]
        for name in ("shingles", "counts", "sizes", "starts"):
            assert (whole.folder / name).read_bytes() == (cut.folder / name).read_bytes()


def test_no_documents_need_no_work_and_give_no_error(tmp_path):
    for name, blocks in (("none", []), ("empty", [[], []])):
        with ShingleSets(tmp_path / name) as sets:
            for block in blocks:
                sets.add(block_of(block, sets.bits))
            sets.seal()
            index = index_of(sets)
            for result in (keep_first(index, NO_ROWS, NO_ROWS > 0), crossing(index, NO_ROWS, NO_ROWS.astype(np.int8))):
                assert [len(column) for column in vars(result).values()] == [0] * 4
        sets.delete()
        assert not (tmp_path / name).exists()


def evicted(rows, part, similar):
    """The definition: {row: kept rows of another split before it, for which it could be dropped}."""
    kept, gone = [], {}
    for row in rows:
        above = {k for k in kept if part[k] != part[row] and (min(row, k), max(row, k)) in similar}
        if above:
            gone[row] = above
        else:
            kept.append(row)
    return gone


@pytest.mark.parametrize("leaders", [1, 4])
@pytest.mark.parametrize("by_part", [True, False])
def test_the_first_of_near_duplicates_across_splits_is_kept(tmp_path, monkeypatch, leaders, by_part):
    monkeypatch.setattr(module, "LEADERS", leaders)
    texts, similar = known_families(1)
    dice = random.Random(5)
    part = np.array([dice.randrange(3) for _ in texts], dtype=np.int8)
    rows = np.array(dice.sample(range(len(texts)), len(texts) - 15))
    if by_part:
        rows = rows[np.argsort(-part[rows], kind="stable")]
    with stored(tmp_path / "s", texts) as sets:
        result = crossing(index_of(sets, rows), rows, part[rows])
    expected = evicted(rows.tolist(), part, similar)
    assert set(np.flatnonzero(result.kept_by >= 0).tolist()) == expected.keys()
    assert len(expected) > 20
    assert all(result.kept_by[row] in above for row, above in expected.items())
    assert all(part[a] != part[b] and (a, b) in similar for a, b in pairs_of(result))


def test_a_crowd_of_one_split_is_not_compared_with_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "similarities", lambda sets, a, b: pytest.fail("compared"))
    texts = ["one two three four five"] * 1000
    with stored(tmp_path / "s", texts) as sets:
        index = index_of(sets)
        assert (crossing(index, np.arange(1000), np.ones(1000, np.int8)).kept_by < 0).all()
        assert (keep_first(index, np.arange(1000), np.ones(1000, bool)).kept_by < 0).all()


def test_documents_that_cannot_reach_the_threshold_are_not_read(tmp_path, monkeypatch):
    """The similarity is at most the ratio of the sizes."""
    monkeypatch.setattr(pairs, "similarities", lambda sets, a, b: pytest.fail("compared"))
    texts = [" ".join(WORDS[:100]), " ".join(WORDS[:60])]
    with stored(tmp_path / "s", texts) as sets:
        assert (keep_first(index_of(sets), np.arange(2), np.zeros(2, bool)).kept_by < 0).all()
