"""Of documents in an order, one is kept exactly when it resembles none that is kept before it."""

import random
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.data import dedup as module
from codex_ml.data.dedup import Pairs, Sketches, crossing, keep_first, sketch
from codex_ml.data.shingles import BANDS, MinHash, shingles_of

from .dealing import WORDS, naive_pairs, near, quiet, sketched, text


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


def found_pairs(sketches, similar, seed):
    """Those of the similar pairs that MinHash proposes; what it misses nobody promises."""
    bands = np.stack([sketches.band(seed, number) for number in range(BANDS)])
    return {(a, b): s for (a, b), s in similar.items() if (bands[:, a] == bands[:, b]).any()}


def check(folder, texts, order, pinned, similar=None):
    """`keep_first` on these rows against the definition; returns its result."""
    similar = naive_pairs(texts, 0.7) if similar is None else similar
    with sketched(folder, texts) as sketches:
        result = keep_first(
            sketches, np.array(order, np.int64), np.array(pinned, bool), seed=1, threshold=0.7, advance=quiet
        )
        similar = found_pairs(sketches, similar, 1)
    expected = greedy(order, pinned, similar)
    kept_by = result.kept_by.tolist()
    assert {row for row in order if kept_by[row] < 0} == {row for row in order if not expected[row]}
    for row in order:
        if kept_by[row] >= 0:
            assert kept_by[row] in expected[row]
            assert kept_by[kept_by[row]] == -1
    assert {kept_by[row] for row in set(range(len(texts))) - set(order)} <= {-1}
    verified = set(
        zip(
            np.minimum(result.first, result.second).tolist(),
            np.maximum(result.first, result.second).tolist(),
            strict=True,
        )
    )
    assert len(verified) == len(result.first)
    assert verified <= similar.keys()
    return result


@pytest.mark.parametrize("leaders", [1, 2, 4, 32])
@pytest.mark.parametrize("share_pinned", [0.0, 0.3])
def test_what_is_kept_is_what_comparing_all_pairs_would_keep(tmp_path, monkeypatch, leaders, share_pinned):
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
    """Runs of numbers that overlap: every similarity from 0 to 1 is there, and long chains of them."""
    runs = data.draw(st.lists(st.tuples(st.integers(0, 40), st.integers(3, 40)), min_size=1, max_size=30))
    texts = [" ".join(f"w{i}" for i in range(start, start + length)) for start, length in runs]
    pinned = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    order = data.draw(st.permutations(range(len(texts))))
    leaders = data.draw(st.sampled_from([1, 2, 4, 32]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEADERS", leaders)
        check(tmp_path_factory.mktemp("runs") / "s", texts, order, pinned)


def test_the_first_of_a_family_stays_whatever_its_row(tmp_path):
    texts = families(7, singles=0, sizes=(60,))
    for number, order in enumerate((list(range(len(texts))), list(range(len(texts)))[::-1])):
        result = check(tmp_path / str(number), texts, order, [False] * len(order))
        assert result.kept_by[next(row for row in order if len(texts[row].split()) > 4)] == -1


def test_a_large_family_takes_no_comparison_of_all_pairs(tmp_path, monkeypatch):
    texts = ["this is the same licence text in every file"] * 2000
    seen = []
    monkeypatch.setattr(module, "jaccard", lambda a, b: seen.append(1) or 1.0)
    with sketched(tmp_path / "s", texts) as sketches:
        result = keep_first(sketches, np.arange(2000), np.zeros(2000, bool), seed=1, threshold=0.7, advance=quiet)
    assert result.kept_by.tolist() == [-1] + [0] * 1999
    assert len(seen) <= 2000 * module.LEADERS


def test_chains_do_not_weld_a_corpus_into_one_family(tmp_path):
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


def test_forgetting_verified_pairs_changes_nothing(tmp_path, monkeypatch):
    texts = families(3)
    part = np.arange(len(texts), dtype=np.int8) % 3
    results = []
    for number, remembered in enumerate((1 << 22, 1)):
        monkeypatch.setattr(module, "REMEMBERED", remembered)
        with sketched(tmp_path / str(number), texts) as sketches:
            first = keep_first(
                sketches, np.arange(len(texts)), np.zeros(len(texts), bool), seed=1, threshold=0.7, advance=quiet
            )
            across = crossing(sketches, np.arange(len(texts)), part, seed=2, threshold=0.5, advance=quiet)
        results.append(
            (first.kept_by.tolist(), sorted({tuple(sorted(pair)) for pair in zip(*across[:2], strict=True)}))
        )
    assert results[0] == results[1]


def test_a_pair_is_told_once_also_when_it_is_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 1)
    texts = families(3)
    part = np.arange(len(texts), dtype=np.int8) % 3
    with sketched(tmp_path / "s", texts) as sketches:
        first, second, _ = crossing(sketches, np.arange(len(texts)), part, seed=2, threshold=0.5, advance=quiet)
    told = [tuple(sorted(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)]
    assert len(told) == len(set(told))


@pytest.mark.parametrize("block", [1, 7, 97])
def test_the_blocks_in_which_documents_are_added_make_no_difference(tmp_path, block):
    texts = families(4, singles=60)
    with sketched(tmp_path / "whole", texts) as whole, sketched(tmp_path / "cut", texts, block=block) as cut:
        assert whole.sizes.tolist() == cut.sizes.tolist() == [len(values) for values in shingles_of(texts)]
        for seed in (1, 2):
            keys = MinHash(seed).band_keys(shingles_of(texts))
            for number in range(BANDS):
                assert whole.band(seed, number).tolist() == cut.band(seed, number).tolist() == keys[:, number].tolist()
        for row, values in enumerate(shingles_of(texts)):
            assert whole.shingles(row).tolist() == cut.shingles(row).tolist() == values.tolist()


def test_no_documents_are_no_work_and_no_error(tmp_path):
    rows = np.zeros(0, np.int64)
    for name, blocks in (("none", []), ("empty", [[], []])):
        with Sketches(tmp_path / name, (1, 2)) as sketches:
            for block in blocks:
                sketches.add(*sketch(block, (1, 2)))
            sketches.seal()
            assert len(keep_first(sketches, rows, rows > 0, seed=1, threshold=0.7, advance=quiet).kept_by) == 0
            across = crossing(sketches, rows, rows.astype(np.int8), seed=2, threshold=0.5, advance=quiet)
            assert [len(column) for column in across] == [0, 0, 0]
        sketches.delete()
        assert not (tmp_path / name).exists()


def test_all_pairs_across_parts_are_found_and_none_within(tmp_path):
    texts = families(5)
    dice = random.Random(5)
    part = np.array([dice.randrange(3) for _ in texts], dtype=np.int8)
    rows = np.array(sorted(dice.sample(range(len(texts)), len(texts) - 15)))
    with sketched(tmp_path / "s", texts) as sketches:
        first, second, similarity = crossing(sketches, rows, part[rows], seed=2, threshold=0.5, advance=quiet)
        possible = naive_pairs(texts, 0.5)
        proposed = found_pairs(sketches, possible, 2)
    known = set(rows.tolist())
    expected = {(a, b): s for (a, b), s in proposed.items() if part[a] != part[b] and {a, b} <= known}
    told = {
        (min(a, b), max(a, b)): s for a, b, s in zip(first.tolist(), second.tolist(), similarity.tolist(), strict=True)
    }
    assert told == expected
    assert len(told) == len(first) > 500
    close = {pair for pair, s in possible.items() if s >= 0.7 and part[pair[0]] != part[pair[1]] and set(pair) <= known}
    assert len(close & told.keys()) >= 0.98 * len(close)


def test_each_band_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LEADERS", 1)
    texts = families(6, singles=5)
    steps = []
    with sketched(tmp_path / "s", texts) as sketches:
        rows = np.arange(len(texts))
        keep_first(sketches, rows, rows < 0, seed=1, threshold=0.7, advance=steps.append)
        crossing(sketches, rows, np.zeros(len(texts), np.int8), seed=2, threshold=0.7, advance=steps.append)
    assert steps == [1] * 2 * BANDS


def test_what_cannot_reach_the_threshold_is_not_read(tmp_path, monkeypatch):
    """The similarity is at most the ratio of the sizes."""
    monkeypatch.setattr(module, "jaccard", lambda a, b: pytest.fail("compared"))
    texts = [" ".join(WORDS[:100]), " ".join(WORDS[:60])]
    with sketched(tmp_path / "s", texts) as sketches:
        pairs = Pairs(sketches, 0.7)
        pairs.verify(np.array([0]), np.array([1]))
        assert len(pairs.arrays()[0]) == 0
