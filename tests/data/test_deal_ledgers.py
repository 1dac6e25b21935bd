"""A ledger that a run wrote says the same when it is read again, whatever the documents have in common."""

import pytest

from codex_ml.config import Split
from codex_ml.data import dedup
from codex_ml.data.deal import POOL, position
from codex_ml.data.dedup import BANDS, Pairs, crossing, keep_first
from codex_ml.data.ledger import write_ledger

from .dealing import Dealer, Doc, entry_of, families_and_groups, quiet, sketched

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


def test_a_second_run_gives_the_same_reasons(dealer, corpus):
    first = dealer.deal(corpus, PARAMS, dealer.empty())
    assert dealer.deal(corpus, PARAMS, first.ledger).verdicts == first.verdicts


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


@pytest.mark.parametrize("modes", [(PARAMS, FOLDS, FOLDS), (FOLDS, PARAMS, PARAMS), (PARAMS, FOLDS, PARAMS)])
def test_groups_that_grew_under_folds_and_without_stay_whole(dealer, modes):
    docs = [Doc(f"{i} words of the document {i} here", f"g{i % 40}", f"d{i}") for i in range(160)]
    ledger = dealer.empty()
    for params, size in zip(modes, (80, 160, 160), strict=True):
        result = dealer.deal(docs[:size], params, ledger)
        assert result.dealt.reason.tolist() == [""] * size
        ledger = result.ledger


def test_a_train_document_that_joins_a_group_of_the_pool_never_becomes_validation(dealer, tmp_path):
    fillers = [Doc(f"filler {i} of some words that nobody else has {i}", path=f"f{i}") for i in range(8)]
    for number in range(20):
        member, alone = Doc("a member of the group in words", f"g{number}", "m"), Doc("a text of train alone", path="a")
        lines = [entry_of(member, POOL, PARAMS.salt), entry_of(alone, 0, PARAMS.salt)]
        write_ledger(tmp_path / "ledger", None, lines, salt=PARAMS.salt)
        result = dealer.deal([*fillers, member, alone._replace(group=member.group)], PARAMS, tmp_path / "ledger")
        assert result.verdicts[-1][:2] in (("train", ""), ("", "quarantined"))


def test_a_pair_on_the_threshold_is_a_pair(tmp_path):
    words = [f"w{i}" for i in range(104)]
    with sketched(tmp_path / "s", [" ".join(words), " ".join(words[:59])]) as sketches:
        assert sketches.sizes.tolist() == [100, 55]
        pairs = Pairs(sketches, 0.55)
        pairs.verify(sketches.sizes[:1] * 0, sketches.sizes[:1] * 0 + 1)
        assert pairs.found == {(0, 1): 0.55}


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


def test_bands_are_told_also_where_no_text_has_five_words(tmp_path):
    steps = []
    with sketched(tmp_path / "s", ["few words", ""]) as sketches:
        rows = sketches.sizes.cumsum()
        keep_first(sketches, rows, rows > 0, seed=1, threshold=0.7, advance=steps.append)
    assert sum(steps) == BANDS
