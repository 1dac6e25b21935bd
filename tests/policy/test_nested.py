"""Names and values that are apart in a record are found as in one text: objects, pairs, entries, options, numbers."""

from __future__ import annotations

import json

import pytest

from codex_ml.policy.nested import NestedCleaner
from codex_ml.policy.redact import PLACEHOLDER, redact

KEY = b"a key of the tests"
VALUE, PASSWORD = "k7aB3xYz9Q" + "w2Er5Tt6Gh8P", "Tiger#" + "1985"  # pragma: allowlist secret
TOKEN = "gh" + "p_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"  # pragma: allowlist secret
CARD = int("4012888" + "888881881")
PASS, WORD = "pass" + "word", "to" + "ken"

# A value, and how it looks when each secret is "{}".
RECORDS = [
    ({"api_key": VALUE}, {"api_key": "{}"}),
    ({PASS: PASSWORD}, {PASS: "{}"}),
    ({"login": {"user": "bob", PASS: [VALUE, PASSWORD]}}, {"login": {"user": "bob", PASS: ["{}", "{}"]}}),
    ({"env": [{"name": "DB_PASSWORD", "value": VALUE}]}, {"env": [{"name": "DB_PASSWORD", "value": "{}"}]}),
    ({"value": VALUE, "name": "API_KEY"}, {"value": "{}", "name": "API_KEY"}),
    ({"Key": "api_key", "Value": VALUE}, {"Key": "api_key", "Value": "{}"}),
    ({"db_" + PASS: {"type": "string", "default": VALUE}}, {"db_" + PASS: {"type": "string", "default": "{}"}}),
    ({PASS: f" \n {PASSWORD} "}, {PASS: " \n {} "}),
    ({"id": "token-3", "name": "DB_PASSWORD", "v": PASSWORD}, {"id": "token-3", "name": "DB_PASSWORD", "v": "{}"}),
    (
        {"ParameterKey": "DbPassword", "ParameterValue": PASSWORD},
        {"ParameterKey": "DbPassword", "ParameterValue": "{}"},
    ),
    ({"label": PASS, "value": PASSWORD}, {"label": PASS, "value": "{}"}),
    ({"headers": [["Authorization", "Bearer " + VALUE]]}, {"headers": [["Authorization", "Bearer {}"]]}),
    ({"headers": {"X-Api-Key": VALUE}}, {"headers": {"X-Api-Key": "{}"}}),
    ({"command": ["deploy", f"--{WORD}", VALUE, "now"]}, {"command": ["deploy", f"--{WORD}", "{}", "now"]}),
    ({"card": CARD, "total": 118}, {"card": "{}", "total": 118}),
    ({"card": float(CARD)}, {"card": "{}"}),
    ([CARD, 7], ["{}", 7]),
    ({"phone": "(415) 723-8891"}, {"phone": "{}"}),
    ({TOKEN: 1}, {"{}": 1}),
    ({"note": "see " + TOKEN}, {"note": "see {}"}),
    ([{"role": "user", "content": f"{PASS}: {VALUE}"}], [{"role": "user", "content": f"{PASS}: {{}}"}]),
    ({"arguments": json.dumps({PASS: PASSWORD})}, {"arguments": json.dumps({PASS: "{}"})}),
]


@pytest.fixture(scope="module")
def cleaned(scanner):
    cleaner = NestedCleaner(scanner)
    return lambda value: cleaner.clean(value, lambda text, found: redact(text, found, KEY))


def blank(value):
    return json.loads(PLACEHOLDER.sub("{}", json.dumps(value)))


@pytest.mark.parametrize(("value", "without"), RECORDS, ids=range(len(RECORDS)))
def test_the_values_of_a_record_go_and_the_rest_stays(cleaned, value, without):
    assert blank(cleaned(value)) == without
    assert blank(cleaned(cleaned(value))) == without


def test_what_has_no_secret_stays_as_it_is_with_its_types(cleaned):
    value = {
        "token_type": "bearer",
        PASS: "changeme",
        "note": VALUE,
        "keyword": "photosynthesis",
        "n": [1, 2.5, -3e300, True, None, 20240131, 1700000000000, []],
        "rows": {"name": "city", "value": VALUE},
        "": {},
    }
    assert cleaned(value) == value
    assert json.dumps(cleaned(value)) == json.dumps(value)


def test_findings_have_their_places_in_the_text_alone(scanner):
    places = []
    NestedCleaner(scanner).clean({PASS: VALUE}, lambda text, found: places.append((text, found)) or text)
    [(text, [finding])] = places
    assert (text, finding.start, finding.end, finding.line, finding.column) == (VALUE, 0, len(VALUE), 1, 1)
    places.clear()
    NestedCleaner(scanner).clean({PASS: f"\n {VALUE}"}, lambda text, found: places.append((text, found)) or text)
    [(text, [finding])] = places
    assert (text[finding.start : finding.end], finding.line, finding.column) == (VALUE, 2, 2)
