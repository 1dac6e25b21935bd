"""A wrong policy is refused in one line: file, line, rule, mistake."""

from __future__ import annotations

import random
import re

import pytest

from codex_ml.core.errors import UserError
from codex_ml.policy.rules import load_policy, parse_policy

GOOD = """version: 1
rules:
  - id: first
    description: d
    kind: secret
    severity: high
    action: redact
    literals: [ab]
    pattern: ab
"""


def error(text):
    with pytest.raises(UserError) as caught:
        parse_policy(text, name="policy.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_policy_of_the_repository_is_valid_and_speaks_of_every_kind(policy):
    assert len(policy.rules) >= 170
    assert {rule.kind for rule in policy.rules} == {"secret", "personal", "injection"}
    assert all(rule.action == ("allow" if rule.kind == "injection" else "redact") for rule in policy.rules)
    assert parse_policy(GOOD).rules[0].id == "first"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pattern: ab", "pattern: 'a('", "policy.yaml:9: rule first: pattern: the regular expression is wrong: missing ), unterminated subpattern at position 1"),
        ("pattern: ab", "pattern: 'a*'", "policy.yaml:9: rule first: pattern: it matches the empty text, so it would match everywhere"),
        ("pattern: ab", "pattern: '(?<=a*)b'", "policy.yaml:9: rule first: pattern: the regular expression is wrong: look-behind requires fixed-width pattern"),
        ("pattern: ab", "pattern: ab\n    allow: ['[']", "policy.yaml:10: rule first: allow: the regular expression is wrong: unterminated character set at position 0"),
        ("pattern: ab", "pattern: ab\n    validator: luhm", "policy.yaml:10: rule first: validator: no validator is called 'luhm'; did you mean luhn?"),
        ("pattern: ab", "pattern: ab\n    entropy: 3", "policy.yaml:10: rule first: entropy is not a key of a rule; did you mean min_entropy?"),
        ("pattern: ab", "pattern: ab\n    min_entropy: '3'", "policy.yaml:10: rule first: min_entropy: input should be a valid number; found '3'"),
        ("pattern: ab", "pattern: ab\n    min_entropy: 9", "policy.yaml:10: rule first: min_entropy: input should be less than or equal to 8; found 9"),
        ("pattern: ab", "pattern: ab\n    before: 5000", "policy.yaml:10: rule first: before: input should be less than or equal to 1000; found 5000"),
        ("    pattern: ab\n", "", "policy.yaml:3: rule first: the key pattern is missing"),
        ("    literals: [ab]\n", "", "policy.yaml:3: rule first: `names`, `literals` or `gate` must say where the pattern is tried; give one of them"),
        ("rules:", "names: {own: [ab]}\nrules:\n  - {id: own, description: d, kind: secret, severity: low, action: redact, names: [own], gate: ab, pattern: c}", "policy.yaml:4: rule own: a rule with `names` has no `literals`, `gate` or `before`: it begins after a name"),
        ("pattern: ab", "pattern: ab\n    many: true", "policy.yaml:3: rule first: `many` needs `names`: a list is looked for after a name only"),
        ("rules:", "names: {own: []}\nrules:", "policy.yaml:2: names.own: list should have at least 1 item after validation, not 0; found ()"),
        ("rules:", "names: {own: [' ']}\nrules:", "policy.yaml:2: names.own.0: string should match pattern '\\S'; found ' '"),
        ("literals: [ab]", "literals: ['']", "policy.yaml:8: rule first: literals.0: string should have at least 1 character; found ''"),
        ("literals: [ab]", "gate: 'a?'", "policy.yaml:8: rule first: gate: it matches the empty text, so it would match everywhere"),
        ("action: redact", "action: remove", "policy.yaml:7: rule first: action: input should be 'allow', 'redact' or 'block'; found 'remove'"),
        ("severity: high", "severity: warn", "policy.yaml:6: rule first: severity: input should be 'low', 'medium', 'high' or 'critical'; found 'warn'"),
        ("id: first", "id: First", "policy.yaml:3: rule First: id: string should match pattern '^[a-z][a-z0-9-]{1,39}$'; found 'First'"),
        ("version: 1", "version: 2", "policy.yaml:1: version: input should be 1; found 2"),
        ("version: 1", "version: 1\nrulez: 1", "policy.yaml:2: rulez is not a key of the policy; did you mean rules?"),
        ("version: 1", "version: 1\nallow: ['(']", "policy.yaml:2: allow: the regular expression is wrong: missing ), unterminated subpattern at position 0"),
        ("rules:", "rules: []\nx:", "policy.yaml:3: x is not a key of the policy (and 1 more)"),
        ("    pattern: ab\n", "    pattern: ab\n  - {id: first, description: d, kind: secret, severity: low, action: allow, literals: [a], pattern: a}\n", "policy.yaml:10: rule first: the id is taken by the rule of line 3"),
        ("  - id: first", "  - 3\n  - id: first", "policy.yaml:3: rule number 1: input should be a mapping with the keys of Rule; found 3"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_line_and_rule(old, new, message):
    assert old in GOOD
    assert error(GOOD.replace(old, new)) == message


def test_other_shapes_are_refused():
    assert error("[1]") == "policy.yaml: expected a mapping with the key `rules`, found list"
    assert error("") == "policy.yaml: the key rules is missing"
    assert error("rules:\n\t- 1") == "policy.yaml:2: a tab cannot indent YAML; use spaces, or \\t in double quotes"


def test_a_bomb_of_aliases_is_refused_at_once():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)
    )
    assert error(bomb) == "policy.yaml:1: more than 50000 values, with aliases expanded"


def test_an_alias_is_what_it_stands_for():
    rule = parse_policy(GOOD.replace("[ab]", "&l [ab]") + "    allow: *l\n").rules[0]
    assert rule.allow == rule.literals == ("ab",)


def test_a_missing_file_and_one_that_is_not_utf8_are_reported(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml is missing"):
        load_policy(tmp_path / "none.yaml")
    (tmp_path / "p.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        load_policy(tmp_path / "p.yaml")


def test_a_pattern_may_be_given_in_pieces():
    assert parse_policy(GOOD.replace("pattern: ab", "pattern: [a, b]")).rules[0].pattern == "ab"


def test_no_rule_of_the_policy_repeats_without_a_bound(policy):
    """`*` and `+` after anything: such a rule could walk over a line of 50 MiB at each of a million hits.

    What is open is possessive, so it is walked once, and `run` is walked once for all hits. In `url-password` the last @
    is looked for backwards, from an end that no second hit can share: its value holds no `/`, and its literal does.
    """
    for rule in policy.rules:
        bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "_", rule.pattern)
        bare = re.sub(r"\(\?(?:P<\w+>|[:=!]|<[=!])", "(", bare)
        bare = re.sub(r"\{\d+,\d*\}\+|\?\+", "", bare)
        if rule.id == "url-password":
            bare = bare.replace("{6,}", "")
        assert not re.search(r"[*+]|\{\d+,\}", bare), rule.id


def test_no_limit_of_the_policy_bounds_a_value(policy):
    """A value ends where its characters do: its last repetition is exact and prolonged by `run`, or open."""
    fixed = {"mailchimp-key", "newrelic-licence", "maxmind-key", "aws-secret-after-id", "onepassword-key"}
    for rule in policy.rules:
        if rule.kind == "secret" and rule.id not in fixed and not rule.run:
            assert re.search(r"\{\d+,\}", rule.pattern), rule.id
        assert not re.search(r"\{\d+,\d+\}\)?\Z", rule.pattern) or rule.kind != "secret" or rule.id in fixed, rule.id


def test_a_provider_is_a_rule_before_the_others(policy):
    text = GOOD.replace(
        "rules:", "providers:\n  - {id: acme-key, docs: 'https://acme.dev/keys', shapes: ['ac_[0-9]{9,}']}\nrules:"
    )
    made = parse_policy(text).rules[0]
    assert (made.id, made.literals, made.pattern, made.kind, made.severity) == (
        "acme-key", ("ac_",), "ac_[0-9]{9}", "secret", "critical",
    )  # fmt: skip
    assert (
        error(text.replace("acme-key", "first")) == "policy.yaml:5: rule first: the id is taken by the rule of line 3"
    )
    assert error(text.replace("shapes", "shape")) == (
        "policy.yaml:3: rule acme-key: shape is not a key of a rule; did you mean shapes? (and 1 more)"
    )
    assert error(text.replace("9,}", "9}z+")).startswith(
        "policy.yaml:3: rule acme-key: shapes: a shape holds characters"
    )
    assert error(text.replace("https:", "http:")).startswith("policy.yaml:3: rule acme-key: docs: string should match")


def test_the_order_of_rules_is_the_order_of_the_file(policy):
    names = [rule.id for rule in policy.rules]
    assert names.index("anthropic-key") < names.index("openai-key")
    assert len(set(names)) == len(names)
    assert random.Random(0).choice(names) in names
