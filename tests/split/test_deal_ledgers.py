"""A ledger that a run wrote gives the same splits when it is read again, whatever the documents have in common."""

import pytest

from codex_ml.split.candidates import POOL
from codex_ml.split.config import Split
from codex_ml.split.shares import position

from .dealing import Dealer, Doc, families_and_groups, ledger_of, line_of

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
def test_a_copy_of_a_listed_text_does_not_pull_its_group(dealer, part):
    """Else an empty __init__.py that was once dealt to test would pull every new repository into test."""
    texts = [Doc(f"an old text of its own {i} with number {i}", path=f"old{i}") for i in range(60)]
    first = dealer.deal(texts, PARAMS, dealer.empty())
    known = texts[first.parts.index(part)]
    copies = [Doc(known.text, f"new{i}", f"z{i}") for i in range(40)]
    own = [Doc(f"{i} is what this new group says in {i} words", f"new{i}", f"own{i}") for i in range(40)]
    second = dealer.deal([*texts, *copies, *own], PARAMS, first.ledger)
    assert second.parts[-40:] == [by_hash(doc) for doc in own]


@pytest.mark.parametrize("modes", [(PARAMS, FOLDS, FOLDS), (FOLDS, PARAMS, PARAMS), (PARAMS, FOLDS, PARAMS)])
def test_groups_that_grew_with_and_without_folds_stay_whole(dealer, modes):
    docs = [Doc(f"{i} words of the document {i} here", f"g{i % 40}", f"d{i}") for i in range(160)]
    ledger = dealer.empty()
    for params, size in zip(modes, (80, 160, 160), strict=True):
        result = dealer.deal(docs[:size], params, ledger)
        assert result.reasons == [""] * size
        ledger = result.ledger


def test_a_train_document_that_joins_a_group_of_the_pool_never_becomes_validation(dealer, tmp_path):
    fillers = [Doc(f"filler {i} of some words that nobody else has {i}", path=f"f{i}") for i in range(8)]
    for number in range(20):
        member, alone = Doc("a member of the group in words", f"g{number}", "m"), Doc("a text of train alone", path="a")
        lines = [line_of(member, POOL, PARAMS.salt), line_of(alone, 0, PARAMS.salt)]
        file = ledger_of(tmp_path / "ledger", lines, PARAMS.salt)
        result = dealer.deal([*fillers, member, alone._replace(group=member.group)], PARAMS, file)
        assert result.verdicts[-1][:2] in (("train", ""), ("", "quarantined"))
