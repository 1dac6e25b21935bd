"""Secrets of over forty kinds are found at any place. The tests make the values, not the library's own control."""

from __future__ import annotations

import base64
import json
import random
import string

import pytest

from codex_ml.policy.scan import Scanner
from codex_ml.safety_audit.planted import INSTANCES, can_be_planted, planted, planted_recall, rules_without_instances

UPPER, LOWER, DIGITS = string.ascii_uppercase, string.ascii_lowercase, string.digits
ALNUM, HEX = UPPER + LOWER + DIGITS, DIGITS + "abcdef"


def pick(dice, alphabet, length):
    return "".join(dice.choice(alphabet) for _ in range(length))


def luhn_complete(dice, prefix, length):
    body = prefix + pick(dice, DIGITS, length - len(prefix) - 1)
    doubled = [int(c) * (2 if i % 2 == 0 else 1) for i, c in enumerate(reversed(body))]
    return body + str(-sum(n // 10 + n % 10 for n in doubled) % 10)


def iban(dice):
    body = pick(dice, DIGITS, 18)
    return f"DE{98 - int(body + '131400') % 97:02d}{body}"


def nhs(dice):
    while True:
        body = pick(dice, DIGITS, 9)
        check = 11 - sum(int(c) * (10 - i) for i, c in enumerate(body)) % 11
        if check != 10:
            return body[:3] + " " + body[3:6] + " " + body[6:] + str(check % 11)


def nir(dice):
    body = "2" + f"{dice.randrange(10, 99)}{dice.randrange(1, 13):02d}75" + pick(dice, DIGITS, 6)
    return body + f"{97 - int(body) % 97:02d}"


def url_safe(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwt(dice):
    head = json.dumps({"typ": "JWT", "alg": dice.choice(["RS256", "ES256"]), "kid": pick(dice, HEX, 8)}).encode()
    return ".".join(
        [url_safe(head), url_safe(json.dumps({"sub": pick(dice, HEX, 12)}).encode()), url_safe(dice.randbytes(64))]
    )


# Kind -> (text before the value, the value, text after it): the documented shape of each.
SHAPES = {
    "aws": lambda d: ("", "AS" + "IA" + pick(d, UPPER + "234567", 16), ""),
    "aws-secret": lambda d: ("AWS_SECRET" + "_ACCESS_KEY=", pick(d, ALNUM + "+/", 40), ""),
    "github": lambda d: ("", "gh" + d.choice("pousr") + "_" + pick(d, ALNUM, 36), ""),
    "github-fine": lambda d: ("", "github_" + "pat_" + pick(d, ALNUM, 22) + "_" + pick(d, ALNUM, 59), ""),
    "gitlab": lambda d: ("", "gl" + "pat-" + pick(d, ALNUM + "-_", 19) + "x", ""),
    "slack": lambda d: ("", "xo" + "xp-" + pick(d, DIGITS, 12) + "-" + pick(d, DIGITS, 12) + "-" + pick(d, HEX, 32), ""),
    "google": lambda d: ("", "AI" + "za" + pick(d, ALNUM + "-_", 34) + "Q", ""),
    "stripe": lambda d: ("", d.choice(["sk_", "rk_"]) + "live_" + pick(d, ALNUM, 34), ""),
    "openai": lambda d: ("", "s" + "k-" + pick(d, ALNUM, 20) + "T3Blbk" + "FJ" + pick(d, ALNUM, 20), ""),
    "anthropic": lambda d: ("", "sk-" + "ant-api03-" + pick(d, ALNUM + "-_", 92) + "A", ""),
    "huggingface": lambda d: ("", "h" + "f_" + pick(d, UPPER + LOWER, 34), ""),
    "pypi": lambda d: ("", "py" + "pi-AgEIcHlwaS5vcmc" + pick(d, ALNUM + "-_", 140) + "A", ""),
    "npm": lambda d: ("", "np" + "m_" + pick(d, ALNUM, 36), ""),
    "sendgrid": lambda d: ("", "S" + "G." + pick(d, ALNUM, 22) + "." + pick(d, ALNUM, 43), ""),
    "azure": lambda d: ("AccountName=x;Account" + "Key=", base64.b64encode(d.randbytes(64)).decode(), ";Suffix=y"),
    "twilio": lambda d: ("", "S" + "K" + pick(d, HEX, 32), ""),
    "telegram": lambda d: ("", pick(d, "123456789", 10) + ":" + "AA" + pick(d, ALNUM, 33), ""),
    "jwt": lambda d: ("", jwt(d), ""),
    "url": lambda d: ("postgresql://app:", pick(d, ALNUM, 9) + d.choice("!-_~") + pick(d, ALNUM, 9), "@10.0.0.7:5432/app"),
    "assigned": lambda d: ("client_" + "secret = '", pick(d, HEX, 40), "'"),
    "assigned base64": lambda d: ("secret" + "_key: '", "4/" + base64.b64encode(d.randbytes(33)).decode(), "'"),
    "assigned in json": lambda d: ('\\"to' + 'ken\\": \\"', "a1" + pick(d, ALNUM, 30) + "Z9", '\\"'),
    "assigned with backticks": lambda d: ("const api" + "Key = `", "x7" + pick(d, ALNUM, 38), "`;"),
    "password": lambda d: ("pass" + "word = '", "R4" + pick(d, ALNUM, 5) + "!" + pick(d, ALNUM, 6), "'"),
    "environment": lambda d: ("\nclient_" + "secret=", "9q" + pick(d, ALNUM, 32), "\n"),
    "curl": lambda d: ("curl -u bot:", "7" + pick(d, ALNUM, 14), " https://db.internal/"),
    "bearer": lambda d: ("Authorization: Bearer ", "0b" + pick(d, ALNUM, 40), ""),
    "email": lambda d: ("", pick(d, LOWER, 7) + "." + pick(d, LOWER, 5) + "@" + pick(d, LOWER, 8) + d.choice([".org", ".com", ".fr"]), ""),
    "ipv4": lambda d: ("", f"{d.choice([31, 62, 91, 151, 203])}.{d.randrange(114, 250)}.{d.randrange(20, 250)}.{d.randrange(20, 250)}", ""),
    "ipv6": lambda d: ("", f"2a01:4f8:{pick(d, '123456789abcdef', 3)}:{pick(d, '123456789abcdef', 4)}::{pick(d, '123456789', 2)}", ""),
    "phone": lambda d: ("", f"+44 20 7{pick(d, '123456789', 3)} {pick(d, '123456789', 4)}", ""),
    "card": lambda d: ("", luhn_complete(d, d.choice(["51", "55"]), 16), ""),
    "card-spaced": lambda d: ("", "-".join([(n := luhn_complete(d, "4", 16))[:4], n[4:8], n[8:12], n[12:]]), ""),
    "iban": lambda d: ("", iban(d), ""),
    "ssn": lambda d: ("ssn: ", f"{d.randrange(100, 665)}-{d.randrange(10, 99)}-{d.randrange(1000, 9999)}", ""),
    "nhs": lambda d: ("NHS no ", nhs(d), ""),
    "nir": lambda d: ("NIR ", nir(d), ""),
}  # fmt: skip
ZWJ = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FRAMES = {
    "at the start": ("", " # tail"),
    "at the end": ("head ", ""),
    "alone": ("", ""),
    "python": ("x = f(\n    '", "',\n)\n"),
    "json": ('{"a": 1, "note": "', '"}\n'),
    "json line": ('{"text": "one\\n', '\\ntwo"}\n'),
    "yaml": ("a:\n  - ", "\n  - b\n"),
    "env": ("# c\nNOTE=", "\nB=2\n"),
    "comment": ("/* use ", " here */"),
    "emoji": ("\U0001f600", "\U0001f600\n"),
    "joined emoji": (ZWJ + " ", " " + ZWJ),
    "override": ("\u202e", "\u202c"),
    "separator": ("a\u2028", "\u2029b"),
    "cr lf": ("a\r\n", "\r\nb"),
    "markdown": ("see `", "` and"),
    "chinese": ("密钥", "密钥"),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_every_planted_value_is_found_in_full_and_nothing_beside_it(scanner, kind):
    dice = random.Random(kind)
    for number in range(40):  # 1,200 in all
        before, value, after = SHAPES[kind](dice)
        name = list(FRAMES)[number % len(FRAMES)]
        head, tail = FRAMES[name]
        text = head + before + value + after + tail
        found = [(f.start, f.end) for f in scanner.scan(text) if f.action == "redact"]
        start = len(head) + len(before)
        assert found == [(start, start + len(value))], (name, [f.rule for f in scanner.scan(text)])


def test_adjacent_values_are_all_found(scanner):
    dice = random.Random(8)
    kinds = ["aws", "github", "npm", "huggingface", "twilio"]
    for first in kinds:
        for second in kinds:
            values = [SHAPES[first](dice)[1], SHAPES[second](dice)[1]]
            for joint in ("", " ", ",", "\n"):
                text = joint.join(values)
                assert [text[f.start : f.end] for f in scanner.scan(text)] == values, (first, second, joint)


@pytest.mark.parametrize("seed", range(3))
def test_the_control_finds_all(scanner, seed):
    assert planted_recall(scanner, seed=seed) == 1.0


def test_the_control_is_found_with_its_exact_borders(scanner):
    for rule, text, value in planted(6, 14, providers=scanner.policy.providers):
        found = [text[f.start : f.end] for f in scanner.scan(text) if f.rule == rule]
        assert found == [value], rule


def test_the_control_covers_every_rule_of_the_policy(scanner):
    assert rules_without_instances(scanner) == []
    made = {provider.id for provider in scanner.policy.providers}
    rules = {rule.id for rule in scanner.policy.rules}
    assert rules - made <= set(INSTANCES) <= rules


def test_a_policy_of_a_user_has_controls_for_rules_of_known_names(tiny):
    mine = tiny(
        "rules: [{id: github-token, description: d, kind: secret, severity: low, action: redact, literals: [ghp_],"
        " pattern: 'ghp_[A-Za-z0-9]{36}'}]"
    )
    assert rules_without_instances(mine) == []
    assert planted_recall(mine, seed=0) == 1.0


def test_the_control_can_fail(scanner, policy):
    class Blind(Scanner):
        def scan(self, text):
            return [finding for finding in super().scan(text) if finding.rule != "jwt"]

    two = policy.model_copy(update={"rules": tuple(r for r in policy.rules if r.id in {"jwt", "putty-key"})})
    assert planted_recall(Scanner(two), seed=0) == 1.0
    assert planted_recall(Blind(two), seed=0) == 0.5


def test_a_control_of_nothing_is_refused(tiny):
    mine = tiny(
        "rules: [{id: mine, description: d, kind: secret, severity: low, action: allow, literals: [a], pattern: a}]"
    )
    assert rules_without_instances(mine) == ["mine"]
    assert not can_be_planted(mine)
    with pytest.raises(ValueError, match="nothing can be planted"):
        planted_recall(mine, seed=0)


def test_what_is_planted_depends_on_the_seed_only():
    assert list(planted(1, 2)) == list(planted(1, 2)) != list(planted(2, 2))
    assert all(text.count(value) == 1 for _, text, value in planted(0, 7))
