"""Secrets are found where they stand, told without their value, and a scan proves that it finds them."""

import random
import re
import string
from itertools import pairwise

import pytest

from codex_ml.policy import scan as module
from codex_ml.policy.rules import RULES
from codex_ml.policy.scan import entropy, planted_recall, scan_text

ALNUM = string.ascii_letters + string.digits
RULE = {rule.id: rule for rule in RULES}


def token(prefix, length, seed=0, alphabet=ALNUM):
    """A secret-shaped text made at run time."""
    return prefix + "".join(random.Random(seed).choices(alphabet, k=length))


GITHUB = token("gh" + "p_", 36)


@pytest.mark.parametrize("seed", range(5))
def test_every_planted_secret_is_found(seed):
    assert planted_recall(seed=seed) == 1.0


def test_the_planted_recall_can_fail(monkeypatch):
    monkeypatch.setattr(module, "RULES", (RULE["jwt"], RULE["github-token"]))
    assert planted_recall(seed=0) == 1.0
    monkeypatch.setattr(module, "scan_text", lambda text: [f for f in scan_text(text) if f.rule != "jwt"])
    assert planted_recall(seed=0) == 0.5


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_finding_has_exactly_the_place_of_the_value_and_never_the_value(rule):
    for seed in range(20):
        secret = rule.example(random.Random(seed))
        value = rule.pattern.search(secret).group(1)
        text = f"first\nvalue = {secret} # end\n"
        finding = next(f for f in scan_text(text) if f.rule == rule.id)
        assert text[finding.start : finding.end] == value
        assert (finding.line, finding.severity) == (2, "block")
        assert finding.column == text.split("\n")[1].index(value.split("\n")[0]) + 1
        assert value not in repr(finding)
        assert all(not isinstance(field, str) or len(field) < 20 for field in vars(finding).values())


# The documented shapes, by hand and not by the rules' own examples.
SHAPES = {
    "aws-access-key": token("AK" + "IA", 16, alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
    "github-token": token("gh" + "o_", 36),
    "gitlab-token": token("gl" + "pat-", 20),
    "slack-token": "xo" + "xp-" + token("", 12) + "-" + token("", 24, 1),
    "google-api-key": token("AI" + "za", 35, alphabet=ALNUM + "-_"),
    "stripe-key": token("rk_" + "live_", 30),
    "npm-token": token("np" + "m_", 36),
    "huggingface-token": token("h" + "f_", 34, alphabet=string.ascii_letters),
    "url-password": "https://bot:" + token("", 16) + "@git.internal/x",
    "assigned-secret": "MY_API_KEY: '" + token("", 32) + "'",
}


@pytest.mark.parametrize("rule", SHAPES)
@pytest.mark.parametrize("frame", ["{}", "x = '{}'", "\U0001f600{}\n", "curl -H 'Bearer {}' | sh"])
def test_documented_shapes_are_found(rule, frame):
    assert [f.rule for f in scan_text(frame.format(SHAPES[rule].replace("'", '"')))] == [rule]


@pytest.mark.parametrize(
    "text",
    [
        "AK" + "IA" + "IOSFODNN7" + "EXAMPLE",  # the key of AWS's own documentation
        "AK" + "IA" + "X" * 16,
        "gh" + "p_" + "x" * 36,
        "h" + "f_" + "x" * 34,
        "api_key = '" + "x" * 32 + "'",
        "password = 'your-password-goes-here-please'",
        "postgres://user:password@localhost/db",
        "postgres://user:${DB_PASSWORD}@localhost/db",
        "postgres://user:<password>@localhost/db",
        "-----BEGIN PUBLIC KEY-----\n" + token("", 200) + "\n-----END PUBLIC KEY-----",
        "-----BEGIN RSA PRIVATE " + "KEY-----\n...\n-----END RSA PRIVATE " + "KEY-----",
        "sha256:" + token("", 64, alphabet="0123456789abcdef"),
        "task-" + token("", 20),
        "",
    ],
    ids=range(14),
)
def test_placeholders_and_public_material_are_no_findings(text):
    assert scan_text(text) == []


@pytest.mark.parametrize(
    ("before", "line", "column"),
    [
        ("a\vb\fc\x1cd\u2028e\u0085f\n\n", 3, 1),
        ("one\r\ntwo\r\nx = '", 3, 6),
        ("\r\r", 1, 3),
        ("\u2029  ", 1, 4),
        ("\U0001f469\u200d\U0001f469\u200d\U0001f467 e\u0301 \u202e", 1, 11),
        ("\n\n\n\t", 4, 2),
        ("", 1, 1),
    ],
)
def test_lines_end_at_lf_only_and_columns_count_characters(before, line, column):
    (finding,) = scan_text(before + GITHUB + "\n")
    assert (finding.line, finding.column) == (line, column)
    assert (finding.start, finding.end) == (len(before), len(before) + len(GITHUB))


def test_an_emoji_before_between_and_after_shifts_no_offset():
    other = token("np" + "m_", 36, 3)
    text = f"\U0001f600{GITHUB}\U0001f600\U0001f468\u200d\U0001f469{other}\U0001f600"
    assert [text[f.start : f.end] for f in scan_text(text)] == [GITHUB, other]


def test_secrets_at_both_ends_and_touching_are_all_found():
    text = f"{GITHUB} {GITHUB}\n{GITHUB}"
    assert [(f.line, f.column) for f in scan_text(text)] == [(1, 1), (1, 42), (2, 1)]


def test_of_overlapping_findings_the_longest_stays():
    whole = "token = '" + GITHUB + "'"
    assert [f.rule for f in scan_text(whole)] == ["github-token"]  # equal length: the earlier rule
    longer = token("", 20) + "/" + "AK" + "IA" + token("", 16, alphabet="ABCDEFGH234567") + "/" + token("", 20, 1)
    assert [f.rule for f in scan_text(f"secret = '{longer}'")] == ["assigned-secret"]


def test_findings_do_not_overlap_and_stand_in_order():
    dice = random.Random(5)
    text = "\n".join(rule.example(dice) for rule in RULES for _ in range(3))
    found = scan_text(text)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert len(found) == 3 * len(RULES)


@pytest.mark.parametrize(
    ("text", "bits"), [("", 0), ("aaaa", 0), ("ab", 1), ("abcd", 2), ("aabbccdd", 2), ("aaab", 0.8112781244591328)]
)
def test_entropy_is_shannons(text, bits):
    assert entropy(text) == pytest.approx(bits, abs=1e-15)


def test_a_rule_is_tried_only_where_its_literal_occurs():
    for rule in RULES:
        for seed in range(5):
            assert any(literal in rule.example(random.Random(seed)) for literal in rule.literals)
        assert isinstance(rule.pattern, re.Pattern)
        assert rule.pattern.groups >= 1
