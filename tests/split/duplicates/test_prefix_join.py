"""The search finds exactly the pairs at or above the threshold, for all kinds of documents and all task sizes."""

import random
from contextlib import contextmanager

import numpy as np
import pytest

from codex_ml.split import crew
from codex_ml.split.crew import Crew
from codex_ml.split.duplicates import dedup, pairs, parities, proposals, tiles
from codex_ml.split.duplicates.dedup import ShingleIndex, crossing, keep_first
from codex_ml.split.duplicates.pairs import rows_of
from codex_ml.split.duplicates.parities import possible
from codex_ml.split.duplicates.shingle_sets import slot_bits

from ..dealing import naive_pairs, near, stored, text

HEADER = " ".join(f"licensed{i}" for i in range(80))


def headers(dice):
    """A licence header and words of its own: pairs lie on both sides of the threshold."""
    return [f"{HEADER} {' '.join(f'w{dice.randrange(60)}' for _ in range(dice.randint(5, 60)))}" for _ in range(100)]


def blocks(dice):
    """Eight of eleven blocks, each of which most of the documents have."""
    parts = [" ".join(f"b{block}x{i}" for i in range(12)) for block in range(11)]
    return [" ".join(parts[b] for b in sorted(dice.sample(range(11), 8))) + f" own {i}" for i in range(100)]


def generated(dice):
    """One text with a name and a few numbers replaced."""
    lines = [f"field {i} of message NAME has the type TYPE and the tag {i}" for i in range(12)]
    types = ["int", "long", "text"]
    return [
        "\n".join(lines[dice.randrange(3) :]).replace("NAME", f"n{i % 7}").replace("TYPE", types[i % 3])
        for i in range(100)
    ]


def repeated(dice):
    """Few words, so that sets are tiny and many are equal."""
    return [" ".join(dice.choice("aaaab") for _ in range(dice.randint(1, 20))) for _ in range(100)]


def chains(dice):
    """Each text resembles its neighbours in a row, and the row is long."""
    words = [f"n{i}" for i in range(700)]
    return [" ".join(words[start : start + dice.randint(25, 40)]) for start in range(0, 600, 4)]


def crowd(dice):
    """Near-copies of one text among unrelated ones, one of them large."""
    original = text(dice, 120)
    return [near(dice, original, dice.randint(0, 6)) for _ in range(120)] + [
        text(dice, dice.choice([30, 3000])) for _ in range(9)
    ]


def few_values(dice):
    """Rows with the same keys and few values, where no shingle is rare."""
    line = '"id": {}, "paid": {}, "state": 1'
    values = ["0", "1"]
    return ["\n".join(line.format(*dice.choices(values, k=2)) for _ in range(dice.randint(5, 9))) for _ in range(100)]


KINDS = [few_values, headers, blocks, generated, repeated, chains, crowd]


def greedy(order, similar):
    kept, dropped = [], {}
    for row in order:
        early = {k for k in kept if (min(k, row), max(k, row)) in similar}
        if early:
            dropped[row] = early
        else:
            kept.append(row)
    return dropped


@pytest.mark.parametrize(
    ("cut", "kind", "threshold"),
    [
        pytest.param(cut, kind, threshold, marks=[pytest.mark.slow] * (threshold not in fast))
        for cut, fast in (("as shipped", (0.5, 0.7, 1.0)), ("small, by lists", (0.7,)), ("small, all with all", (0.8,)))
        for kind in KINDS
        for threshold in (0.5, 0.7, 0.8, 1.0)
    ],
)
def test_the_kept_documents_equal_those_of_comparing_all_pairs(tmp_path, monkeypatch, kind, threshold, cut):
    """Also with lowered task sizes, and with a table of counts in which all slots are shared."""
    dice = random.Random(kind.__name__)
    texts = kind(dice)
    small = cut != "as shipped"
    if small:
        cost = 0 if cut == "small, by lists" else 1 << 40
        for module, name, value in (
            (dedup, "LEADERS", 1), (dedup, "SHINGLES_PER_TASK", 2000), (dedup, "POSTINGS_PER_TASK", 500),
            (dedup, "PAIRS_PER_TASK", 640), (proposals, "PAIRS_AT_ONCE", 700), (proposals, "RUN", 3000), (proposals, "CROWDED", 0),
            (pairs, "SHINGLES_AT_ONCE", 900), (parities, "PAIRS_AT_ONCE", 700), (parities, "SHINGLES_AT_ONCE", 900),
            (parities, "WORDS_AT_ONCE", 90), (tiles, "TILE", 30), (tiles, "STRIP", 7), (tiles, "VERIFIED_AT_ONCE", 90),
            (dedup, "PROPOSAL", cost), (dedup, "CANDIDATE", 0),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, value)
    similar = naive_pairs(texts, threshold)
    order = dice.sample(range(len(texts)), len(texts))
    part = np.array([dice.randrange(3) for _ in texts], dtype=np.int8)
    with stored(tmp_path / "s", texts, block=40, bits=2 if small else 16) as sets:
        index = ShingleIndex(sets, np.arange(len(texts)), threshold=threshold, crew=Crew())
        kept_by = keep_first(index, np.array(order), np.zeros(len(texts), bool)).kept_by.tolist()
        across = crossing(index, np.array(order), part[order]).kept_by.tolist()
    dropped = greedy(order, similar)
    assert {row for row, keeper in enumerate(kept_by) if keeper >= 0} == dropped.keys()
    assert all(kept_by[row] in early for row, early in dropped.items())
    gone = greedy(order, {(a, b) for a, b in similar if part[a] != part[b]})
    assert {row for row, keeper in enumerate(across) if keeper >= 0} == gone.keys()


def test_the_kinds_have_pairs_on_both_sides_of_the_threshold():
    for kind in KINDS:
        texts = kind(random.Random(kind.__name__))
        similar = naive_pairs(texts, 0.7)
        assert len(similar) > 10
        assert len(naive_pairs(texts, 0.01)) > len(similar)


def ratios():
    """(threshold, shared, in the first only, in the second only): exactly the threshold."""
    for tenths in (5, 6, 7, 8, 9, 10):
        for factor in (1, 3, 11):
            shared, own = tenths * factor, (10 - tenths) * factor
            for left in {0, own // 2, own}:
                yield tenths / 10, shared, left, own - left
    for shared, own in ((2, 1), (3, 1), (37, 13), (997, 3)):
        yield shared / (shared + own), shared, own, 0


@pytest.mark.parametrize("crowd", [0, 30])
def test_a_pair_exactly_at_the_threshold_is_found_and_one_shingle_less_is_not(tmp_path, crowd):
    """The shared shingles are rare, or many other documents hold them too."""
    for number, (threshold, shared, left, right) in enumerate(ratios()):
        words = [f"s{i}" for i in range(shared + 4)]
        texts = [
            " ".join([*(f"l{i}" for i in range(left)), *words]),
            " ".join([*words, *(f"r{i}" for i in range(right))]),
            *(" ".join([*words, *(f"{i}c{j}" for j in range(3 * shared + 9))]) for i in range(crowd)),
        ]
        fewer = [texts[0], f"{texts[1]} one_more", *texts[2:]]
        for name, these, expected in (("at", texts, 0), ("below", fewer, -1)):
            with stored(tmp_path / f"{number}{name}", these) as sets:
                index = ShingleIndex(sets, np.arange(len(these)), threshold=threshold, crew=Crew())
                result = keep_first(index, np.arange(len(these)), np.zeros(len(these), bool))
            assert result.kept_by.tolist() == [-1, expected, *[-1] * crowd], (threshold, shared, left, right)


@pytest.mark.parametrize("threshold", [0.5, 0.7, pytest.param(1.0, marks=pytest.mark.slow)])
def test_the_parity_excludes_no_similar_pair_and_most_others(tmp_path, threshold):
    dice = random.Random(1)
    texts = [line for kind in KINDS for line in kind(dice)]
    texts += [near(dice, texts[-1], 40) for _ in range(20)]
    first, second = np.triu_indices(len(texts), 1)
    with stored(tmp_path / "s", texts) as sets:
        filled = (sets.sizes[first] > 0) & (sets.sizes[second] > 0)
        first, second = first[filled], second[filled]
        similar = naive_pairs(texts, threshold)
        passed = possible(sets.stored, first, second, threshold)
        names = set(zip(first[passed].tolist(), second[passed].tolist(), strict=True))
        assert similar.keys() <= names
        assert len(names) < 2 * len(similar)


@pytest.mark.parametrize("cost", [0, pytest.param(1 << 40, marks=pytest.mark.slow)])
def test_workers_change_no_result(tmp_path, monkeypatch, cost):
    """By lists only, and by comparing all pairs after the first round."""
    monkeypatch.setattr(dedup, "PROPOSAL", cost)
    monkeypatch.setattr(dedup, "CANDIDATE", 0)
    for name in ("SHINGLES_PER_TASK", "POSTINGS_PER_TASK", "PAIRS_PER_TASK"):
        monkeypatch.setattr(dedup, name, 500)
    monkeypatch.setattr(crew, "WORTH_WORKERS", 0)
    texts = [*headers(random.Random(3)), *crowd(random.Random(3))]
    results = []
    for workers in (0, 2):
        with stored(tmp_path / str(workers), texts) as sets:
            index = ShingleIndex(sets, np.arange(len(texts)), threshold=0.7, crew=Crew(workers))
            results.append(keep_first(index, np.arange(len(texts)), np.zeros(len(texts), bool)))
    for one, other in zip(*(vars(result).values() for result in results), strict=True):
        assert one.tobytes() == other.tobytes()
    assert (results[0].kept_by >= 0).sum() > 50


def test_a_shared_header_proposes_no_pair_that_cannot_reach_the_threshold(tmp_path, monkeypatch):
    """The case that took ten hours: half of each text is the same, and no two texts are similar."""
    monkeypatch.setattr(pairs, "similarities", lambda *a: pytest.fail("compared"))
    dice = random.Random(4)
    texts = [
        f"{HEADER} {' '.join(f'w{dice.randrange(10**6)}' for _ in range(dice.randint(60, 90)))}" for _ in range(2000)
    ]
    with stored(tmp_path / "s", texts) as sets:
        index = ShingleIndex(sets, np.arange(2000), threshold=0.7, crew=Crew())
        assert (keep_first(index, np.arange(2000), np.zeros(2000, bool)).kept_by < 0).all()


def test_progress_counts_the_whole_work(tmp_path):
    told = {}

    @contextmanager
    def watch(what, total, unit):
        done = []
        yield done.append
        assert sum(done) == total
        told.setdefault(f"{what}, {unit}", []).append(total)

    texts = crowd(random.Random(5))
    with stored(tmp_path / "s", texts) as sets:
        index = ShingleIndex(sets, np.arange(len(texts)), threshold=0.7, crew=Crew(watch=watch))
        keep_first(index, np.arange(len(texts)), np.zeros(len(texts), bool))
    assert told["split: index, shingles"] == [int(sets.sizes.sum())]
    assert told["split: propose, parts"][0] == 1
    assert told["split: compare, pairs"][0] > 100


@pytest.mark.parametrize(("postings", "parts"), [
    (0, 1), ((1 << 18) - 1, 1), (1 << 20, 8), ((1 << 26) - 1, 256), (1 << 28, 512), (1 << 31, 2048),
])  # fmt: skip
def test_the_parts_of_a_join_grow_with_the_index_until_memory_bounds_them(postings, parts):
    """Each part opens one file per part of the corpus; with parts of a fixed size the cost would be quadratic."""
    assert dedup.join_parts(postings) == parts


def test_a_pair_number_holds_both_rows():
    rows = np.array([[0, 5], [3, 2**31 - 1]])
    names = (rows[:, 0].astype(np.uint64) << np.uint64(32)) | rows[:, 1].astype(np.uint64)
    assert [column.tolist() for column in rows_of(names)] == rows.T.tolist()


@pytest.mark.parametrize(("size", "bits"), [(0, 16), (1 << 19, 17), (100_000_000, 24), (1 << 40, 25)])
def test_the_table_of_counts_grows_with_the_corpus_up_to_a_bound(size, bits):
    assert slot_bits(size) == bits
