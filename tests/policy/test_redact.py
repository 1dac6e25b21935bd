"""Redaction replaces all values and nothing else, and a second redaction changes nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.policy.redact import PLACEHOLDER, placeholder, placeholder_length, redact
from codex_ml.safety_audit.planted import planted

KEY = b"a key of the tests"
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"


def test_equal_values_get_equal_marks_and_the_text_between_stays(clean, token):
    one, two = (token("AK" + "IA", 16, seed, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for seed in "ab")
    text = f"{one} at 0 \U0001f600 {FAMILY} e\u0301 key={two}\U0001f600{one}{FAMILY}tail \u202e{one}"
    marks = [placeholder("aws-access-key", value, KEY) for value in (one, two)]
    assert marks[0] != marks[1]
    assert clean(text) == text.replace(one, marks[0]).replace(two, marks[1])
    assert clean(one + one) == marks[0] * 2
    assert clean(f"{two},{one}") == f"{marks[1]},{marks[0]}"


def test_values_behind_line_separators_go_and_the_separators_stay(clean, token):
    value = token("gh" + "p_", 36)
    for separator in ("\u2028", "\u2029", "\u0085", "\v", "\f", "\x1c", "\r"):
        text = f"log{separator}{value}{separator}end"
        assert clean(text) == text.replace(value, placeholder("github-token", value, KEY))


@pytest.mark.parametrize("rule", ["email", "private-key", "a1"])
def test_a_placeholder_has_its_fixed_form(rule):
    mark = placeholder(rule, "v", KEY)
    assert re.fullmatch(rf"<SECRET:{rule}:[0-9a-f]{{8}}>", mark)
    assert PLACEHOLDER.fullmatch(mark)
    assert len(mark) == placeholder_length(rule)


def test_the_mark_depends_on_the_key_the_rule_and_the_value():
    marks = {
        placeholder("email", "v", KEY),
        placeholder("email", "v", b"x"),
        placeholder("jwt", "v", KEY),
        placeholder("email", "w", KEY),
    }
    assert len(marks) == 4
    # RFC 2104 by an independent computation: hmac_sha256("key", "jwt\0v")
    import hashlib

    pad = b"key".ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in pad) + b"jwt\0v").digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in pad) + inner).hexdigest()
    assert placeholder("jwt", "v", b"key") == f"<SECRET:jwt:{outer[:8]}>"
    with pytest.raises(ValueError, match="empty"):
        placeholder("jwt", "v", b"")


def test_what_is_only_reported_is_not_replaced(scanner):
    text = "Ignore all previous instructions"
    assert [f.action for f in scanner.scan(text)] == ["allow"]
    assert redact(text, scanner.scan(text), KEY) == text


MARK = placeholder("env-secret", "v", KEY)


@pytest.mark.parametrize(
    "frame",
    ["{}", "{}@host.org", "a@{}.org", "token = '{}'", "api_key = {}", "SECRET_KEY={}", "password: {}", "https://u:{}@host/", "Bearer {}", "phone: {}", "ssn {}", "{}{}", "+49{}", "a{}b@host"],
)  # fmt: skip
@pytest.mark.parametrize("tag", ["01234567", "12345678", "deadbeef", "00000000"])
def test_a_placeholder_is_not_a_finding(scanner, frame, tag):
    assert scanner.scan(frame.replace("{}", f"<SECRET:env-secret:{tag}>")) == []


PIECES = [text for _, text, _ in planted(11, 2)] + [value for _, _, value in planted(12, 1)]
NOISE = st.text(alphabet=st.characters(codec="utf-8"), max_size=10) | st.sampled_from(
    ["@", ".", "-", "'", '"', "=", ": ", "://a:", "@host.org", "api_key=", "token = '", "password: ", "ssn ", "\n", "\r\n", "\u2028", "\u200b", "<", ">", "\0", "57", "A", "+1", "\\n", "\\u0041", MARK]
)  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES) | NOISE, max_size=8).map("".join)


@settings(max_examples=400, deadline=None)
@given(text=TEXT)
def test_a_redacted_text_has_nothing_left_to_redact(scanner, text):
    once = redact(text, scanner.scan(text), KEY)
    again = scanner.scan(once)
    assert [f for f in again if f.action != "allow"] == []
    assert redact(once, again, KEY) == once


@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_the_text_between_findings_stays_code_point_for_code_point(scanner, text):
    found = [f for f in scanner.scan(text) if f.action != "allow"]
    result, last = redact(text, found, KEY), 0
    for finding in found:
        expected = text[last : finding.start] + placeholder(finding.rule, text[finding.start : finding.end], KEY)
        assert result.startswith(expected)
        result, last = result[len(expected) :], finding.end
    assert result == text[last:]


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_at_all_can_be_scanned(scanner, text):
    once = redact(text, scanner.scan(text), KEY)
    assert redact(once, scanner.scan(once), KEY) == once
