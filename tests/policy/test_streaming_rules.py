"""The stream filter under rules that nobody has looked at: what leaves is the filtered text for any policy.

horizon.py derives from each expression how far a rule reads. A form of expression that it misjudges lets a part of a
value leave, and `finish` then refuses the answer. So rules are drawn at random, and texts full of their literals.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from codex_ml.core.errors import UserError
from codex_ml.policy.filters import TextFilter
from codex_ml.policy.redact import placeholder
from codex_ml.policy.rules import parse_policy
from codex_ml.policy.streaming import StreamFilter

KEY = b"a key of the tests"
SHAPE = {"description": "a rule", "kind": "secret", "severity": "high", "action": "redact"}
LITERALS = ("ka", "kb", "kc", "q:")
CHARACTERS = ("a", "b", "[ab]", "[ab ]", "[a-d]", r"\s", r"[^\n]", r"\w", "(?:a|bb)", "(?:a b|b)", "[kq:abc ]")
COUNTS = ("", "", "", "{2}", "{1,3}", "{0,4}", "{2,}+", "{0,30}", "?", "{1,12}+")
AROUND = (
    "(?=[ab])",
    "(?!a)",
    "(?<=a)",
    "(?<!b)",
    r"(?=[^\n]{0,20}b)",
    r"(?<![ab ]{5})",
    r"\b",
    r"(?=\s|\Z)",
    "(?!.{3}k)",
)
PARTS = (
    "ka", "kb", "kc", "q:", "a", "b", "c", " ", "  ", "\n", "aa", "ab", "k", "ab " * 6, "word ", "kab", " " * 30, "a" * 80,
    "The text goes on. ", "ka ka ", "kabab", "\u200b", "\u4e2d", "\\n", "\u043e",
)  # fmt: skip
PROSE = "The text goes on. "


def expression(rng: random.Random, most: int) -> str:
    pieces = [
        rng.choice(AROUND) if rng.random() < 0.2 else rng.choice(CHARACTERS) + rng.choice(COUNTS)
        for _ in range(rng.randrange(1, most + 1))
    ]
    joined = "".join(pieces)
    return f"(?:{joined}){rng.choice(('{1,3}', '{2}'))}" if rng.random() < 0.2 else joined


def random_rule(rng: random.Random, number: int) -> dict[str, Any]:
    """A rule of one of the three forms: after a literal, around a literal, after a gate; with checks of all kinds."""
    value = rng.choice(CHARACTERS) + rng.choice(("", "{1,4}", "{2}", "{3,}"))
    value = f"(?P<value>{value})" if rng.random() < 0.5 else value
    value += expression(rng, 1) if rng.random() < 0.4 else ""
    rule = {"id": f"rule-{number}", "description": "a rule", "kind": "secret", "severity": "high", "action": "redact"}
    rule |= {"edge": rng.choice(("", "ab", "A-Za-z0-9_"))}
    form, literal, gate = rng.random(), rng.choice(LITERALS), rng.choice(("ka[ab]", "[ab] ?[ab]k", r"q:\s?", "k.k"))
    around = {"before": rng.choice((3, 10, 40, 200)), "after": rng.choice((1, 5, 30))}
    if form < 0.5:
        rule |= {"literals": [literal], "pattern": literal + expression(rng, 3) + value}
    elif form < 0.8:
        middle = literal if rng.random() < 0.7 else ""
        rule |= {"literals": [literal], **around, "pattern": expression(rng, 2) + middle + value}
    else:
        rule |= {"gate": gate, "pattern": gate + expression(rng, 3) + value}
        rule |= around if rng.random() < 0.6 else {}
    for key, choices in (
        ("run", ("[ab]", r"\w", "[a-d ]", r"[&;](?=\w)|[ab]")),
        ("until", (r"[\s]|\Z", "(?![ab])", r"\s{0,5}k")),
        ("allow_after", ([r"[^\n]{0,30}k"], [r"\s+a"], ["b"])),
        ("allow_before", (["k$"], [r"^\s*a"], [r"a[^\n]*$"], ["^k"])),
        ("allow", (["aa"], ["^b"], ["k"])),
    ):
        if rng.random() < 0.2:
            rule[key] = rng.choice(choices)
    return rule


def accepted_rule(rng: random.Random, number: int) -> dict[str, Any]:
    """A rule drawn at random that the policy accepts; it refuses one that reads a line again and again."""
    while True:
        try:
            filter_of([rule := random_rule(rng, number)])
        except UserError:
            continue
        return rule


def filter_of(rules: list[dict[str, Any]]) -> TextFilter:
    return TextFilter(parse_policy("version: 1\nrules: " + json.dumps(rules), name="policy.yaml"), KEY)


def random_text(rng: random.Random) -> str:
    weights = [rng.random() ** 3 for _ in PARTS]
    text = "".join(rng.choices(PARTS, weights, k=rng.choice((40, 150, 500))))[:4000]
    for _ in range(rng.choice((0, 0, 3, 6))):
        place = rng.randrange(len(text) + 1)
        text = text[:place] + PROSE * rng.randrange(30) + text[place:]
    return text


def left(screen: TextFilter, text: str) -> Iterator[tuple[int, str]]:
    """How much has come, and all that has left, after each piece with which something leaves; and at the end."""
    stream, gone = StreamFilter(screen), ""
    for place in range(8, len(text) + 8, 8):
        if shown := stream.push(text[place - 8 : place]):
            gone += shown
            yield min(place, len(text)), gone
    yield len(text), gone


@pytest.mark.parametrize("count", [10, pytest.param(400, marks=pytest.mark.slow)])
def test_what_leaves_begins_the_filtered_text_wherever_it_ends_under_rules_drawn_at_random(count: int) -> None:
    """Also where the text ends at once: then it is another text, and nothing of a value in it has left."""
    early = 0
    for seed in range(count):
        rng = random.Random(seed)
        screen = filter_of([accepted_rule(rng, number) for number in range(rng.choice((1, 1, 2, 3)))])
        for _ in range(3):
            text = random_text(rng)
            steps = list(left(screen, text))
            early += len(steps) > 1
            for size, gone in [steps[-1], *rng.sample(steps, min(3, len(steps)))]:
                assert screen.screen_output(text[:size]).text.startswith(gone), f"seed {seed}, {size} characters"
    assert early > count  # of three texts per policy most leave in parts


@pytest.mark.parametrize("space", [" ", "\u00a0"])
def test_in_a_row_of_numbers_the_same_ones_are_cards_as_in_the_whole_text(space: str) -> None:
    """Cards do not overlap, so the first group of a row decides which four groups are looked at together."""
    gate, around = "[0-9]{4} [0-9]{4}", {"before": 16, "after": 16, "validator": "card"}
    screen = filter_of([{"id": "card", "gate": gate, "pattern": r"\d{4} \d{4} \d{4} \d{4}(?!\d)", **around, **SHAPE}])
    rng = random.Random(3)
    row = space.join(f"{rng.choice((4, 5))}{rng.randrange(1000):03d}" for _ in range(700))
    stream = StreamFilter(screen)
    shown = stream.push(row) + stream.finish()
    assert stream.decision == "redact"
    assert shown == screen.screen_output(row).text
    assert shown.count("<SECRET:card:") > 5


def test_a_value_that_comes_back_when_a_longer_one_wins_has_not_left() -> None:
    """`long` hides `first`, until `last` turns out to be longer than `long`."""
    rules = [
        {"id": "first", "literals": ["hidden"], "pattern": "hidden xx", **SHAPE},
        {"id": "long", "literals": ["xx"], "pattern": "xx [a-z]{4} yyyy", **SHAPE},
        {"id": "last", "literals": ["yyyy"], "pattern": "yyyy [a-z ]{1,90}end", **SHAPE},
    ]
    screen = filter_of(rules)
    text = "word " * 60 + "hidden xx abcd yyyy " + "more " * 15
    (_, before), *_ = reversed(list(left(screen, text)))
    assert "hidd" not in before and "word word" in before
    stream = StreamFilter(screen)
    whole = stream.push(text + "end " + "word " * 60) + stream.finish()
    marks = [placeholder("first", "hidden xx", KEY), placeholder("last", "yyyy " + "more " * 15 + "end", KEY)]
    assert whole == "word " * 60 + f"{marks[0]} abcd {marks[1]} " + "word " * 60


def test_an_exception_for_the_beginning_of_a_line_sees_where_the_line_begins() -> None:
    """The filter forgets text that has left. An exception reads 100 characters before a value, from their beginning."""
    rule = {
        "id": "token",
        "literals": ["tok-"],
        "pattern": "tok-[a-z]{8}",
        "allow_before": [r"^[a-z ]{0,95}$"],
        **SHAPE,
    }
    screen = filter_of([rule])
    for words in range(20, 60):
        text = "word " * words + "tok-abcdefgh" + " word" * 60
        stream = StreamFilter(screen)
        assert stream.push(text) + stream.finish() == text.replace(
            "tok-abcdefgh", placeholder("token", "tok-abcdefgh", KEY)
        )
        assert stream.decision == "redact"


@pytest.mark.parametrize("expression", ["(?<=x{300})tok", "(?:a|(?<!b{300}))tok"])
def test_what_a_lookbehind_reads_is_kept(expression: str) -> None:
    screen = filter_of([{"id": "token", "literals": ["tok"], "pattern": expression, **SHAPE}])
    plain = filter_of([{"id": "token", "literals": ["tok"], "pattern": "tok", **SHAPE}])
    assert screen.horizon.context == plain.horizon.context + 300


def test_a_detector_of_another_package_has_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may look at the whole text, so the answer leaves at its end."""
    import codex_ml.policy.scan as scan

    def first_word(text: str) -> list[tuple[str, int, int]]:
        return [("first-word", 0, 4)] if text.startswith("word") and text.endswith("end") else []

    monkeypatch.setattr(scan, "load_detectors", lambda names: {"first": first_word} if names else {})
    rule = {"id": "token", "literals": ["tok-"], "pattern": "tok-[a-z]{8}", **SHAPE}
    screen = TextFilter(parse_policy("version: 1\ndetectors: [first]\nrules: " + json.dumps([rule]), name="p"), KEY)
    stream = StreamFilter(screen)
    assert not screen.horizon.bounded
    assert stream.push("word " * 200 + "end") == ""
    assert stream.finish() == placeholder("first-word", "word", KEY) + " word" * 199 + " end"


def test_a_text_with_every_mark_hides_no_value(policy, scanner) -> None:
    """The scan puts a character that the text does not hold in place of what it found."""
    marks = "\0" + "".join(map(chr, range(0xFDD0, 0xFDF0)))
    value = "jane.roe" + "@acme-lab.org"
    found = scanner.scan(f"{marks} to \ufdd0{value}\ufdd0")
    assert [finding.rule for finding in found] == ["email"]
