"""How far an expression reads: widths counted by hand, and what has no bound."""

from __future__ import annotations

import pytest

from codex_ml.policy.reach import RUN, FoldedLength, reach_of, stays_in_run


@pytest.mark.parametrize(
    ("expression", "width"),
    [
        ("tok-[a-z]{8}", 12),
        ("tok-[a-z]{8}(?![0-9])", 13),  # the lookahead reads one more
        (r"(?<=[a-z])@", 1),  # what is before is already there
        ("ab|cde|f", 3),
        (r"(\d{4})([ -]?)\d{4}\2\d{4}", 14),
        (r"(?:[^\n]|\n(?=[ \t])){3,80}?", 160),  # a line end and its lookahead, eighty times
        (r"[a-z]{2,}", RUN),  # one run without white space
        (r"(?:[a-z]-)+", RUN),
        (r"[A-Za-z0-9]{500}", RUN),
        (r"\s{0,500}", 500),
        (r"(?>a?)b*+", 1 + RUN),
        (r"(a)?x(?(1)yy|z)", 4),
        (r"a\b", 2),  # a border of a word looks at the next character
        ("", 0),
    ],
)
def test_the_width_is_that_of_the_longest_match(expression, width):
    assert reach_of(expression).width == width
    assert not reach_of(expression).loops
    assert not reach_of(expression).spaces


@pytest.mark.parametrize(
    ("expression", "stays"), [(r"(?<=\s)[\w.-]{1,32}:[^\s@]+@tcp\(", True), (r"a[^b]c", False), (r"(?=a b)a", True)]
)
def test_a_match_without_white_space_stays_in_one_run(expression, stays):
    assert stays_in_run(expression) == stays


def test_a_class_with_white_space_and_a_group_of_lines_have_no_bound():
    assert reach_of(r"[a-z ]*").spaces
    assert reach_of(r"(?s:.*)").spaces
    assert reach_of(r"(?:[a-z]+\n)+").loops
    assert not reach_of(r"(?:[a-z]+-)+").loops


@pytest.mark.parametrize(
    ("expression", "inside", "outside"),
    [
        (r"[a-z ]*", "ab ", "."),
        (r"[^.<]+", "ab \n中", "."),
        (r"(?:[A-F]|[\s;])*", "ab;\n", "g"),  # in any case
        (r"[\W]*", " .", "a"),
    ],
)
def test_the_classes_without_a_bound_are_known(expression, inside, outside):
    reach = reach_of(expression)
    assert reach.holds(set(inside))
    assert not reach.holds(set(inside + outside))


def test_of_a_run_without_white_space_some_characters_count():
    length = FoldedLength("a " + "b" * 1000 + " c")
    assert [length(start) for start in (0, 2, 1002 - RUN, 1002 - 10, 1002, 1004)] == [
        RUN + 4,
        RUN + 2,
        RUN + 2,
        12,
        2,
        0,
    ]
    assert [length.back(n) for n in (0, 1, 2, 3, 12, RUN + 2, RUN + 3, RUN + 9)] == [
        1004,
        1003,
        1002,
        1001,
        992,
        1002 - RUN,
        1,
        0,
    ]
