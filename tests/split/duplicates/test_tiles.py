"""Comparing all pairs finds those that reach the threshold, and skips pairs of one label or of unlike sizes."""

from random import Random

import numpy as np
import pytest

from codex_ml.split.crew import Crew
from codex_ml.split.duplicates import dedup, tiles
from codex_ml.split.duplicates.dedup import ShingleIndex, keep_first
from codex_ml.split.duplicates.pairs import rows_of
from codex_ml.split.duplicates.shingle_sets import ShingleSets, block_of
from codex_ml.split.duplicates.tiles import Compared, compare_tile

from ..dealing import near, stored, text


def some_sets(dice):
    """Sets of 1 to 3,000 shingles (parities of all lengths), each with copies in which some shingles are replaced."""
    for size in (0, 1, 2, 3, 9, 15, 17, 30, 60, 130, 250, 500, 1000, 2100, 3000):
        first = dice.integers(0, 2**64, size, dtype=np.uint64)
        for share in (0, 0.05, 0.1, 0.17, 0.18, 0.2, 0.3, 0.4):
            copy = first[: size - int(dice.integers(0, size // 8 + 1))].copy()
            changed = int(share * len(copy))
            copy[:changed] = dice.integers(0, 2**64, changed, dtype=np.uint64)
            yield np.unique(copy)


def similarity(a, b):
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / max(len(a) + len(b) - common, 1)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 1.0])
@pytest.mark.parametrize(("tile", "strip"), [(1 << 12, 16), (11, 4), (1, 1)])
def test_the_pairs_that_reach_the_threshold_are_found_and_counted_by_size(
    tmp_path, monkeypatch, threshold, tile, strip
):
    monkeypatch.setattr(tiles, "TILE", tile)
    monkeypatch.setattr(tiles, "STRIP", strip)
    dice = np.random.default_rng(1)
    values = list(some_sets(dice))
    values = [values[place] for place in dice.permutation(len(values))]
    label = dice.choice(np.array([-1, 0, 1, 2], np.int8), len(values), p=[0.6, 0.2, 0.1, 0.1])
    rows = np.sort(dice.choice(len(values), len(values) - 9, replace=False))
    with ShingleSets(tmp_path / "s") as sets:
        sets.add(block_of(values, sets.bits))
        sets.seal()
    left = Compared.of(rows, sets.sizes, label, threshold)
    found = [compare_tile(task) for task in left.tasks(sets.stored)]
    apart = [(a, b) for a in rows for b in rows if a < b and (label[a] < 0 or label[a] != label[b])]
    sizes = [len(one) for one in values]
    alike = [(a, b) for a, b in apart if min(sizes[a], sizes[b]) >= max(threshold * max(sizes[a], sizes[b]), 1)]
    expected = {(a, b) for a, b in alike if similarity(values[a], values[b]) >= threshold}
    pairs = np.concatenate([part.pairs for part in found])
    first, second = rows_of(pairs)
    assert len(set(pairs.tolist())) == len(pairs)
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == expected
    assert left.pairs() == len(alike)
    assert len(expected) > 10
    assert sum(part.looked_at for part in found) < len(expected) + 0.1 * len(alike)


def test_no_rows_need_no_work(tmp_path):
    with stored(tmp_path / "s", ["a text of six words here", ""]) as sets:
        label = np.full(2, -1, np.int8)
        for rows in ([], [1], [0]):
            left = Compared.of(np.array(rows, np.int64), sets.sizes, label, 0.7)
            assert left.pairs() == 0
            assert left.tasks(sets.stored) == []


def test_text_of_a_small_vocabulary_is_compared_by_tiles_and_near_copies_are_not(tmp_path, monkeypatch):
    """The lists of few values would propose each pair many times; of a family little is left after the first round."""
    rounds, compared = [], []
    propose, all_with_all = dedup._round, dedup._all_with_all
    monkeypatch.setattr(dedup, "_round", lambda *a: (rounds.append(1), propose(*a))[1])
    monkeypatch.setattr(dedup, "_all_with_all", lambda *a: (compared.append(a[1].pairs()), all_with_all(*a))[1])

    def kept(name, texts):
        with stored(tmp_path / name, texts) as sets:
            index = ShingleIndex(sets, np.arange(len(texts)), threshold=0.7, crew=Crew())
            return int((keep_first(index, np.arange(len(texts)), np.zeros(len(texts), bool)).kept_by < 0).sum())

    dice = Random(2)
    assert kept("few", [" ".join(dice.choices("acgt", k=200)) for _ in range(600)]) == 600
    assert len(rounds) == len(compared) == 1
    assert compared[0] > 100_000
    compared.clear()
    original = text(dice, 300)
    assert kept("family", [near(dice, original, 3) for _ in range(600)]) == 1
    assert sum(compared) < 6000
