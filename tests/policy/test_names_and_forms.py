"""A secret is found whole after each name, in each form in which files join a name and its value.

The tables are those of benchmarks/policy_forms.py: 43 names by 299 forms, and 174 forms that have a name of their own.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from codex_ml.policy.randomness import is_generated
from codex_ml.policy.redact import PLACEHOLDER

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SHORTEST = 5  # characters of a value that may not stay


@pytest.fixture(scope="module")
def forms():
    """benchmarks/policy_forms.py, which is not a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import policy_forms

        yield policy_forms


def unlike_words(forms):
    """Makes values that do not look like words by chance; how many do is the subject of test_validators.py."""

    def make(rng: random.Random, kind: str) -> str:
        return next(value for value in iter(lambda: forms.generated(rng, kind), None) if is_generated(value))

    return make


def left(parts, text):
    """The pieces of `SHORTEST` characters of the parts that are still in a text."""
    pieces = [part[at : at + SHORTEST] for part in parts for at in range(len(part) - SHORTEST + 1)]
    return [piece for piece in pieces if piece in PLACEHOLDER.sub("", text)]


@pytest.mark.parametrize(
    ("seed", "every", "count"), [(18, 5, 3586), pytest.param(19, 1, 13871, marks=pytest.mark.slow)]
)
def test_no_part_of_a_value_stays_after_any_name_in_any_form(clean, forms, seed, every, count):
    seen, stay = Counter(), []
    for row in forms.rows(seed, unlike_words(forms), every=every):
        seen[row.form] += 1
        if left(row.parts, clean(row.text)):
            stay.append((row.form, row.kind, row.text))
    assert (len(seen), sum(seen.values())) == (len(forms.FORMS) + len(forms.FIXED), count)
    assert stay == []


def test_the_table_has_names_of_both_lists_and_forms_by_the_hundred(forms, policy):
    assert len(forms.FORMS) > 250 and len(forms.FIXED) > 150
    assert len(forms.PASSWORDS) + len(forms.SECRETS) == 43
    assert set(policy.names) == {"password", "secret"}


@pytest.mark.parametrize(
    "joiner",
    ['" + "', "' +\n    '", '"\n    "', '" + \\\n    "', "' . '", '" & "', '" || "', '" .. "', "\\\n", "\\\n  "],
)
def test_a_token_without_a_name_is_found_in_parts(clean, joiner):
    """A provider's token, and only together: each part alone is too short."""
    token = "gh" + "p_" + "".join(random.Random(7).choices("abcdefghijkABCDEFGHIJK23456789", k=36))
    quote = joiner[0] if joiner[0] in "\"'" else '"'
    text = f"x = {quote}{token[:14]}{joiner}{token[14:]}{quote}\n"
    assert PLACEHOLDER.sub("{}", clean(text)) == f"x = {quote}{{}}{quote}\n"


def test_texts_in_parts_that_hold_no_secret_stay(clean):
    text = 'x = ("the password must hold " "8 characters"\n     "and a sign")\ny = "abc" + "def"\n#define A foo_bar \\\n  baz\n'
    assert clean(text) == text
