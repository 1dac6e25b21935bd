"""A family of near-duplicates counts once, whatever its size: val and test get their shares of the kept documents."""

import random
from collections import Counter

import pytest

from codex_ml.split.config import Split

from .dealing import Dealer, Doc

FAMILIES = 200
SALTS = ("a", "b", "c", "d", "e")
SHARES = {"val": 0.15, "test": 0.15}


def families(size, *, exact=False, grouped=False):
    """`size` texts per family that differ in their last word, or not at all; each family in a group of its own."""
    dice = random.Random(size)
    docs = []
    for family in range(FAMILIES):
        text = " ".join(f"w{dice.randrange(900)}" for _ in range(60))
        for copy in range(size):
            end = "" if exact else f" end{copy}"
            group = f"g{family}" if grouped else ""
            docs.append(Doc(text + end, group, f"{family:03}-{copy}", ["python", "c"][family % 2]))
    return docs


def bounds(share, count):
    """Four standard deviations of the binomial around its mean; 1 in 16,000 correct deals is outside."""
    width = 4 * (count * share * (1 - share)) ** 0.5
    return count * share - width, count * share + width


@pytest.mark.parametrize("size", [1, 5, *(pytest.param(size, marks=pytest.mark.slow) for size in (2, 12))])
@pytest.mark.parametrize("kind", ["near", "exact", "grouped"])
@pytest.mark.parametrize("with_ledger", [False, True])
def test_one_of_each_family_is_dealt_once(tmp_path, size, kind, with_ledger):
    docs = families(size, exact=kind == "exact", grouped=kind == "grouped")
    counts = Counter()
    for salt in SALTS:
        (tmp_path / "ledger").mkdir(exist_ok=True)
        (tmp_path / "ledger/all.txt").touch()
        params = Split(**SHARES, salt=salt)
        result = Dealer(tmp_path / salt).deal(docs, params, tmp_path / "ledger" if with_ledger else None)
        kept = [part for part in result.parts if part]
        assert len(kept) == FAMILIES
        counts.update(kept)
    for part, share in SHARES.items():
        low, high = bounds(share, FAMILIES * len(SALTS))
        assert low <= counts[part] <= high, counts


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("with_ledger", [False, True])
def test_a_stratum_gets_its_exact_shares_of_the_kept_documents(tmp_path, size, with_ledger):
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger/all.txt").touch()
    docs = families(size)
    result = Dealer(tmp_path).deal(
        docs, Split(**SHARES, stratify="language"), tmp_path / "ledger" if with_ledger else None
    )
    counts = Counter((doc.stratum, part) for doc, part in zip(docs, result.parts, strict=True) if part)
    assert counts == {
        (stratum, part): n for stratum in ("python", "c") for part, n in [("train", 70), ("val", 15), ("test", 15)]
    }


@pytest.mark.parametrize("size", [1, 5])
def test_with_folds_test_keeps_its_share_and_is_the_same_in_every_fold(tmp_path, size):
    docs, tests, validation = families(size), [], Counter()
    for fold in range(4):
        result = Dealer(tmp_path / str(fold)).deal(docs, Split(**SHARES, folds=4, fold=fold))
        tests.append([doc.path for doc, part in zip(docs, result.parts, strict=True) if part == "test"])
        validation.update(doc.path for doc, part in zip(docs, result.parts, strict=True) if part == "val")
    low, high = bounds(SHARES["test"], FAMILIES)
    assert low <= len(tests[0]) <= high
    assert tests == [tests[0]] * 4
    assert len(validation) == FAMILIES - len(tests[0])
    assert set(validation.values()) == {1}


def test_without_a_ledger_a_family_can_move_to_the_split_of_a_new_member(tmp_path):
    """The stateless mode has no memory; docs/data.md says so, and names the ledger as the remedy."""
    docs = families(5)
    before = Dealer(tmp_path / "a").deal([d for d in docs if not d.path.endswith("4")], Split(**SHARES, ledger=False))
    after = Dealer(tmp_path / "b").deal(docs, Split(**SHARES, ledger=False))

    def where(result):
        return {doc.path[:3]: part for doc, part in zip(result.docs, result.parts, strict=True) if part}

    first, second = where(before), where(after)
    moved = sum(first[family] != second[family] for family in first)
    # one family in five gets a new representative, and two deals of one family differ with probability 0.465
    low, high = bounds((1 - 0.7**2 - 2 * 0.15**2) / 5, FAMILIES)
    assert low <= moved <= high
