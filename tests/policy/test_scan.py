"""Findings have the line and column of editors, never overlap, never hold the value, and follow the policy's order."""

from __future__ import annotations

import base64
import pickle
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.policy.match import CHUNK
from codex_ml.policy.scan import ESCAPED_SPACE, Scanner, without_escaped_space
from codex_ml.safety_audit.planted import planted

RULE = "description: d, kind: secret, severity: low"


@pytest.mark.parametrize(
    ("before", "line", "column"),
    [
        ("a\vb\fc\x1cd\u2028e\u0085f\n\n", 3, 1),
        ("# page one\x0b\nA = 1\x0c\nB = '\u2028'\n\x0c\ndef beta():\x1c\n    KEY = '", 6, 12),
        ("one\r\ntwo\r\nx = '", 3, 6),
        ("A = 1\r\n\r\n\x0c\r\nKEY = '", 4, 8),
        ("\r\r", 1, 3),
        ("\u2029  ", 1, 4),
        ("\U0001f469\u200d\U0001f469\u200d\U0001f467 e\u0301 \u202e", 1, 11),
        ("İİİ ", 1, 5),  # lower-cased, each is two characters
        ("\ud800 ", 1, 3),  # a lone surrogate, which UTF-8 cannot hold
        ("\n\n\n\t", 4, 2),
        ("", 1, 1),
    ],
)
def test_lines_end_at_lf_only_and_columns_count_characters(scanner, token, before, line, column):
    value = token("gh" + "p_", 36)
    (finding,) = scanner.scan(before + value + "\n")
    assert (finding.line, finding.column) == (line, column)
    assert (finding.start, finding.end) == (len(before), len(before) + len(value))


@pytest.mark.parametrize("before", ["", "é €\U0001f469 ", "İİİ ", "\ud800 "])
def test_the_digits_of_a_card_are_found_after_characters_of_several_bytes(scanner, before):
    value = "-".join(["5105", "1051", "0510", "5100"])
    (finding,) = scanner.scan(f"{before}card {value}\n")
    assert (finding.rule, finding.start, finding.end) == ("card-number", len(before) + 5, len(before) + 24)


def test_a_finding_never_holds_the_value(scanner):
    for rule, text, value in planted(4, 2):
        for finding in scanner.scan(text):
            assert value not in repr(finding)
            assert all(not isinstance(field, str) or len(field) <= 40 for field in vars(finding).values())
            assert finding.rule == rule or finding.action == "redact"


def test_an_emoji_before_between_and_after_shifts_no_offset(scanner, token):
    one, two = token("gh" + "p_", 36), token("np" + "m_", 36, 3)
    text = f"\U0001f600{one}\U0001f600\U0001f468\u200d\U0001f469{two}\U0001f600"
    assert [text[f.start : f.end] for f in scanner.scan(text)] == [one, two]


def test_a_longer_word_is_not_a_token_but_two_touching_tokens_are_two(scanner, token):
    key = token("AK" + "IA", 16, alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
    assert scanner.scan("x" + key) == scanner.scan(key + "x") == scanner.scan(key + key + "x") == []
    assert [f.start for f in scanner.scan(key * 3)] == [0, 20, 40]
    assert [f.start for f in scanner.scan('"\\n' + key + '\\u0026"')] == [3]


def test_a_value_across_the_border_of_two_chunks_is_found(scanner, token):
    value = token("gh" + "p_", 36)
    for shift in (1, 2, 3, 20, 39):
        text = " " * (CHUNK - shift) + value
        assert [(f.start, f.end) for f in scanner.scan(text)] == [(CHUNK - shift, CHUNK - shift + 40)]
    mail = "sam.quill@" + "quiet-harbour.org"
    text = " " * (CHUNK - 12) + mail
    assert [(f.start, f.end) for f in scanner.scan(text)] == [(CHUNK - 12, CHUNK - 12 + len(mail))]


def test_block_wins_over_redact_over_allow_then_the_longest_then_the_first(tiny):
    scanner = tiny(
        "rules:\n"
        f"- {{id: report, {RULE}, action: allow, literals: [aa], pattern: 'a{{2,9}}', edge: ''}}\n"
        f"- {{id: short, {RULE}, action: redact, literals: [ab], pattern: abc, edge: ''}}\n"
        f"- {{id: long, {RULE}, action: redact, literals: [ab], pattern: abcd, edge: ''}}\n"
        f"- {{id: again, {RULE}, action: redact, literals: [ab], pattern: abcd, edge: ''}}\n"
        f"- {{id: stop, {RULE}, action: block, literals: [bx], pattern: bx, edge: ''}}\n"
        f"- {{id: wide, {RULE}, action: redact, literals: [abx], pattern: abxy, edge: ''}}\n"
    )

    def found(text):
        return [(f.rule, f.start, f.end) for f in scanner.scan(text)]

    assert found("abcd") == [("long", 0, 4)]
    assert found("abc!") == [("short", 0, 3)]
    assert found("abxy") == [("stop", 1, 3)]
    assert found("aaabcd") == [("report", 0, 2), ("long", 2, 6)]
    assert found("aaa abcd") == [("report", 0, 3), ("long", 4, 8)]


def test_an_exception_cancels_the_hit_it_names_and_no_other(tiny):
    scanner = tiny(
        "allow: [SAMPLE]\nrules:\n- {id: key, description: d, kind: secret, severity: low, action: redact, literals: [k-],"
        " pattern: 'k-\\w{6}', allow: ['0{4}'], allow_before: ['old $'], allow_after: ['!']}\n"
    )
    text = "k-SAMPLE k-a0000b old k-abcdef k-abcdef! k-abcdef"
    assert [f.start for f in scanner.scan(text)] == [text.rindex("k-")]


def test_the_group_value_is_the_finding_else_group_1_else_the_match(tiny):
    for pattern, span in (("k=(x)(?P<value>y)", (3, 4)), ("k=(x)y", (2, 3)), ("k=xy", (0, 4))):
        rule = f"{{id: key, {RULE}, action: redact, literals: ['k='], pattern: '{pattern}', edge: ''}}"
        assert [(f.start, f.end) for f in tiny(f"rules: [{rule}]").scan("k=xy")] == [span]


def test_case_matters_unless_the_rule_says_so(tiny):
    for ignore, texts in (("false", ["Key-1"]), ("true", ["Key-1", "KEY-1", "key-1"])):
        rule = f"{{id: key, {RULE}, action: redact, literals: [Key-], pattern: 'Key-\\d', ignore_case: {ignore}}}"
        scanner = tiny(f"rules: [{rule}]")
        assert [text for text in ("Key-1", "KEY-1", "key-1") if scanner.scan(text)] == texts


def test_a_scanner_travels_to_another_process(scanner, token):
    text = "x = '" + token("gh" + "p_", 36) + "'"
    copy = pickle.loads(pickle.dumps(scanner))  # noqa: S301 - our own bytes
    assert copy.scan(text) == scanner.scan(text) != []


def test_a_hook_uses_the_rules_for_credentials_only(policy):
    few = Scanner(policy.only(kinds={"secret"}, severities={"high", "critical"}))
    assert {rule.kind for rule in few.policy.rules} == {"secret"}
    assert few.scan("mail sam.quill@" + "quiet-harbour.org") == []


def test_one_line_of_two_megabytes_of_each_literal_ends(scanner):
    """No time is asserted: a rule that backtracks over the line would not end within the test's own limit."""
    for unit in (
        "@",
        "a@b.",
        "AK" + "IA",
        "ey" + "J-",
        "://a:b",
        "1234567890",
        "1.1.",
        "::",
        "+1",
        "token = '",
        "LS0tLS1CRUdJTi",
        "\u0430a",
    ):
        assert all(f.end - f.start < 70_000 for f in scanner.scan(unit * (100_000 // len(unit))))


PIECES = [text for _, text, _ in planted(9, 2)]
NOISE = st.text(alphabet=st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["@", ".", "-", "'", '"', "=", ": ", "://", "key=", "token = '", "\n", "\r\n", "\u2028", "\u200d", "<", ">", "\0", "5", "A", "+1", "\\n", "\\u0041"]
)  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES) | NOISE, max_size=8).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_findings_are_sorted_do_not_overlap_and_have_the_place_of_a_naive_count(scanner, text):
    found = scanner.scan(text)
    assert all(a.end <= b.start for a, b in pairwise(found))
    for finding in found:
        assert 0 <= finding.start < finding.end <= len(text)
        before = text[: finding.start].split("\n")
        assert (finding.line, finding.column) == (len(before), len(before[-1]) + 1)


def test_the_order_of_a_policy_of_many_findings_is_that_of_the_text(scanner):
    dice = random.Random(5)
    parts = [text for _, text, _ in planted(5, 3)]
    dice.shuffle(parts)
    found = scanner.scan("\n".join(parts))
    assert len(found) >= len(parts)
    assert all(a.end <= b.start for a, b in pairwise(found))


@given(
    parts=st.lists(st.sampled_from(["\\", "n", "r", "t", "x", "\n", "a" * 40]), max_size=30),
    filler=st.sampled_from([0, 2000]),
)
def test_escaped_white_space_is_white_space_whatever_the_number_of_backslashes(parts, filler):
    text = "".join(parts) + "-" * filler
    plain = text
    for letter, space in ESCAPED_SPACE.items():
        plain = plain.replace("\\" + letter, space)
    assert without_escaped_space(text) == plain
    assert len(plain) == len(text)


def test_a_token_in_folded_base64_is_found_whatever_the_lines_before_it_spell(scanner, token):
    """A line before it may spell the base64 of `ghp_` by chance, at another alignment; the line ends do not count."""
    rng = random.Random(2)
    data = rng.randbytes(600) + b" " + token("gh" + "p_", 36).encode() + b" " + rng.randbytes(300)
    encoded = base64.b64encode(data).decode()
    form = base64.b64encode(b"gh" + b"p_x").decode()[:5]
    for place in range(80):
        run = encoded[:place] + form + encoded[place + len(form) :]
        text = "\n".join(run[at : at + 76] for at in range(0, len(run), 76))
        assert [finding.rule for finding in scanner.scan(text) if finding.action != "allow"] == ["github-token"], place


@pytest.mark.parametrize(
    ("gates", "text"),
    [
        ((r"ab(?P<one>.)x", r"ab(?P<one>c)y"), "abcy"),
        ((r"ab(c)d", r"ab(.)\1"), "abzz"),
        ((r"(?i)qr", r"(?i)zz"), "ZZ"),
    ],
)
def test_a_gate_means_the_same_beside_others(tiny, gates, text):
    rules = [
        f"  - {{id: rule{n}, {RULE}, action: redact, gate: '{gate}', pattern: '{gate}', edge: ''}}"
        for n, gate in enumerate(gates)
    ]
    assert [finding.rule for finding in tiny("rules:\n" + "\n".join(rules)).scan(text)] == ["rule1"]


def test_a_gate_that_two_rules_have_counts_in_the_case_of_each(tiny):
    both = [
        f"  - {{id: rule{n}, {RULE}, action: redact, gate: 'ab', pattern: 'ab', ignore_case: {n}}}"
        for n in ("false", "true")
    ]
    assert [finding.rule for finding in tiny("rules:\n" + "\n".join(both)).scan("AB")] == ["ruletrue"]


@pytest.mark.parametrize("text", ["_10.=#api_key" * 100 + "_10.=", "api_key_%3D?" * 100])
def test_a_row_of_values_that_each_end_at_the_next_takes_one_pass(scanner, text):
    """Alone, only the last one passes: it is short. The one before it ends at its placeholder, and so on."""
    assert len(scanner.scan(text)) == 99
    assert len(list(scanner._passes(text))) == 2  # the second one finds nothing
