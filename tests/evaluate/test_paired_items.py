"""Items are paired by id and content; results on different items are refused, or restricted to the shared ones."""

import numpy as np
import pandas as pd
import pytest

from codex_ml.core.errors import UserError
from codex_ml.evaluate.paired_items import ItemKeys, pair_items, text_keys


def keys(name, *rows):
    """Rows of (item, content, unit)."""
    texts = pd.DataFrame([row.split() for row in rows], columns=["item", "content", "unit"])
    hashed = texts.apply(lambda column: text_keys(column.tolist()))
    return ItemKeys(name, hashed, lambda chosen: texts["item"].iloc[list(chosen)].tolist())


def paired(a, b, common=False):
    return pair_items("documents", keys("old", *a), keys("new", *b), common)


def test_equal_items_are_paired_whatever_their_order():
    found = paired(["a 1 x", "b 2 y", "c 3 z"], ["c 3 z", "a 1 x", "b 2 y"])
    assert found.rows_a.tolist() == [0, 1, 2]
    assert found.rows_b.tolist() == [1, 2, 0]
    assert found.units.tolist() == [0, 1, 2]
    assert (found.only_a, found.only_b, found.unit_count) == (0, 0, 3)


def test_what_stays_together_in_one_result_stays_together():
    found = paired(["a 1 x", "b 2 x", "c 3 y", "d 4 z"], ["a 1 p", "b 2 q", "c 3 q", "d 4 r"])
    assert found.units.tolist() == [0, 0, 0, 1]


def test_an_id_that_occurs_twice_is_paired_by_its_content_then_by_its_occurrence():
    found = paired(["a 1 x", "a 2 y", "a 1 z"], ["a 2 y", "a 1 x", "a 1 z"])
    assert found.rows_b.tolist() == [1, 0, 2]


def test_different_test_documents_are_refused_with_counts_and_the_first_ones():
    with pytest.raises(UserError) as error:
        paired(["a 1 x", "b 2 y", "c 3 z", "s 7 s"], ["a 1 x", "b 5 y", "e 6 e", "f 8 f", "g 9 g", "h 10 h"])
    assert str(error.value) == (
        "old and new are results on different items of `documents`: 2 only in old (c, s); 4 only in new (e, f, g, ...); "
        "1 with other content (b); `--common` compares the 1 that both have"
    )


def test_the_same_names_with_other_contents_are_different_documents():
    with pytest.raises(UserError, match=r"^old and new are results on different items of `documents`: 2 with other "):
        paired(["a 1 x", "b 2 y"], ["a 3 x", "b 4 y"])


def test_without_a_shared_item_there_is_nothing_to_compare_even_on_request():
    with pytest.raises(UserError) as error:
        paired(["a 1 x"], ["b 2 y"], common=True)
    assert str(error.value).endswith("1 only in old (a); 1 only in new (b); they share no item")


def test_only_the_shared_items_are_compared_on_request():
    found = paired(["a 1 x", "b 2 y", "c 3 z"], ["z 9 z", "c 3 z", "a 4 x"], common=True)
    assert (found.rows_a.tolist(), found.rows_b.tolist()) == ([2], [1])
    assert (found.only_a, found.only_b) == (2, 2)


def test_one_item_more_than_once_on_one_side_is_a_difference():
    with pytest.raises(UserError, match=r"1 only in new \(a\)"):
        paired(["a 1 x"], ["a 1 x", "a 1 x"])


def test_a_long_name_is_cut():
    with pytest.raises(UserError) as error:
        paired([f"{'n' * 5000} 1 x"], ["b 2 y"])
    assert len(str(error.value)) < 300


def test_many_items_are_paired_in_their_order():
    order = np.random.default_rng(1).permutation(5000)
    rows = [f"i{n} c{n} u{n // 3}" for n in range(5000)]
    found = paired(rows, [rows[k] for k in order])
    assert (order[found.rows_b] == np.arange(5000)).all()
    assert (found.units == np.arange(5000) // 3).all()
