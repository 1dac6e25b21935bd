"""A secret is found whole after each name, in each form in which files join a name and its value.

The tables are those of benchmarks/policy_forms.py: 43 names by 332 forms, and 196 forms that have a name of their own.
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
    ("seed", "every", "count"), [(18, 5, 4002), pytest.param(19, 1, 15422, marks=pytest.mark.slow)]
)
def test_no_part_of_a_value_stays_after_any_name_in_any_form(clean, forms, seed, every, count):
    seen, stay = Counter(), []
    for row in forms.rows(seed, unlike_words(forms), every=every):
        seen[row.form] += 1
        if left(row.parts, clean(row.text)):
            stay.append((row.form, row.kind, row.text))
    assert (len(seen), sum(seen.values())) == (len(forms.FORMS) + len(forms.FIXED), count)
    assert stay == []


# As people choose them; the last four hold one digit between letters, a full stop, a year, a sign inside.
CHOSEN = (
    "Tiger#" + "1985",
    "Sommer-" + "2019!",
    "P4ssw0rd" + "!x",
    "hunter2" + "hunter",
    "Summer" + "2024",
    "cat!" + "horse",
)


def test_a_password_that_a_person_chose_goes_in_any_form(clean, forms):
    names, stay = ("password", "db password", "passphrase", "user pwd", "smtp pass"), []
    for number, (form, (style, template)) in enumerate(forms.FORMS.items()):
        name, value = names[number % len(names)], CHOSEN[number % len(CHOSEN)]
        if "VALUE" in template:
            text = template.replace("NAME", forms.joined(name, style)).replace("VALUE", value)
            stay += [(form, text)] if value in clean(text) else []
    assert stay == []


def test_what_stands_for_a_password_stays(clean):
    values = (
        "changeme",
        "<pass" + "word>",
        "${DB_PASS" + "WORD}",
        "xxxxxxxx",
        "None",
        "null",
        "your-password-here",
        "option7",
    )
    texts = [f'password = "{value}"\npassword: {value}\n' for value in values]
    texts += [
        "password = settings.user1\n",
        "token = symbol2label\n",
        '"tokens", "symbol2label"\n',
        "password = get_pass2(x)\n",
    ]
    texts += ["user,password\n", "x = 1\ntoken,\n    other2token,\n", "github.com/acme/client-password v36.0.24 h1:x\n"]
    assert [text for text in texts if clean(text) != text] == []


def test_a_torn_placeholder_that_a_model_imitates_is_no_name(clean):
    value = "Xk9vQ2mL" + "r8TzW4bN"
    for text in (f"<<SECRET:{value}', ['-Le'", f"<SECRET: {value} ", f'<SECRET:"{value}"'):
        assert clean(text) == text
        assert value not in clean(text[text.index("S") :])  # the same without the bracket is one
    assert value not in clean(f"<secret>{value}</secret>")


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
