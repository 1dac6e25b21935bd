"""Two united histories of one ledger: the same splits in every order, and held-out documents stay held out."""

import random
import shutil

import numpy as np
import pytest

from codex_ml.core.errors import UserError
from codex_ml.split.config import Split
from codex_ml.split.contradictions import CONTENT, GROUP, NEAR_COPY, contradictions
from codex_ml.split.ledger.answers import SPLITS
from codex_ml.split.ledger.edits import write_folder
from codex_ml.split.ledger.folder import read_ledger
from codex_ml.split.ledger.line_format import read_ledger_text, salt_mark

from ..dealing import Dealer, Doc, ledger_of, line_of, naive_pairs, variant

SALT = "pepper"
MODES = ({}, {}, {}, {"folds": 3, "fold": 1}, {"stratify": "language"})
FILLER = [Doc(f"filler {i} of some words that nobody else has {i}", path=f"filler-{i}") for i in range(12)]


def params(mode):
    return Split(val=0.25, test=0.25, salt=SALT, **mode)


def lines_in(folder):
    texts = [read_ledger_text(path.read_bytes(), path.name).lines for path in sorted(folder.glob("*.txt"))]
    return np.unique(np.concatenate(texts)) if texts else np.zeros(0, "S37")


def some_docs(dice, number, side):
    """Families of near-copies, exact copies under other groups and places, documents of their own."""
    docs = []
    for index in range(number):
        if dice.random() < 0.75:
            text = variant(dice.randrange(7), dice.choice([0, 2, 4, 6, 8]), dice.choice(["", " \r\n"]))
        else:
            text = f"only here {dice.randrange(150)} are these words of number {dice.randrange(3)}"
        group = dice.choice(["", "", "", "g0", "g1", "g2", "g3", "g4"])
        docs.append(Doc(text, group, f"{side}{index:02}", dice.choice(["python", "c"])))
    return docs


class History:
    """A branch: its documents by path, and its ledger after each accepted split."""

    def __init__(self, dealer, docs, ledger):
        self.dealer, self.docs, self.ledger = dealer, dict(docs), ledger

    def step(self, dice, side):
        """Add, remove and regroup documents; then split and accept."""
        for doc in some_docs(dice, dice.randrange(1, 10), side):
            self.docs[doc.path] = doc
        for path in dice.sample(sorted(self.docs), k=min(len(self.docs), dice.choice([0, 0, 1, 4]))):
            if not path.startswith("filler"):
                del self.docs[path]
        for path in dice.sample(sorted(self.docs), k=min(len(self.docs), dice.choice([0, 0, 0, 2]))):
            if not path.startswith("filler"):
                self.docs[path] = self.docs[path]._replace(group=dice.choice(["", "g0", "g2", "g5"]))
        result = deal(self.dealer, self.docs, dice.choice(MODES), self.ledger)
        if result is not None:
            self.ledger = result.ledger


def deal(dealer, docs, mode, ledger):
    """The result, or None where a split would be empty."""
    try:
        return dealer.deal([docs[path] for path in sorted(docs)], params(mode), ledger)
    except UserError as error:
        assert "split is empty" in str(error)
        return None


def held_out(ledger):
    """Contents that a history published as kept in test and in val."""
    found = read_ledger(ledger, salt=SALT)
    keys = list(zip(found.high.tolist(), found.low.tolist(), strict=True))
    names = [SPLITS[i] if kept else "" for i, kept in zip(found.split.tolist(), found.kept.tolist(), strict=True)]
    return {part: {key for key, name in zip(keys, names, strict=True) if name == part} for part in ("test", "val")}


def key(doc):
    return int.from_bytes(doc.content[:8], "big"), int.from_bytes(doc.content[8:12], "big")


def check_clean(result, published, folds):
    """Promises of a split with a ledger of several histories, computed the slow way."""
    kept = [(doc, part) for doc, part in zip(result.docs, result.parts, strict=True) if part]
    units = {(doc.unit, part) for doc, part in kept}
    assert len(units) == len({unit for unit, _ in units}), "a group is in two splits"
    texts = [doc.text for doc, _ in kept]
    for a, b in naive_pairs(texts, 0.7):
        assert kept[a][1] == kept[b][1], "near-copies are in two splits"
    for doc, part in kept:
        assert part == "test" or not any(key(doc) in side["test"] for side in published)
        assert part != "train" or folds or not any(key(doc) in side["val"] for side in published)
    everything = [doc.text for doc in result.docs]
    parts = result.parts
    for a, b in naive_pairs(everything, 0.7):
        for one, other in ((a, b), (b, a)):
            if any(key(result.docs[one]) in side["test"] for side in published):
                assert parts[other] in ("test", ""), "a near-copy of a published test document is not in test"
            elif not folds and any(key(result.docs[one]) in side["val"] for side in published):
                assert parts[other] != "train", "a near-copy of a published val document is in train"


def united(folder, *ledgers):
    shutil.rmtree(folder, ignore_errors=True)
    write_folder(folder, [lines_in(ledger) for ledger in ledgers], salt_mark(SALT))
    return folder


@pytest.fixture(scope="module")
def dealer(tmp_path_factory):
    return Dealer(tmp_path_factory.mktemp("merge"))


def merged_histories(dealer, seed):
    """(three histories of one base, all their documents except those that one of them removed)."""
    dice = random.Random(seed)
    base = History(dealer, {doc.path: doc for doc in FILLER}, dealer.empty())
    for number in range(dice.randrange(2)):
        base.step(dice, f"base{number}-")
    sides = []
    for name in "abc":
        side = History(dealer, base.docs, base.ledger)
        for number in range(dice.randrange(1, 4)):
            side.step(dice, f"{name}{number}-")
        sides.append(side)
    gone = {path for path in base.docs if any(path not in side.docs for side in sides)}
    docs = {path: doc for side in sides for path, doc in side.docs.items() if path not in gone}
    return sides, docs


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 300))])
def test_histories_unite_in_every_order_and_stay_clean(dealer, tmp_path, seed):
    sides, docs = merged_histories(dealer, seed)
    ledgers = [side.ledger for side in sides]
    one = united(tmp_path / "abc", *ledgers)
    other = united(tmp_path / "cba", united(tmp_path / "cb", *ledgers[:0:-1]), ledgers[0])
    assert (one / "all.txt").read_bytes() == (other / "all.txt").read_bytes()
    found = read_ledger(one, salt=SALT)
    contents = set(zip(found.high.tolist(), found.low.tolist(), strict=True))
    published = [held_out(ledger) for ledger in [*ledgers, one]]
    for mode in ({}, {"folds": 3, "fold": 2}, {"stratify": "language"}):
        result = deal(dealer, docs, mode, one)
        if result is None:
            continue
        check_clean(result, published, "folds" in mode)
        again = deal(dealer, docs, mode, result.ledger)
        assert again.parts == result.parts
        third = deal(dealer, docs, mode, again.ledger)
        assert third.verdicts == again.verdicts
        assert third.ledger_bytes == again.ledger_bytes
        # One that a history published and took out may evict its near-copies when it comes back; a new one moves none.
        more = {doc.path: doc for doc in some_docs(random.Random(seed), 8, "later-") if key(doc) not in contents}
        later = deal(dealer, {**docs, **more}, mode, result.ledger)
        before = {doc.path: part for doc, part in zip(again.docs, again.parts, strict=True)}
        assert [part for doc, part in zip(later.docs, later.parts, strict=True) if doc.path not in more] == [
            before[doc.path] for doc in later.docs if doc.path not in more
        ]
        check_clean(later, published, "folds" in mode)


def kinds(result):
    found = contradictions(result.documents, result.dealt, result.known)
    return {
        result.docs[row].path: (about["contradiction"], about["answers"], about["result"])
        for row, about in found.items()
    }


@pytest.mark.parametrize("seed", range(12))
def test_a_single_history_has_no_contradiction(dealer, seed):
    dice = random.Random(seed)
    one = History(dealer, {doc.path: doc for doc in FILLER}, dealer.empty())
    for number in range(4):
        for doc in some_docs(dice, 6, f"s{number}-"):
            one.docs[doc.path] = doc
        result = deal(dealer, one.docs, {}, one.ledger)
        if result is not None:
            one.ledger = result.ledger
            assert kinds(result) == {}


def test_each_kind_of_contradiction_is_named_with_its_answers(dealer, tmp_path):
    text, group = Doc("one text that two people added here", path="text"), "g0"
    here, there = (Doc(f"a text of the group that is only {side}", group, side) for side in ("here", "there"))
    twin = Doc("a text that was a duplicate of a test document", path="twin")
    near, copy = Doc(variant(9, 0), path="near"), Doc(variant(9, 2), path="copy")
    ledger = ledger_of(
        tmp_path / "l",
        [
            line_of(text, 0, SALT), line_of(text, 2, SALT), line_of(twin, 0, SALT), line_of(twin, 2, SALT, kept=False), line_of(here, 2, SALT), line_of(there, 1, SALT),
            line_of(near, 1, SALT), line_of(copy, 0, SALT),
        ],
        SALT,
    )  # fmt: skip
    result = dealer.deal([*FILLER, text, twin, here, there, near, copy], params({}), ledger)
    assert kinds(result) == {
        "text": (CONTENT, ["test", "train"], "test"),
        "twin": (CONTENT, ["test", "train"], "quarantined"),
        "there": (GROUP, ["test", "val"], "quarantined"),
        "copy": (NEAR_COPY, ["train", "val"], "near-duplicate of held-out"),
    }
