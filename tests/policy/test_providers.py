"""Every provider's token is removed as a whole in every context, at any length, and the text around it stays."""

from __future__ import annotations

import base64
import json
import random
import re
import string

import pytest

from codex_ml.policy.providers import Provider
from codex_ml.policy.redact import PLACEHOLDER
from codex_ml.policy.token_shapes import instance, literals, pieces
from codex_ml.safety_audit.planted import INSTANCES, planted

ALNUM, HEX = string.ascii_letters + string.digits, "0123456789abcdef"
CONTEXTS = {
    "bare": ("see ", " for it\n"),
    "env": ("# c\nACME_CREDENTIAL=", "\nNEXT=1\n"),
    "code": ('client = connect(region="eu", value="', '", retries=3)\n'),
    "yaml": ("service:\n  value: ", "\n  retries: 3\n"),
    "url": ("https://api.acme.dev/v1/items?value=", "&page=2\n"),
    "json": ('{"name": "acme", "value": "', '", "retries": 3}\n'),
}
# Contexts of vendors whose credentials look like any other; {vendor} is the name of one.
NAMED = {
    "bare": ("the {vendor} api key is ", " for now\n"),
    "env": ("{VENDOR}_API_KEY=", "\nNEXT=1\n"),
    "code": ('{vendor}.connect(api_key="', '", retries=3)\n'),
    "yaml": ("{vendor}:\n  api_key: ", "\n  retries: 3\n"),
    "url": ("https://api.{vendor}.dev/v1/items?api_key=", "&page=2\n"),
    "json": ('{"{vendor}": {"api_key": "', '", "retries": 3}}\n'),
}


def value_of(shape, rng, times=1):
    """An invented value that ends in a letter or digit, as prose and URLs cut other ends."""
    value = instance(shape, rng, times=times)
    last = next(c for c in reversed(pieces(shape)[-1][0]) if c.isalnum())
    return value if value[-1].isalnum() else value[:-1] + last


@pytest.fixture(scope="module")
def vendors(policy):
    return next(rule.literals for rule in policy.rules if rule.id == "vendor-secret")


def test_the_policy_covers_the_providers_that_people_use(policy, vendors):
    assert len(policy.providers) + len(vendors) >= 200
    assert len({provider.docs.split("/")[2] for provider in policy.providers}) >= 90


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_token_of_each_provider_goes_whole_and_the_text_around_it_stays(policy, clean, context):
    before, after = CONTEXTS[context]
    rng, wrong = random.Random(context), []
    for provider in policy.providers:
        for shape in provider.shapes:
            for times in (1, 2):
                value = value_of(shape, rng, times)
                result = clean(before + value + after)
                if PLACEHOLDER.sub("{}", result) != before + "{}" + after:
                    wrong.append((provider.id, value, result))
    assert wrong == []


@pytest.mark.parametrize("context", NAMED)
def test_a_value_without_a_shape_goes_near_its_vendors_name(vendors, clean, context):
    rng, wrong = random.Random(context), []
    for vendor in vendors:
        before, after = (
            part.replace("{vendor}", vendor).replace("{VENDOR}", vendor.upper()) for part in NAMED[context]
        )
        for alphabet, length in ((HEX, 32), (ALNUM, 24), (ALNUM, 40), (HEX, 64)):
            value = "7f" + "".join(rng.choices(alphabet, k=length - 3)) + "9"
            result = clean(before + value + after)
            if PLACEHOLDER.sub("{}", result) != before + "{}" + after:
                wrong.append((vendor, value, result))
    assert wrong == []


# Rules whose value has a length that is part of what it is; a longer one is something else.
FIXED = {
    "onepassword-key",
    "mailchimp-key",
    "newrelic-licence",
    "maxmind-key",
    "aws-secret-after-id",
    "private-key",
    "jwt",
    "dsn-password",  # read backwards from @tcp(, at most 256 characters
}


@pytest.mark.parametrize("times", [2, 5, 20])
def test_no_value_is_too_long_for_its_rule(policy, clean, times):
    """No 12 characters of a value remain that is 2, 5 or 20 times as long as documented."""
    rng, providers, wrong = random.Random(times), {provider.id: provider for provider in policy.providers}, []
    for rule in (rule.id for rule in policy.rules if rule.kind == "secret" and rule.id not in FIXED):
        if rule in providers:
            texts = [(value_of(shape, rng, times),) * 2 for shape in providers[rule].shapes]
        else:
            text, value = INSTANCES[rule](rng)
            alphabet = HEX if set(value.lower()) <= {*HEX, "s", "k"} else ALNUM
            alphabet = alphabet.lower() if value == value.lower() else alphabet
            longer = value[:-1] + "".join(rng.choices(alphabet, k=len(value) * (times - 1))) + value[-1]
            texts = [(text.replace(value, longer), longer)]
        for text, value in texts:
            for frame in ("", "'", " ", "\n"):
                result = clean(frame + text + frame)
                if any(value[i : i + 12] in result for i in range(len(value) - 11)):
                    wrong.append((rule, value, result))
    assert wrong == []


@pytest.mark.parametrize("length", [8, 65, 256])
def test_a_password_in_a_data_source_name_may_have_256_characters(clean, length):
    value = "k7" + "".join(random.Random(length).choices(ALNUM + ":#!", k=length - 3)) + "Q"
    for user in ("bob", "b" * 32):
        once = clean(f"db: {user}:{value}@tcp(db:3306)/app")
        assert re.fullmatch(rf"db: {user}:<SECRET:dsn-password:[0-9a-f]{{8}}>@tcp\(db:3306\)/app", once)


def test_redacting_twice_changes_nothing(policy, clean):
    replaced = {rule.id for rule in policy.rules if rule.action == "redact"}
    for rule, text, value in planted(21, 3, rules=replaced, providers=policy.providers):
        once = clean(text)
        assert value not in once, rule
        assert clean(once) == once, rule


@pytest.mark.parametrize(
    ("disguise_name", "disguise"),
    [
        ("json", lambda value, at: value[:at] + f"\\u{ord(value[at]):04x}" + value[at + 1 :]),
        ("python", lambda value, at: value[:at] + f"\\x{ord(value[at]):02x}" + value[at + 1 :]),
        ("zero width", lambda value, at: value[:at] + "\u200b" + value[at:]),
        ("base64 after a name", lambda value, at: base64.b64encode(f"bot:{value}".encode()).decode()),
        ("base64 after text", lambda value, at: base64.b64encode(f"x={value}\n".encode()).decode()),
        ("base64", lambda value, at: base64.b64encode(value.encode()).decode().rstrip("=")),
    ],
)
def test_a_disguised_token_goes_whole(policy, clean, disguise_name, disguise):
    """Three characters have no form of their own in base64 at two places of three: such a token goes where it is alone."""
    rng, wrong = random.Random(31), []
    for provider in policy.providers:
        for shape in provider.shapes:
            value = value_of(shape, rng)
            if "after" in disguise_name and min(map(len, literals(shape))) == 3:
                continue
            spelt = disguise(value, rng.randrange(1, len(value)))
            result = clean(f"x = '{spelt}'; y")
            if PLACEHOLDER.sub("{}", result) != "x = '{}'; y":
                wrong.append((provider.id, value, spelt, result))
    assert wrong == []


@pytest.mark.parametrize("size", [1000, 70_000, 200_000])
def test_a_key_and_a_token_of_any_size_go(clean, size):
    body = base64.b64encode(random.Random(size).randbytes(size)).decode()
    lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
    label = "PRIVATE" + " KEY"
    for footer in (f"\n-----END {label}-----\n", "\n"):
        result = clean(f"a\n-----BEGIN {label}-----\n{lines}{footer}b\n")
        assert PLACEHOLDER.sub("{}", result) == "a\n{}\nb\n"
    head, payload = "eyJhbGciOiJIUzI1NiJ9", "eyJ" + body.replace("+", "-").replace("/", "_").rstrip("=")
    token = f"{head}.{payload}.{payload[3:40]}"
    assert PLACEHOLDER.sub("{}", clean(f"x='{token}'")) == "x='{}'"
    wide = base64.urlsafe_b64encode(json.dumps({"alg": "RS256", "x5c": [body]}).encode()).decode().rstrip("=")
    assert PLACEHOLDER.sub("{}", clean(f"x='{wide}.{payload[:60]}.{payload[3:40]}'")) == "x='{}'"


def test_a_run_of_hits_costs_its_length(scanner):
    """Each hit's value reaches to the end of the line; the values together would be a thousand times the text."""
    for unit in (
        "a_key=",
        "password=",
        "://a:",
        "://",
        "-u a:b",
        "gh" + "p_" + "A1" * 18,
        "sk-",
        "eyJ",
        "glpat-",
        "xoxb-",
    ):
        text = unit * (400_000 // len(unit))
        assert all(0 <= f.start < f.end <= len(text) for f in scanner.scan(text))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("ab_[a-z]{3}", None),
        ("ab_[a-z]{3,}[0-9]", "only the last class"),
        ("ab_(x|y)", "a shape holds"),
        ("ab_[^a]{3}", "a shape holds"),
        ("ab_x+", "a shape holds"),
        ("ab_[z-a]{3}", "a range whose end comes before its start"),
        ("a_[a-z]{9}", "must begin with 3 fixed characters"),
    ],
)
def test_a_shape_says_what_it_is(shape, message):
    if message is None:
        assert Provider(id="ab", docs="https://acme.dev/docs", shapes=(shape,)).as_rule()["literals"] == ("ab_",)
        return
    with pytest.raises(ValueError, match=message):
        Provider(id="ab", docs="https://acme.dev/docs", shapes=(shape,))


def test_literals_and_values_follow_from_the_shape():
    assert literals("gh[po]_[A-Z]{2}") == ["ghp_", "gho_"]
    assert literals(r"dp\.st\.[a-z]{9,}") == ["dp.st."]
    assert instance(r"a\.b[x]{3,}", random.Random(0), times=2) == "a.bxxxxxx"
    assert pieces("a[0-2]") == [("a", 1, False), ("012", 1, False)]
