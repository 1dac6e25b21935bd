"""The numbers of leakage.json, compared with values worked out by hand and with their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.split.candidates import EVICTED, EXACT, KEPT, NEAR, QUARANTINED, Dealt, DocumentKeys
from codex_ml.split.duplicates.dedup import Families
from codex_ml.split.leakage import leakage, random_split_leak


def families_of(kept_by, pairs):
    first, second, similarity = np.array(pairs, dtype=float).reshape(-1, 3).T
    return Families(kept_by, first.astype(np.int32), second.astype(np.int32), similarity.astype(np.float32))


def dealt(part, *, reason=None, kept_by=None, copies=None, families=(), crossing=()):
    size = len(part)
    kept_by = np.array(kept_by or [-1] * size, dtype=np.int32)
    return Dealt(
        part=np.array(part, dtype=np.int8),
        reason=np.array(reason or [KEPT] * size, dtype=np.int8),
        kept_by=kept_by,
        copies=np.array(copies if copies is not None else range(size), dtype=np.int32),
        families=families_of(kept_by, families),
        crossing=families_of(kept_by, crossing),
        old=np.full(size, -1, dtype=np.int32),
        pinned=np.zeros(size, bool),
        recorded=np.zeros(size, bool),
        moved=np.zeros(size, bool),
    )


def candidates(high, unit, grouped):
    high, unit = np.array(high, dtype=np.uint64), np.array(unit, dtype=np.uint64)
    zeros = np.zeros(len(high), np.uint64)
    return DocumentKeys(high, zeros, zeros, unit, np.array(grouped, dtype=bool), zeros.astype(np.int32))


def test_ten_documents_worked_out_by_hand():
    documents = candidates(
        high=[0, 1, 2, 3, 4, 4, 6, 7, 0, 9],  # 4 and 5 are equal and in two splits; 8 equals 0 and is dropped
        unit=[10, 100, 100, 200, 200, 15, 100, 17, 18, 200],  # 100 is in train and val, 200 in test only
        grouped=[0, 1, 1, 1, 1, 0, 1, 0, 0, 1],
    )
    result = dealt(
        [0, 0, 1, 2, 2, 0, -1, -1, -1, -1],
        reason=[*[KEPT] * 6, NEAR, EVICTED, EXACT, QUARANTINED],
        kept_by=[-1, -1, -1, -1, -1, -1, 1, 3, 1, -1],
        crossing=[
            (0, 3, 0.75),
            (7, 3, 0.9),  # evicted
            (0, 1, 0.9),  # one split
        ],
    )
    found = leakage(documents, result, test_share=0.2).as_json()
    assert found == {
        "exact_cross": 1,
        "group_cross": 1,
        "near_cross": 1,
        "near_duplicates": {},
        "evicted": 1,
        "quarantined": 1,
        "largest_family_share": 0.3,  # 1, 6 and 8
        "random_split_leak": 0.0,
    }


def test_near_duplicates_are_counted_by_their_similarity_to_the_kept_document():
    result = dealt(
        [0, 0, -1, -1, -1, -1],
        kept_by=[-1, -1, 0, 0, 1, 1],
        families=[(0, 2, 0.7), (0, 3, 0.89), (1, 4, 0.8), (1, 5, 1.0), (1, 2, 0.95), (2, 3, 0.75)],
    )
    documents = candidates(range(6), range(6), [0] * 6)
    found = leakage(documents, result, test_share=0.2).near_duplicates
    assert found == {"0.7": 1, "0.8": 2, "1.0": 1}


def test_a_clean_deal_has_zeros():
    documents = candidates(range(4), range(4), [0] * 4)
    found = leakage(documents, dealt([0, 0, 1, 2]), test_share=0.25).as_json()
    assert found.pop("near_duplicates") == {}
    assert set(found.values()) == {0}


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_the_leak_of_a_random_split_equals_its_definition(data):
    size = data.draw(st.integers(1, 30))
    contents = data.draw(st.lists(st.integers(0, 20), min_size=size, max_size=size))
    copies = [contents.index(content) for content in contents]
    firsts = sorted(set(copies))
    pairs = (
        data.draw(
            st.lists(
                st.tuples(st.sampled_from(firsts), st.sampled_from(firsts)).filter(lambda p: p[0] != p[1]), max_size=10
            )
        )
        if len(firsts) > 1
        else []
    )
    share = data.draw(st.sampled_from([0.01, 0.2, 0.5]))
    alike = {*pairs, *((b, a) for a, b in pairs), *((i, i) for i in firsts)}
    random, shares = np.random.Generator(np.random.PCG64(0)), []
    for _ in range(20):
        held = random.permutation(size)[: max(1, round(size * share))].tolist()
        train = [i for i in range(size) if i not in held]
        leaks = [any((copies[i], copies[j]) in alike for j in train) for i in held]
        shares.append(sum(leaks) / len(leaks))
    found = random_split_leak(
        dealt([0] * size, copies=copies, families=[(*pair, 0.8) for pair in pairs]), test_share=share
    )
    assert found == pytest.approx(sum(shares) / 20, abs=1e-6)


def test_copies_leak_and_unique_documents_do_not():
    assert random_split_leak(dealt([0] * 60, copies=[i // 20 * 20 for i in range(60)]), test_share=0.1) == 1.0
    assert random_split_leak(dealt([0] * 60), test_share=0.1) == 0.0
