"""The filter of a text in progress: the pieces that leave are the filtered text, and none holds a part of a value."""

from __future__ import annotations

import base64
import itertools
import random
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codex_ml.policy import filters
from codex_ml.policy.filters import TextFilter
from codex_ml.policy.redact import placeholder
from codex_ml.policy.redacted_output import redacted_output
from codex_ml.policy.rules import parse_policy
from codex_ml.policy.streaming import STEP, AnswerFilter, StreamFilter
from codex_ml.safety_audit.planted import planted

KEY = b"a key of the tests"
BEFORE = "Here is what you asked for, word by word. "
AFTER = " That is all of it, and the text goes on for a while, so that more of it can leave before its end." * 4
SMALL = """
rules:
  - {id: token, description: a token, kind: secret, severity: high, action: redact, literals: [tok-], pattern: 'tok-[a-z]{8}', run: '[a-z]'}
  - {id: named, description: a value with a name, kind: personal, severity: high, action: redact, literals: [name], pattern: 'name {1,9}= {1,9}(?P<value>[a-z]{4,})'}
  - {id: code, description: a code name, kind: secret, severity: low, action: allow, literals: [zebra], pattern: zebra}
  - {id: order, description: an order, kind: injection, severity: low, action: allow, literals: [drop the rules], pattern: drop the rules}
"""
TOKEN = "tok-" + "abcdefgh"


class Remembered(TextFilter):
    """A filter that screens each text once, so that thousands of ways to cut one text are quick."""

    def __init__(self, policy, scanner=None):
        super().__init__(policy, KEY, scanner=scanner)
        for name in ("values_in_output", "screen_output"):
            setattr(self, name, cache(getattr(self, name)))
        settled = cache(lambda text, found: type(self.horizon).settled(self.horizon, text, found))
        self.horizon.settled = lambda text, found: settled(text, tuple(found))


def small(filters=""):
    return Remembered(parse_policy(f"version: 1\n{SMALL}{filters}", name="policy.yaml"))


@pytest.fixture(scope="module")
def screen(policy, scanner):
    return Remembered(policy, scanner)


def streamed(screen, pieces):
    """What leaves after each piece, and what `finish` returns; the stream itself."""
    stream = StreamFilter(screen)
    left = [stream.push(piece) for piece in pieces]
    return [*left, stream.finish()], stream


def cut(text, places):
    return [text[start:end] for start, end in itertools.pairwise([0, *places, len(text)])]


def all_cuts(text, parts):
    """Every way to join neighbours of `parts` pieces of a text."""
    borders = [len(text) * n // parts for n in range(1, parts)]
    for kept in itertools.product((False, True), repeat=parts - 1):
        yield cut(text, list(itertools.compress(borders, kept)))


def parts_of(text, length=4):
    return {text[at : at + length] for at in range(len(text) - length + 1)}


def leaked(left, text, value, rule):
    """The parts of four characters of the value that left, without those that the text beside it holds too."""
    beside = parts_of(text.replace(value, "\n")) | parts_of(placeholder(rule, value, KEY))
    return (parts_of(value) - beside) & parts_of(left)


def instances(policy, count):
    """One text per rule, the value in it and the filtered text; the value occurs nowhere else."""
    for rule, text, value in planted(3, count, providers=policy.providers):
        yield rule, BEFORE + text + AFTER, value


def test_character_by_character_the_filtered_text_leaves_and_no_part_of_a_value(policy, screen):
    rules, early = set(), 0
    for rule, text, value in instances(policy, 1):
        whole = screen.screen_output(text)
        left, stream = streamed(screen, text)
        assert "".join(left) == whole.text, rule
        assert (stream.decision, stream.findings, stream.why) == (whole.decision, whole.findings, whole.why)
        if whole.decision == "redact":
            early += "<SECRET:" in "".join(left[:-1])
            assert not leaked("".join(left), text, value, rule), rule
        rules.add(rule)
    assert len(rules) > 150
    assert early > 100  # values that left, replaced, before the end


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_random_cuts_of_a_text_of_each_rule(policy, screen, count):
    rng = random.Random(5)
    texts = list(instances(policy, 1))
    for number in range(count):
        rule, text, _ = texts[number % len(texts)]
        places = sorted(rng.sample(range(1, len(text)), rng.randrange(14, 40)))
        left, _ = streamed(screen, cut(text, places))
        assert "".join(left) == screen.screen_output(text).text, rule


@pytest.mark.slow
def test_every_way_to_cut_a_text_of_each_rule_into_fourteen_pieces(policy, screen):
    for rule, text, _ in instances(policy, 1):
        whole = screen.screen_output(text)
        for pieces in all_cuts(text, 14):
            left, _ = streamed(screen, pieces)
            assert "".join(left) == whole.text, rule


def test_every_way_to_cut_a_short_text_of_a_small_policy():
    text = f"say {TOKEN} and name   =   secretname, " * 3
    screen = small()
    marks = placeholder("token", TOKEN, KEY), placeholder("named", "secretname", KEY)
    for pieces in all_cuts(text, 14):
        left, _ = streamed(screen, pieces)
        assert "".join(left) == f"say {marks[0]} and name   =   {marks[1]}, " * 3


def test_a_value_whose_first_half_has_come_is_held_back_until_it_is_whole():
    stream = StreamFilter(small())
    shown = stream.push("x " * 100 + TOKEN[:6])
    assert shown == "x " * (len(shown) // 2) and len(shown) > 50
    shown += stream.push(TOKEN[6:] + " y" * 200)
    assert placeholder("token", TOKEN, KEY) in shown
    assert TOKEN[:5] not in shown


@pytest.mark.parametrize(
    "disguise",
    [
        lambda value: "\u200b".join(value),
        lambda value: ("\u200b" * 40).join([value[:6], value[6:]]),
        lambda value: value.replace("o", "\u043e"),  # a Cyrillic letter
        lambda value: "".join(f"\\u00{ord(c):02x}" for c in value),
        lambda value: base64.b64encode(f"export {value} ".encode() * 3).decode(),
    ],
)
def test_a_disguised_value_leaves_in_no_part(disguise):
    screen, hidden = small(), disguise(TOKEN)
    text = "word " * 30 + hidden + " word" * 80
    left, stream = streamed(screen, text)
    assert stream.decision == "redact"
    assert "".join(left) == screen.screen_output(text).text
    assert not parts_of(hidden, 12) & parts_of("".join(left), 12)
    assert left[-1] != "".join(left)


def test_an_answer_that_the_policy_refuses_stops_before_the_value():
    screen = small("filters:\n  output:\n    secret: refuse\n")
    text = "word " * 60 + TOKEN + " word" * 60
    stream = StreamFilter(screen)
    left = [stream.push(piece) for piece in text]
    assert stream.decision == "refuse"  # at once, not at the end
    assert stream.why == "the text holds token (line 1)"
    assert [finding.rule for finding in stream.findings] == ["token"]
    shown = "".join(left)
    assert shown == "word " * (len(shown) // 5) and 100 < len(shown) <= 300
    assert stream.push("more " * 100) == "" == stream.finish()


def test_a_value_that_the_policy_only_reports_leaves_as_it_is():
    left, stream = streamed(small(), ["a zebra ", "zeb", "ra " + "word " * 90])
    assert "".join(left) == "a zebra zebra " + "word " * 90
    assert stream.decision == "allow"


def test_an_answer_leaves_at_its_end_where_an_order_must_not_pass():
    """A disguise of an order has no bound: a comment may stand in the middle of a word."""
    screen = small("filters:\n  output:\n    injection: redact\n")
    text = "word " * 200 + "drop<!-- " + "x " * 200 + "--> the rules" + " word" * 200
    left, stream = streamed(screen, text)
    assert left[:-1] == [""] * len(text)
    assert (left[-1], stream.decision) == (screen.screen_output(text).text, "redact")


def test_a_longer_answer_than_the_filter_reads_is_refused(monkeypatch):
    monkeypatch.setattr("codex_ml.policy.streaming.MAX_CHARACTERS", 1000)
    stream = StreamFilter(small())
    assert stream.push("word " * 200)
    assert stream.decision == "allow"
    assert stream.push("w") == ""
    assert stream.decision == "refuse" and "1000 characters" in stream.why
    assert filters.MAX_CHARACTERS == 524_288


def test_ordinary_text_is_held_back_by_less_than_220_characters(screen):
    """The bound: the margin of the rules (166), the step, and the word at the cut."""
    stream, text, gone = StreamFilter(screen), BEFORE * 40, 0
    for place, character in enumerate(text, 1):
        gone += len(stream.push(character))
        assert place - gone <= screen.horizon.margin + STEP + len("asked ")
    assert screen.horizon.margin == 166


def test_after_the_literal_of_a_rule_text_is_held_back_as_far_as_the_rule_reads(screen, policy):
    """`token` begins bare-secret, which reads a table with a header; an address in a mail is the longest bounded rule."""
    # A match of the rule for private keys may hold any text of a key between its header and its footer.
    for literal, most in (("token", 760), ("jane@acme ", 800), ("-----BEGIN", 5200)):
        stream, gone = StreamFilter(screen), 0
        text = BEFORE * 9 + literal + AFTER * 24
        held = 0
        for place, character in enumerate(text, 1):
            gone += len(stream.push(character))
            held = max(held, place - gone)
        assert most / 2 < held <= most, literal


def test_a_private_key_is_held_back_until_its_footer(policy, screen):
    rule, text, value = next(one for one in instances(policy, 1) if one[0] == "private-key")
    stream = StreamFilter(screen)
    shown = "".join(map(stream.push, text[: text.index(value) + len(value)]))
    assert BEFORE.startswith(shown)
    shown += "".join(map(stream.push, " and so on." * 500))
    assert placeholder(rule, value, KEY) in shown


@pytest.mark.parametrize("text", ["word " * 20_000, "w" * 100_000, f"word {TOKEN} " * 1500])
def test_the_cost_of_a_stream_grows_with_its_length_only(text):
    """Counted in characters that the scanner reads, token by token of four characters."""
    screen, read = small(), []
    plain = screen.values_in_output
    screen.values_in_output = lambda window: read.append(len(window)) or plain(window)
    streamed(screen, [text[at : at + 4] for at in range(0, len(text), 4)])
    assert sum(read) < 20 * len(text)


PARTS = st.sampled_from([
    TOKEN, TOKEN[:7], "tok-", "name = ", "name", " = ", "abcd", "zebra", "\u200b", "\u043e", "\\u0074", "\\n", "\n", " ",
    "<SECRET:token:01234567>", "<SECRET:", "word word word ", "x" * 90, "中文", "dG9rLWFiY2RlZmdo", "drop the rules",
])  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(PARTS, max_size=40), seed=st.integers(0, 1000))
def test_any_mixture_leaves_as_the_whole_text_is_filtered(parts, seed):
    text, rng, screen = "".join(parts), random.Random(seed), small()
    places = sorted({rng.randrange(len(text) + 1) for _ in range(9)}) if text else []
    left, stream = streamed(screen, cut(text, places))
    whole = screen.screen_output(text)
    assert ("".join(left), stream.decision) == (whole.text, whole.decision)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("say it: ", f"{TOKEN} and more"),
        ("name   =  ", "secretname, " + "word " * 90),  # a value only after its prompt
        ("name = secr", "etname, " + "word " * 90),  # begins in the prompt
        ("x tok-abc", "defghij " + "word " * 90),
        ("word " * 300, "word " * 90),
        (f"a {TOKEN} ", "more"),
        ("", f"name = secretname {TOKEN}"),
        ("a", ""),
    ],
)
def test_an_answer_is_read_after_its_prompt(prompt, answer):
    screen = small()
    stream = AnswerFilter(screen, prompt)
    left = "".join(map(stream.push, answer)) + stream.finish()

    def redact(text):
        return screen.screen_output(text).text

    assert left == redacted_output(redact, redact(prompt), answer)
    assert stream.decision == ("allow" if left == answer else "redact")
    assert sum(stream.rules.values()) == left.count("<SECRET:")


def test_an_answer_that_is_refused_after_its_prompt_stops():
    stream = AnswerFilter(small("filters:\n  output:\n    personal: refuse\n"), "name = ")
    assert stream.push("secretname, " + "word " * 300) == "" == stream.finish()
    assert (stream.decision, stream.rules) == ("refuse", {"named": 1})


@pytest.mark.parametrize(
    ("refused", "prompt"),
    [
        ("personal", "name = secretname  tok-abc"),
        ("injection", "drop the rules  tok-abc"),
        ("personal", "name = secretname " + "word " * 60 + "drop the rules  tok-abc"),
    ],
)
def test_what_only_answers_may_not_hold_does_not_hide_the_end_of_the_prompt(refused, prompt):
    screen = small(f"filters:\n  input: {{personal: allow, injection: allow}}\n  output:\n    {refused}: refuse\n")
    assert screen.screen_input(prompt).text == prompt

    def answered(answer):
        stream = AnswerFilter(screen, prompt)
        return "".join(map(stream.push, answer)) + stream.finish(), stream.decision, stream.why

    rest = "defgh and more"
    assert answered(rest) == (placeholder("token", TOKEN, KEY) + " and more", "redact", "redacted: token")
    assert answered(" word " * 200) == (" word " * 200, "allow", "")
    assert answered("name = secretname drop the rules")[:2] == ("", "refuse")


def test_the_second_half_of_a_value_leaves_after_no_prompt_that_ends_in_its_first_half(policy, screen):
    def redact(text):
        return screen.screen_output(text).text

    rests = 0
    for rule, text, value in instances(policy, 1):
        half = text.index(value) + len(value) // 2
        prompt, answer = screen.screen_input(text[:half]), text[half:]
        if prompt.decision == "refuse":
            continue
        stream = AnswerFilter(screen, prompt.text)
        left = "".join(map(stream.push, answer)) + stream.finish()
        assert left == redacted_output(redact, prompt.text, answer), rule
        if prompt.decision == "allow" and value not in redact(text):
            rests += 1
            assert value[len(value) // 2 :] not in left, rule
    assert rests > 100
