"""The split of a document depends on the document only: no order, addition or copy moves or leaks one."""

import random
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from codex_ml.core.errors import UserError
from codex_ml.split import deal as module
from codex_ml.split.candidates import EVICTED, PARTS
from codex_ml.split.config import Split
from codex_ml.split.duplicates.dedup import Families
from codex_ml.split.shares import position

from .dealing import CORPORA, MODES, Dealer, Doc, families_and_groups, ledger_of, line_of, naive_pairs, variant

PARAMS = Split(val=0.3, test=0.3, salt="pepper")
FILLER = [Doc(f"filler {i} of some words that nobody else has {i}", path=f"filler-{i}") for i in range(8)]
UNSHRUNK = (Phase.explicit, Phase.generate)  # an example takes 20 ms: shrinking one would take minutes


@pytest.fixture(scope="module")
def dealer(tmp_path_factory):
    return Dealer(tmp_path_factory.mktemp("deal"))


def params(mode):
    return Split(**{**PARAMS.model_dump(), **mode})


def dealt(dealer, docs, mode, ledger):
    try:
        return dealer.deal([*FILLER, *docs], params(mode), ledger)
    except UserError as error:
        assume("split is empty" not in str(error))
        raise


@given(CORPORA, MODES, st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_documents_changes_nothing(dealer, docs, mode, with_ledger, dice):
    ledger = dealer.empty() if with_ledger else None
    result = dealt(dealer, docs, mode, ledger)
    order = dice.sample(range(len(result.docs)), len(result.docs))
    shuffled = dealer.deal([result.docs[i] for i in order], params(mode), ledger)
    assert shuffled.verdicts == [result.verdicts[i] for i in order]
    if with_ledger:
        assert shuffled.ledger_bytes == result.ledger_bytes


@given(CORPORA, CORPORA, MODES)
@settings(max_examples=40, deadline=None, phases=UNSHRUNK)
def test_with_a_ledger_added_documents_move_no_listed_one(dealer, old, new, mode):
    first = dealt(dealer, old, mode, dealer.empty())
    again = dealer.deal(first.docs, params(mode), first.ledger)
    assert again.parts == first.parts
    assert again.ledger_bytes == first.ledger_bytes
    added = [doc._replace(path=f"new-{doc.path}") for doc in new]
    both = dealer.deal([*added, *first.docs], params(mode), first.ledger)
    assert both.parts[len(added) :] == first.parts
    assert set(first.ledger_bytes.splitlines()) <= set(both.ledger_bytes.splitlines())


@given(CORPORA, CORPORA, MODES, st.booleans())
@settings(max_examples=30, deadline=None)
def test_no_unit_copy_or_near_pair_is_in_two_splits(dealer, old, new, mode, with_ledger):
    ledger = dealt(dealer, old, mode, dealer.empty()).ledger if with_ledger else None
    result = dealt(dealer, new, mode, ledger)
    kept = [(doc, part) for doc, part in zip(result.docs, result.parts, strict=True) if part]
    assert len({doc.content for doc, _ in kept}) == len(kept)
    units = {(doc.unit, part) for doc, part in kept}
    assert len(units) == len({unit for unit, _ in units})
    for a, b in naive_pairs([doc.text for doc, _ in kept], 0.7):
        assert kept[a][1] == kept[b][1]
    for (part, reason, keeper), doc in zip(result.verdicts, result.docs, strict=True):
        assert (part == "") == (reason != "")
        assert reason in ("", "exact duplicate", "near-duplicate", "near-duplicate of held-out", "quarantined")
        other = next((d for d in result.docs if d.path == keeper), None)
        if reason == "exact duplicate":
            assert other.content == doc.content
        elif reason == "near-duplicate":
            assert naive_pairs([doc.text, other.text], 0.7)
            assert result.parts[result.docs.index(other)]


@pytest.fixture(scope="module")
def corpus():
    return families_and_groups()


@pytest.mark.parametrize("blind", [False, True])
def test_no_near_pair_of_two_thousand_documents_is_across_the_splits(dealer, corpus, monkeypatch, blind):
    """Also if the first search finds nothing, so that only the second one protects the splits."""
    if blind:
        nobody = np.full(len(corpus), -1)
        monkeypatch.setattr(module, "keep_first", lambda *a: Families(nobody, *[nobody[:0]] * 3))
    result = dealer.deal(corpus, PARAMS)
    kept = [i for i, part in enumerate(result.parts) if part]
    assert len(kept) > 800
    close = naive_pairs([corpus[i].text for i in kept], 0.7)
    assert [pair for pair in close if result.parts[kept[pair[0]]] != result.parts[kept[pair[1]]]] == []
    assert bool(close) == blind
    assert ((result.dealt.reason == EVICTED).sum() > 100) == blind
    for number in np.flatnonzero(result.dealt.reason == EVICTED).tolist():
        own, other = (share_part(corpus[i]) for i in (number, int(result.dealt.kept_by[number])))
        assert PARTS.index(own) < PARTS.index(other)  # train makes way for val and test, val for test
    order = random.Random(0).sample(range(len(corpus)), len(corpus))
    shuffled = dealer.deal([corpus[i] for i in order], PARAMS)
    assert shuffled.parts == [result.parts[i] for i in order]


def share_part(doc, settings_=PARAMS):
    share = position(doc.unit, settings_.salt) / 2**64
    return "test" if share < settings_.test else "val" if share < settings_.test + settings_.val else "train"


def test_without_a_ledger_the_hash_of_the_unit_alone_decides(dealer, corpus):
    result = dealer.deal(corpus, PARAMS)
    assert {part for part, doc in zip(result.parts, corpus, strict=True) if part and part != share_part(doc)} == set()
    later = dealer.deal(corpus[:1000], PARAMS)
    assert not {(a, b) for a, b in zip(result.parts, later.parts, strict=False) if a and b and a != b}


def test_shares_are_met_and_another_salt_deals_again(dealer, corpus):
    docs = [doc._replace(group="") for doc in corpus]
    by_salt = [
        dealer.deal(docs, params({"salt": salt, "val": 0.1, "test": 0.2}), dealer.empty()) for salt in ("a", "b")
    ]
    for result in by_salt:
        counts = Counter(part for part in result.parts if part)
        assert counts["val"] / counts.total() == pytest.approx(0.1, abs=0.03)
        assert counts["test"] / counts.total() == pytest.approx(0.2, abs=0.04)
    both = [pair for pair in zip(by_salt[0].parts, by_salt[1].parts, strict=True) if all(pair)]
    assert sum(a == b for a, b in both) / len(both) == pytest.approx(0.7**2 + 0.1**2 + 0.2**2, abs=0.06)


def test_the_position_of_a_key_is_frozen():
    assert [position(key, "codex-ml") for key in (b"key", b"")] == [7810181490496135831, 16545809088735259785]
    assert position(b"key", "other") == 3956375559889622294


@pytest.mark.parametrize("with_ledger", [False, True])
def test_each_unit_is_validation_in_exactly_one_fold(dealer, corpus, with_ledger):
    ledger, folds = dealer.empty() if with_ledger else None, []
    for fold in range(5):
        result = dealer.deal(corpus, params({"folds": 5, "fold": fold}), ledger)
        ledger = result.ledger if with_ledger else None
        folds.append(result)
    for number, doc in enumerate(corpus):
        parts = [result.parts[number] for result in folds]
        if with_ledger or all(parts):  # without one, a document can be kept in one fold and stand back in another
            assert sorted(parts) in (["test"] * 5, ["train"] * 4 + ["val"], [""] * 5), doc
        assert parts.count("val") <= 1
    sizes = [result.parts.count("val") for result in folds]
    assert min(sizes) > 0.6 * max(sizes)  # units are groups of up to a dozen documents
    assert {part for doc, part in zip(corpus, folds[0].parts, strict=True) if (share_part(doc) == "test") and part} == {
        "test"
    }


@pytest.mark.parametrize("modes", [({}, {"folds": 4}), ({"folds": 4}, {}), ({"folds": 4}, {"folds": 7, "fold": 6})])
def test_a_ledger_stays_valid_with_and_without_folds(dealer, corpus, modes):
    before = dealer.deal(corpus[:1000], params(modes[0]), dealer.empty())
    after = dealer.deal(corpus, params(modes[1]), before.ledger)
    assert after.known.split.max() == (3 if modes[0] else 2)
    for old, new in zip(before.parts, after.parts, strict=False):
        assert (old == "test") == (new == "test")
        assert (old == "") == (new == "")


def test_each_stratum_has_its_share(dealer):
    """Within one document, because units are single documents."""
    docs = [Doc(f"{i} text of {i} five words", path=str(i), stratum="abcd"[min(3, i % 16 // 5)]) for i in range(500)]
    result = dealer.deal(docs, params({"stratify": "language", "val": 0.1, "test": 0.2}))
    for stratum in "abcd":
        parts = [part for part, doc in zip(result.parts, docs, strict=True) if doc.stratum == stratum]
        assert abs(parts.count("test") - 0.2 * len(parts)) <= 1
        assert abs(parts.count("val") - 0.1 * len(parts)) <= 1


def test_documents_without_a_group_key_do_not_form_a_group(dealer):
    docs = [Doc(f"{i} text of {i} five words", path=str(i)) for i in range(300)]
    assert set(dealer.deal(docs, PARAMS).parts) == set(PARTS)
    assert len(set(dealer.deal([*docs, *(Doc(f"t{i}", "7", f"t{i}") for i in range(50))], PARAMS).parts[300:])) == 1


@pytest.mark.parametrize(
    ("docs", "found"),
    [
        ([], r"the train split is empty \(0 of 0 documents are left after deduplication\)"),
        (
            [Doc("a", path=str(i)) for i in range(5)],
            r"the \w+ split is empty \(1 of 5 documents are left after deduplication\)",
        ),
        (
            [Doc(str(i), "one", str(i)) for i in range(40)],
            r"the \w+ split is empty: one group holds 100 % of the 40 documents",
        ),
        (
            [Doc("a", path="a"), *(Doc(str(i), "one", str(i)) for i in range(39))],
            r"the \w+ split is empty: one group holds 98 % of the 40 documents",
        ),
    ],
)
def test_an_empty_split_is_refused_with_advice(dealer, docs, found):
    advice = {
        "(": "; add documents, raise split.val and split.test, or change split.salt or split.licences",
        ":": ", and a group is never divided; map a finer group field, set group: none, or add sources",
    }[":" if "group" in found else "("]
    with pytest.raises(UserError) as error:
        dealer.deal(docs, PARAMS)
    assert re.fullmatch(found + re.escape(advice), str(error.value))


def in_part(part):
    return [name for name in map("group-{}".format, range(99)) if share_part(Doc("", name)) == part]


@pytest.fixture
def ledger(tmp_path):
    def write(*entries):
        return ledger_of(tmp_path / "ledger", entries, PARAMS.salt)

    return write


def lines(docs, parts):
    return [line_of(doc, PARTS.index(part), PARAMS.salt) for doc, part in zip(docs, parts, strict=True)]


def test_a_content_whose_group_is_in_another_split_is_quarantined(dealer, ledger):
    """The ledger lists the content in train, and its later group in test: the document is used for neither."""
    member, loose = Doc("one member of the group", "g", "m"), Doc("a text without any group", path="l")
    file = ledger(*lines([member, loose], ["test", "train"]))
    result = dealer.deal([*FILLER, member, loose._replace(group="g")], PARAMS, file)
    assert result.verdicts[-2:] == [("test", "", ""), ("", "quarantined", "")]
    assert dealer.deal([*FILLER, member, loose], PARAMS, file).parts[-2:] == ["test", "train"]


def test_a_new_group_follows_a_listed_content(dealer, ledger):
    group = in_part("train")[0]
    old = Doc("a text without any group", path="l")
    new = [old._replace(group=group), Doc("something else altogether here", group, "n")]
    assert dealer.deal([*FILLER, *new], PARAMS).parts[-2:] == ["train"] * 2
    assert dealer.deal([*FILLER, *new], PARAMS, ledger(*lines([old], ["test"]))).parts[-2:] == ["test"] * 2


def test_the_cleanest_line_of_the_ledger_counts(dealer, ledger):
    doc = Doc("a text without any group", path="l")
    for parts in (["train", "test"], ["test", "train"], ["val", "test", "val"], ["train", "val"], ["val", "train"]):
        file = ledger(*lines([doc] * len(parts), parts))
        expected = "test" if "test" in parts else "val"
        assert dealer.deal([*FILLER, doc], PARAMS, file).parts[-1] == expected


@pytest.mark.parametrize("part", PARTS)
def test_a_family_keeps_its_split_if_its_representative_is_removed(dealer, part):
    family = [Doc(f"{variant(9, 0)} {i}", path=f"f{i}") for i in range(99)]
    first = dealer.deal([*FILLER, *family[: 60 + PARTS.index(part)]], PARAMS, dealer.empty())
    [keeper] = [i for i, p in enumerate(first.parts[len(FILLER) :]) if p]
    split = first.parts[len(FILLER) + keeper]
    rest = [doc for i, doc in enumerate(family[:60]) if i != keeper]
    second = dealer.deal([*FILLER, *rest], PARAMS, first.ledger)
    assert [p for p in second.parts[len(FILLER) :] if p] == [split]
    third = dealer.deal([*FILLER, *rest, family[keeper]], PARAMS, second.ledger)
    assert {p for p in third.parts[len(FILLER) :] if p} == {split}


def test_a_duplicate_of_another_split_does_not_pull_its_group(dealer):
    """The ledger lists it with the split of its family; its group is what the kept members say."""
    group = in_part("test")[0]
    pairs = [(Doc(variant(b, 0), path="k"), Doc(variant(b, 2), group, "d")) for b in range(9, 60)]
    keeper, duplicate = next((k, d) for k, d in pairs if k.content < d.content and share_part(k) == "train")
    members = [Doc(f"another text of the group {i}", group, f"m{i}") for i in range(20)]
    assert min(d.content for d in members) < duplicate.content < max(d.content for d in members)
    for chosen in (members, [max(members, key=lambda d: d.content)], [min(members, key=lambda d: d.content)]):
        first = dealer.deal([*FILLER, keeper, duplicate, *chosen], PARAMS, dealer.empty())
        assert first.parts[len(FILLER) :] == ["train", "", *["test"] * len(chosen)]
        again = dealer.deal([*first.docs, Doc("a new text of the group", group, "new")], PARAMS, first.ledger)
        assert again.parts == [*first.parts, "test"]


def test_a_new_near_duplicate_of_two_splits_is_dropped_and_the_listed_ones_stay(dealer, ledger):
    old = [Doc(variant(9, 0), path="a"), Doc(variant(9, 8), path="b")]
    file = ledger(*lines(old, ["test", "train"]))
    result = dealer.deal([*FILLER, Doc(variant(9, 4), path="c"), *old], PARAMS, file)
    assert result.parts[-3:] == ["", "test", "train"]
    assert result.verdicts[-3][1] == "near-duplicate"


@pytest.mark.parametrize(("old", "new"), [(a, b) for a, b in pairwise([*PARTS, "train"])])
def test_listed_documents_stay_if_only_the_second_search_finds_a_pair(dealer, ledger, monkeypatch, old, new):
    nobody = np.full(len(FILLER) + 2, -1)
    monkeypatch.setattr(module, "keep_first", lambda *a: Families(nobody, *[nobody[:0]] * 3))
    first = Doc(variant(9, 0), path="a")
    second = Doc(variant(9, 2), in_part(new)[0], "b")
    result = dealer.deal([*FILLER, first, second], PARAMS, ledger(*lines([first], [old])))
    assert result.verdicts[-2:] == [(old, "", ""), ("", "quarantined", "a")]
