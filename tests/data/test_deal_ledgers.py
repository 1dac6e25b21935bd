"""A ledger that a run wrote says the same when it is read again, whatever the documents have in common."""

import pytest

from codex_ml.config import Split
from codex_ml.data import dedup
from codex_ml.data.deal import position
from codex_ml.data.dedup import BANDS, Pairs, crossing, keep_first

from .dealing import Dealer, Doc, families_and_groups, quiet, sketched, variant

PARAMS = Split(val=0.3, test=0.3, salt="pepper")
FOLDS = PARAMS.model_copy(update={"folds": 4, "fold": 1})


@pytest.fixture(scope="module")
def dealer(tmp_path_factory):
    return Dealer(tmp_path_factory.mktemp("deal"))


@pytest.fixture(scope="module")
def corpus():
    return families_and_groups()[:600]


def by_hash(doc):
    share = position(doc.unit, PARAMS.salt) / 2**64
    return "test" if share < PARAMS.test else "val" if share < PARAMS.test + PARAMS.val else "train"


@pytest.mark.xfail(strict=True, reason="bug 1: a known duplicate in a group of another split becomes quarantined")
def test_a_second_run_gives_the_same_reasons(dealer, corpus):
    first = dealer.deal(corpus, PARAMS, dealer.empty())
    assert dealer.deal(corpus, PARAMS, first.ledger).verdicts == first.verdicts


@pytest.mark.xfail(strict=True, reason="bug 2: rows that are no first copies take their units along")
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_copy_of_a_known_text_takes_no_new_group_along(dealer, part):
    """Otherwise an empty __init__.py that was once dealt to test would draw every new repository there."""
    texts = [Doc(f"an old text of its own {i} with number {i}", path=f"old{i}") for i in range(60)]
    first = dealer.deal(texts, PARAMS, dealer.empty())
    known = texts[first.parts.index(part)]
    copies = [Doc(known.text, f"new{i}", f"z{i}") for i in range(40)]
    own = [Doc(f"{i} is what this new group says in {i} words", f"new{i}", f"own{i}") for i in range(40)]
    second = dealer.deal([*texts, *copies, *own], PARAMS, first.ledger)
    assert second.parts[-40:] == [by_hash(doc) for doc in own]


@pytest.mark.xfail(strict=True, reason="bug 3: train and pool of one unit count as a conflict")
@pytest.mark.parametrize("modes", [(PARAMS, FOLDS, FOLDS), (FOLDS, PARAMS, PARAMS), (PARAMS, FOLDS, PARAMS)])
def test_groups_that_grew_under_folds_and_without_stay_whole(dealer, modes):
    docs = [Doc(f"{i} words of the document {i} here", f"g{i % 40}", f"d{i}") for i in range(160)]
    ledger = dealer.empty()
    for params, size in zip(modes, (80, 160, 160), strict=True):
        result = dealer.deal(docs[:size], params, ledger)
        assert result.dealt.reason.tolist() == [""] * size
        ledger = result.ledger


@pytest.mark.xfail(strict=True, reason="bug 7: kept_by is not followed to the end")
def test_what_stands_for_a_dropped_document_is_kept_itself(dealer):
    family = [Doc(variant(b, changed) + end, path=f"{b}.{changed}{end!r}") for b in range(30) for changed in (0, 2) for end in ("", " \n")]  # fmt: skip
    for ledger in (None, dealer.empty()):
        result = dealer.deal(family, PARAMS, ledger)
        assert result.parts.count("") == 90
        keepers = [row for row in result.dealt.kept_by.tolist() if row >= 0]
        assert len(keepers) == 90
        assert [row for row in keepers if not result.parts[row]] == []


@pytest.mark.xfail(strict=True, reason="bug 8: 0.55 * 100 is 55.00000000000001")
def test_a_pair_on_the_threshold_is_a_pair(tmp_path):
    words = [f"w{i}" for i in range(104)]
    with sketched(tmp_path / "s", [" ".join(words), " ".join(words[:59])]) as sketches:
        assert sketches.sizes.tolist() == [100, 55]
        pairs = Pairs(sketches, 0.55)
        pairs.verify(sketches.sizes[:1] * 0, sketches.sizes[:1] * 0 + 1)
        assert pairs.found == {(0, 1): 0.55}


@pytest.mark.xfail(strict=True, reason="bug 9: a pair of val and test comes from either side, in two blocks")
def test_a_crowd_across_val_and_test_is_told_once_a_pair(tmp_path, monkeypatch):
    """More than 2^20 pairs a band, which are looked at block by block."""
    monkeypatch.setattr(dedup, "BANDS", 1)
    monkeypatch.setattr(dedup, "jaccard", lambda a, b: 1.0)
    size = 1100
    with sketched(tmp_path / "s", ["one two three four five"] * size) as sketches:
        rows = sketches.sizes.cumsum() - 1
        part = (rows % 2 + 1).astype("int8")
        first, second, _ = crossing(sketches, rows, part, seed=2, threshold=0.5, advance=quiet)
    told = {(min(a, b), max(a, b)) for a, b in zip(first.tolist(), second.tolist(), strict=True)}
    assert len(told) == (size // 2) ** 2
    assert len(first) == len(told)


@pytest.mark.xfail(strict=True, reason="bug 15: no round, no step")
def test_bands_are_told_also_where_no_text_has_five_words(tmp_path):
    steps = []
    with sketched(tmp_path / "s", ["few words", ""]) as sketches:
        rows = sketches.sizes.cumsum()
        keep_first(sketches, rows, rows > 0, seed=1, threshold=0.7, advance=steps.append)
    assert steps == [1] * BANDS
