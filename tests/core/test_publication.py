"""What a writer publishes passes the gate that is open: values, keys, and fields that nobody listed."""

from __future__ import annotations

import json
from hashlib import sha256

from codex_ml.core.contract import Contract
from codex_ml.core.io import write_json, write_ndjson
from codex_ml.core.publication import published, publishing

SECRET = "hunter2"


class Note(Contract):
    text: str


def test_each_text_and_each_key_is_cleaned_and_nothing_else_changes():
    value = {f"a {SECRET}": [SECRET, 7, 0.5, None, True, {"b": (f"{SECRET}s",)}], "c": "clean"}
    with publishing(lambda text: text.replace(SECRET, "*")):
        assert published(value) == {"a *": ["*", 7, 0.5, None, True, {"b": ["*s"]}], "c": "clean"}
    assert published(value) is value


def test_digests_are_not_cleaned():
    digests = [sha256(b"x").hexdigest()[:length] for length in (32, 40, 64)]
    with publishing(lambda text: "*"):
        assert published(digests) == digests
        assert published([digests[0][:16], digests[0].upper(), digests[0] + "0"]) == ["*", "*", "*"]


def test_the_writers_of_json_use_the_gate_that_is_open(tmp_path):
    with publishing(lambda text: text.replace(SECRET, "*")):
        write_json(tmp_path / "a.json", {SECRET: SECRET})
        Note(text=SECRET).write(tmp_path / "b.json")
        Note.write_lines(tmp_path / "c.ndjson", [Note(text=SECRET)])
        with publishing(lambda text: text.replace(SECRET, "+")):
            write_ndjson(tmp_path / "d.ndjson", [SECRET])
    assert json.loads((tmp_path / "a.json").read_text()) == {"*": "*"}
    assert json.loads((tmp_path / "b.json").read_text()) == json.loads((tmp_path / "c.ndjson").read_text())
    assert json.loads((tmp_path / "c.ndjson").read_text()) == {"text": "*"}
    assert json.loads((tmp_path / "d.ndjson").read_text()) == "+"


def test_a_name_that_comes_again_is_scanned_once():
    scanned = []
    with publishing(lambda text: scanned.append(text) or text):
        published([{"source": "flask"}] * 100)
    assert scanned == ["source", "flask"]
