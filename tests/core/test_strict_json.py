"""JSON is strict, and reads the same in every Python."""

import json

import pytest

from codex_ml.core import io, strict_json
from codex_ml.core.errors import UserError


def test_json_is_written_with_sorted_keys_and_without_escapes(tmp_path):
    io.write_json(tmp_path / "a.json", {"b": 1, "a": ["ü", None, 0.1]})
    assert (
        tmp_path / "a.json"
    ).read_bytes() == '{\n  "a": [\n    "ü",\n    null,\n    0.1\n  ],\n  "b": 1\n}\n'.encode()
    assert io.read_json(tmp_path / "a.json") == {"a": ["ü", None, 0.1], "b": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [{"a": float("-inf")}]])
def test_what_is_not_a_json_number_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        io.write_json(tmp_path / "a.json", value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        io.write_ndjson(tmp_path / "a.ndjson", [{"good": 1}, value])
    assert list(tmp_path.iterdir()) == []


def test_keys_that_would_be_equal_as_text_are_not_written():
    with pytest.raises(TypeError):
        strict_json.dump_json({1: "a", "1": "b"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("NaN", "NaN is not JSON"),
        ("[Infinity]", "Infinity is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ("1e999", "the number 1e999 is too large for a double"),
        ("-1e999", "the number -1e999 is too large for a double"),
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' stands twice in one object"),
        ("[1,]", "Illegal trailing comma"),
        ("{'a': 1}", "Expecting property name"),
        ("01", "Extra data"),
        ("", "Expecting value"),
        ('"\x0b"', "Invalid control character"),
        ("{} {}", "Extra data"),
    ],
)
def test_what_is_not_strict_json_is_refused_by_name(tmp_path, text, why):
    with pytest.raises(ValueError, match=why.replace("(", r"\(")):
        strict_json.parse_json(text)
    io.write_text(tmp_path / "a.json", text)
    with pytest.raises(UserError) as error:
        io.read_json(tmp_path / "a.json")
    assert str(error.value).startswith(f"{tmp_path / 'a.json'} is not valid JSON: {why}")


@pytest.mark.parametrize("data", [b"\xff\xfe\xff", b'{"a": "\xe9"}'], ids=["utf-16", "latin-1"])
def test_json_in_another_encoding_is_refused_by_name(tmp_path, data):
    io.write_bytes(tmp_path / "a.json", data)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        io.read_json(tmp_path / "a.json")


def test_json_nested_too_deeply_is_refused_by_name(tmp_path):
    io.write_bytes(tmp_path / "a.json", b"[" * 200_000)
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        io.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [1, 199, 200, 201, 600, 1500, 5000])
def test_json_may_have_two_hundred_levels_in_every_python(opening, depth):
    """Python 3.11 parses about 900 levels, 3.13 some thousands; a record must not be read by the one alone."""
    text = opening * depth + "1" + {"[": "]", '{"a":': "}"}[opening] * depth
    if depth <= 200:
        strict_json.parse_json(text)
    else:
        with pytest.raises(ValueError, match="nested too deeply, more than 200 levels"):
            strict_json.parse_json(text)


def test_brackets_inside_texts_are_no_levels():
    for value in ("[" * 999, {"[" * 300: "{" * 300}, [[1]] * 500, "{"):
        assert strict_json.parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1,]", "Illegal trailing comma before end of array: line 1 column 3 (char 2)"),
        ('{"a": [1 ,\n ]}', "Illegal trailing comma before end of array: line 1 column 10 (char 9)"),
        ('{"a": 1,\n}', "Illegal trailing comma before end of object: line 1 column 8 (char 7)"),
        ("[1,}", "Expecting value: line 1 column 4 (char 3)"),
        ("[,]", "Expecting value: line 1 column 2 (char 1)"),
        ("[1,", "Expecting value: line 1 column 4 (char 3)"),
        ('{"a": 1,', "Expecting property name enclosed in double quotes: line 1 column 9 (char 8)"),
    ],
)
def test_json_errors_read_the_same_in_every_python(text, message):
    with pytest.raises(json.JSONDecodeError) as error:
        strict_json.parse_json(text)
    assert str(error.value) == message


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.json is missing$"):
        io.read_json(tmp_path / "a.json")


def test_ndjson_is_one_value_per_line_whatever_the_strings_hold(tmp_path):
    rows = [{"text": "a\nb\u2028c\u0085"}, [], "ü", 1.5]
    io.write_ndjson(tmp_path / "a.ndjson", iter(rows))
    lines = (tmp_path / "a.ndjson").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == rows


def test_ndjson_is_utf_8_even_for_a_lone_surrogate(tmp_path):
    """RFC 8259 section 8.1: JSON text is UTF-8, and other tools must be able to read our reports."""
    io.write_ndjson(tmp_path / "a.ndjson", [{"path": "name \udcff"}])
    (tmp_path / "a.ndjson").read_bytes().decode("utf-8")


def test_the_number_of_values_is_limited_and_the_marks_in_strings_do_not_count(monkeypatch):
    monkeypatch.setattr(strict_json, "VALUES", 10)
    assert strict_json.parse_json("[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]") == list(range(10))
    assert strict_json.parse_json(r'{"a": "[[[[[[[[[[,,,,,,,,,,\",,,,,,,,,,"}') == {
        "a": "[" * 10 + "," * 10 + '"' + "," * 10
    }
    for text in (
        "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]",
        "[" + "[]," * 9 + "[]]",
        '{"a": ["]", 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]}',
    ):
        with pytest.raises(ValueError, match="it holds more than"):
            strict_json.parse_json(text)


def test_counting_reads_a_string_that_does_not_end_once(monkeypatch):
    monkeypatch.setattr(strict_json, "VALUES", 10)
    with pytest.raises(json.JSONDecodeError, match="Unterminated string"):
        strict_json.parse_json('"' + '\\",' * 500_000)


def test_a_file_larger_than_its_limit_is_not_read(tmp_path):
    (tmp_path / "config.json").write_text("[" + "0," * 10 + "0]")
    with pytest.raises(UserError, match=r"config\.json has 23 bytes; at most 22 are read$"):
        io.read_json(tmp_path / "config.json", most=22)
    assert io.read_json(tmp_path / "config.json", most=23) == [0] * 11
