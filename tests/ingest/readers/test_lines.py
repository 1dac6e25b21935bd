"""JSON Lines: only LF separates lines, a record is strict JSON, and a bad line does not affect other lines."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codex_ml.documents.document import Document, derived_id

sys.path.insert(0, str(Path(__file__).parent))
from helpers import LIMIT, cut_lines, ingest, line_of, read_lines, reasons, tasks, texts, write

BOM = b"\xef\xbb\xbf"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def row(text, **more):
    return json.dumps({"text": text, **more}, ensure_ascii=False) + "\n"


# --- what separates lines


@pytest.mark.parametrize(
    "character", ["\u2028", "\u2029", "\u0085", "\x7f", "\u200b", "\ufeff", "\u00a0", "\U0001f600", "\ue000", "\uffff"]
)
def test_only_a_line_feed_ends_a_line_and_the_text_keeps_every_other_character(character):
    documents, refused = read_lines(row(f"a{character}b") + row("next"))
    assert texts(documents) == [f"a{character}b", "next"]
    assert [line_of(d) for d in documents] == [1, 2] and refused == []


@pytest.mark.parametrize("code", [*range(0x0A), *range(0x0B, 0x20)])
def test_a_raw_control_character_in_a_string_is_refused_and_the_next_line_is_read(code):
    documents, refused = read_lines(b'{"text": "a' + bytes([code]) + b'b"}\n{"text": "next"}\n')
    assert texts(documents) == ["next"]
    ((line, reason),) = reasons(refused)
    assert line == 1 and reason.startswith("not JSON: Invalid control character at")


@pytest.mark.parametrize("code", [*range(1, 0x20)])
def test_an_escaped_control_character_is_content(code):
    documents, _ = read_lines(b'{"text": "a\\u%04xb"}\n' % code)
    assert texts(documents) == [f"a{chr(code)}b"]


def test_carriage_returns_at_line_ends_are_not_content():
    documents, refused = read_lines('{"text": "a\\r\\n"}\r\n\r\n{"text": "b"}\r\n')
    assert [(line_of(d), d.text) for d in documents] == [(1, "a\r\n"), (3, "b")] and refused == []


def test_lines_that_end_in_a_lone_carriage_return_are_one_line():
    documents, refused = read_lines('{"text": "a"}\r{"text": "b"}\r')
    assert documents == [] and reasons(refused) == [(1, "not JSON: Extra data at character 15")]


def test_the_last_line_needs_no_line_end():
    assert texts(read_lines('{"text": "a"}\n{"text": "b"}')[0]) == ["a", "b"]


def test_blank_lines_are_counted_but_are_nothing():
    documents, refused = read_lines('\n  \n{"text": "a"}\n\t\r\n\n{"text": "b"}\n\n')
    assert [(line_of(d), d.text) for d in documents] == [(3, "a"), (6, "b")] and refused == []


@pytest.mark.parametrize("data", [b"", b"\n", b" \t\r\n\n", BOM, BOM + b"\n"])
def test_a_file_without_a_record_is_reported_and_is_not_bad(data):
    documents, (item,) = read_lines(data)
    assert documents == []
    assert (item.path, item.line, item.reason, item.bad) == ("in.jsonl", None, "has no records", False)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a"}{"text": "b"}', "not JSON: Extra data at character 14"),
        ('{"text": "a"} {"text": "b"}', "not JSON: Extra data at character 15"),
        ('{"text": "a"}, ', "not JSON: Extra data at character 14"),
        ('["text"]', "expected an object, found list"),
        ('"text"', "expected an object, found str"),
        ("7", "expected an object, found int"),
        ("null", "expected an object, found NoneType"),
        ("true", "expected an object, found bool"),
    ],
)
def test_a_line_that_is_not_a_single_object_is_refused_by_number(line, reason):
    documents, refused = read_lines(row("a") + line + "\n" + row("b"))
    assert texts(documents) == ["a", "b"] and reasons(refused) == [(2, reason)]


# --- files of another format: one sentence, not an error a line


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_array_is_refused_once_with_what_to_do(indent):
    documents, refused = read_lines(json.dumps([{"text": "a"}, {"text": "b"}], indent=indent))
    assert documents == []
    assert reasons(refused) == [(1, "a JSON array; JSON Lines has one object a line (jq -c '.[]' makes it)")]


def test_a_pretty_printed_object_is_refused_once_with_what_to_do():
    documents, refused = read_lines(json.dumps({"text": "a", "n": [1, 2]}, indent=2))
    assert documents == []
    assert reasons(refused) == [
        (1, "one JSON value over several lines; JSON Lines has one object a line (jq -c . makes it)")
    ]


@pytest.mark.parametrize(
    "data",
    [
        json.dumps({"text": "a", "n": list(range(600_000))}, indent=1),  # longer than a block
        json.dumps({"text": "a"}, indent=2) * 3,
        '{"text": "a",\n"n": 1}\n' * 2,
    ],
    ids=["long", "several", "two lines each"],
)
def test_records_over_several_lines_are_refused_once(data):
    documents, refused = read_lines(data)
    assert documents == []
    assert reasons(refused) == [
        (1, "one JSON value over several lines; JSON Lines has one object a line (jq -c . makes it)")
    ]


def test_a_first_record_that_was_cut_short_refuses_only_itself():
    documents, refused = read_lines('{"text": "a",\n' + row("b") + row("c"))
    assert texts(documents) == ["b", "c"]
    assert [line for line, _ in reasons(refused)] == [1]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_wide_encodings_are_named_once(encoding):
    documents, refused = read_lines((row("a") * 3).encode(encoding))
    assert documents == []
    assert reasons(refused) == [(1, "looks like UTF-16 (or binary); JSON Lines are UTF-8 (RFC 8259 section 8.1)")]


# --- UTF-8


def test_a_byte_order_mark_at_the_start_is_dropped():
    documents, refused = read_lines(BOM + row("a").encode() + row("b").encode())
    assert texts(documents) == ["a", "b"] and refused == []


def test_a_byte_order_mark_in_front_of_a_later_record_is_refused_by_number():
    documents, refused = read_lines(row("a").encode() + BOM + row("b").encode() + row("c").encode())
    assert texts(documents) == ["a", "c"]
    assert reasons(refused) == [(2, "a byte order mark (U+FEFF) in front of the record; files were joined")]


def test_a_second_byte_order_mark_at_the_start_is_refused():
    documents, refused = read_lines(BOM + BOM + row("a").encode() + row("b").encode())
    assert texts(documents) == ["b"] and [line for line, _ in reasons(refused)] == [1]


def test_a_byte_order_mark_inside_a_text_is_content():
    documents, _ = read_lines(BOM + row("\ufeffa\ufeffb\ufeff").encode())
    assert texts(documents) == ["\ufeffa\ufeffb\ufeff"]


@pytest.mark.parametrize(
    ("bad", "byte", "offset"),
    [
        (b"\x92", "92", 10),
        (b"\xe9", "E9", 10),
        (b"\xff", "FF", 10),
        (b"\xc0\x80", "C0", 10),  # an overlong NUL
        (b"\xed\xa0\x80", "ED", 10),  # a surrogate
        (b"\xf4\x90\x80\x80", "F4", 10),  # above U+10FFFF
        (b"ab\xe2\x82", "E2", 12),  # cut short
    ],
)
def test_a_byte_that_is_not_utf8_refuses_only_its_line(bad, byte, offset):
    documents, refused = read_lines(row("é").encode() + b'{"text": "' + bad + b'"}\n' + row("last").encode())
    assert texts(documents) == ["é", "last"]
    assert reasons(refused) == [(2, f"byte 0x{byte} at offset {offset} of the line is not UTF-8")]


# --- strict JSON


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("NaN", "not JSON: NaN is not JSON (RFC 8259 section 6)"),
        ("Infinity", "not JSON: Infinity is not JSON (RFC 8259 section 6)"),
        ("-Infinity", "not JSON: -Infinity is not JSON (RFC 8259 section 6)"),
        ("[[{}, {\"a\": NaN}]]", "not JSON: NaN is not JSON (RFC 8259 section 6)"),
        ("1e999", "not JSON: the number 1e999 is too large for a double"),
        ("-1E400", "not JSON: the number -1E400 is too large for a double"),
        ("01", "not JSON: Expecting ',' delimiter at character 20"),
        ("1.", "not JSON: Expecting ',' delimiter at character 20"),
        (".5", "not JSON: Expecting value at character 19"),
        ("+1", "not JSON: Expecting value at character 19"),
        ("0x10", "not JSON: Expecting ',' delimiter at character 20"),
        ("'a'", "not JSON: Expecting value at character 19"),
        ("None", "not JSON: Expecting value at character 19"),
        ("undefined", "not JSON: Expecting value at character 19"),
        ("\"\\x41\"", "not JSON: Invalid \\escape at character 20"),
        ("\"\\u12\"", "not JSON: Invalid \\uXXXX escape at character 21"),
        ("1 /* one */", "not JSON: Expecting ',' delimiter at character 21"),
        ("{\"b\": 1, \"b\": 1}", "not JSON: the key 'b' stands twice in one object"),
        ("1, \"text\": \"b\"", "not JSON: the key 'text' stands twice in one object"),
        ("1" * 4301, None),
        ("[" * 5000 + "]" * 5000, "not JSON: nested too deeply, more than 200 levels"),
    ],
)  # fmt: skip
def test_what_rfc_8259_forbids_refuses_only_its_line(value, reason):
    documents, refused = read_lines(f'{{"text": "a","n": {value}}}\n' + row("next"), max_bytes=10_000)
    assert texts(documents) == ["next"]
    ((line, found),) = reasons(refused)
    assert line == 1
    assert found == reason if reason else found.startswith("not JSON: ")


@pytest.mark.parametrize(
    "line", ['{"text": "a",}', "{'text': 'a'}", '{text: "a"}', '{"text": "a"', '{"text": "a', "{", "}"]
)
def test_almost_json_is_refused(line):
    documents, refused = read_lines(row("first") + line + "\n" + row("last"))
    assert texts(documents) == ["first", "last"]
    ((number, reason),) = reasons(refused)
    assert number == 2 and reason.startswith("not JSON: ")


def test_texts_that_look_like_values_stay_texts():
    values = ["NaN", "null", "Infinity", "7", "true", "[]", "{}", "1e999"]
    assert texts(read_lines("".join(map(row, values)))[0]) == values


def test_a_huge_integer_is_kept_to_the_last_digit():
    number = int("1234567890" * 400)
    documents, _ = read_lines(row("a", n=number, small=-(2**63) - 1), max_bytes=10_000)
    assert json.loads(documents[0].meta) == {"n": number, "small": -(2**63) - 1}


def test_a_pair_of_surrogates_is_its_character():
    assert texts(read_lines('{"text": "\\ud83d\\ude00"}')[0]) == ["😀"]


@pytest.mark.parametrize("field", ["text", "id", "group", "licence", "language", "other"])
@pytest.mark.parametrize("escape", ["\\ud800", "\\udfff", "\\ude00\\ud83d"])
def test_a_lone_surrogate_in_any_field_is_refused(field, escape):
    record = {"text": "a", field: "X"}
    documents, refused = read_lines(json.dumps(record).replace("X", escape) + "\n" + row("next"))
    assert texts(documents) == ["next"]
    assert reasons(refused) == [(1, f"a lone surrogate (U+{escape[2:6].upper()}) is not text")]


def test_a_lone_surrogate_in_a_name_of_metadata_is_refused():
    assert reasons(read_lines('{"text": "a", "k\\udc80": 1}')[1]) == [(1, "a lone surrogate (U+DC80) is not text")]


def test_a_lone_surrogate_in_messages_is_refused():
    data = '{"messages": [{"role": "user", "content": "\\ud800"}]}'
    assert reasons(read_lines(data)[1]) == [(1, "a lone surrogate (U+D800) is not text")]


@pytest.mark.parametrize("field", ["text", "prompt", "completion"])
def test_nul_characters_are_refused(field):
    record = {"text": "a\0"} if field == "text" else {"prompt": "a", "completion": "b", field: "\0"}
    assert reasons(read_lines(json.dumps(record))[1]) == [(1, "NUL characters, not text")]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "a\0b"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "\0"}]}]},
        {"messages": [{"role": "user", "content": "a"}], "tools": [{"name": "\0"}]},
    ],
)
def test_nul_characters_in_messages_and_tools_are_refused(record):
    assert reasons(read_lines(json.dumps(record))[1]) == [(1, "NUL characters, not text")]


def test_the_text_backslash_u0000_is_not_nul():
    record = {"messages": [{"role": "user", "content": "print('\\u0000')"}]}
    documents, refused = read_lines(json.dumps(record))
    assert json.loads(documents[0].messages) == record["messages"] and refused == []


@pytest.mark.parametrize("depth", [100, 200, 330, 400, 490, 700, *range(880, 1000), 3000])
def test_any_depth_of_nesting_is_read_or_refused(depth):
    nested = "[" * depth + "]" * depth
    documents, refused = read_lines(f'{{"text": "a", "m": {nested}}}\n' + row("next"), max_bytes=10_000)
    assert texts(documents)[-1] == "next" and len(documents) + len(refused) == 2


@pytest.mark.parametrize("depth", [50, 150, 250, 330, 350, 400, 450, 480, 1000])
def test_any_depth_of_parts_in_messages_is_read_or_refused(depth):
    content = '[{"text":' * depth + '"a"' + "}]" * depth
    line = f'{{"messages": [{{"role": "user", "content": {content}}}]}}\n'
    documents, refused = read_lines(line + row("next"), max_bytes=100_000)
    assert texts(documents)[-1] == "next" and len(documents) + len(refused) == 2


# --- lengths and blocks


def test_a_line_longer_than_the_limit_is_skipped_with_its_number_and_the_next_is_read():
    data = row("a") + row("b" * LIMIT) + "\n" + row("c")
    documents, refused = read_lines(data)
    assert [(line_of(d), d.text) for d in documents] == [(1, "a"), (4, "c")]
    assert reasons(refused) == [(2, f"the line is longer than {LIMIT} bytes")] and refused[0].bad


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_line_longer_than_several_blocks_is_refused_once(end):
    documents, refused = read_lines(
        row("a") + row("b" * (9 << 20)) + row("c") + row("d" * (9 << 20)).rstrip("\n") + end
    )
    assert [(line_of(d), d.text) for d in documents] == [(1, "a"), (3, "c")]
    assert reasons(refused) == [(n, f"the line is longer than {LIMIT} bytes") for n in (2, 4)]


def test_the_limit_of_a_line_is_eight_documents():
    blank = " " * 16_000_000
    documents, refused = read_lines(row("a").rstrip("\n") + blank + "\n" + row("b"), max_bytes=3_000_000)
    assert texts(documents) == ["a", "b"] and refused == []


def test_a_record_is_at_most_so_many_bytes():
    documents, refused = read_lines(row("é" * 500) + row("é" * 500 + "a"))
    assert texts(documents) == ["é" * 500]
    assert reasons(refused) == [(2, "longer than 1000 bytes")] and not refused[0].bad


CUT = (
    '{"text": "é\u2028"}\r\n\n{"text": "no"\n  \n{"id": 7, "text": "b\U0001f600"}{"text": "c"}\n["x"]\n'
    + '{"text": "' + "l" * 60 + '"}\n{"prompt": "p", "completion": "q"}\n{"text": "last"}'
)  # fmt: skip


def test_blocks_cut_at_every_place_give_the_same_documents():
    data = CUT.encode()
    whole = cut_lines([data], limit=60)
    assert [line_of(item) for item in whole if isinstance(item, Document)] == [1, 8, 9]
    assert sorted(item.line for item in whole if not isinstance(item, Document)) == [3, 5, 6, 7]
    for place in range(1, len(data)):
        found = cut_lines([data[:place], data[place:]], limit=60)
        assert sorted(found, key=str) == sorted(whole, key=str), place


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 16, 64, 100])
@pytest.mark.parametrize("limit", [20, 60, LIMIT])
def test_blocks_of_any_size_give_the_same_documents(size, limit):
    data = CUT.encode()
    found = cut_lines((data[at : at + size] for at in range(0, len(data), size)), limit=limit)
    assert sorted(found, key=str) == sorted(cut_lines([data], limit=limit), key=str)


@pytest.mark.parametrize("place", range(1, 8))
def test_a_byte_order_mark_may_be_cut_too(place):
    data = BOM + row("a").encode()
    assert [item.text for item in cut_lines([data[:place], data[place:]])] == ["a"]


def test_the_bytes_of_the_tasks_are_those_of_the_file():
    data = "".join(row("x" * 900, n=n) for n in range(10_000))
    path = write("in.jsonl", data)
    found = list(tasks("jsonl", "in.jsonl"))
    assert len(found) > 1 and sum(task.bytes for task in found) == path.stat().st_size
    documents, _ = ingest("jsonl", "in.jsonl")
    assert [line_of(d) for d in documents] == list(range(1, 10_001))


MEMORY = """
import sys, tracemalloc
sys.path.insert(0, sys.argv[1])
from helpers import tasks
from codex_ml.ingest import corpus
from codex_ml.ingest import sources as ingest
from codex_ml.ingest.readers import compression
from codex_ml.ingest.readers import json_lines as lines
with open("in.jsonl", "wb") as file:
    file.write(b'{"text": "first"}\\n{"text": "')
    file.seek(200 << 20)
    file.write(b'"}\\n{"text": "last"}\\n')
tracemalloc.start()
for task in tasks("jsonl", "in.jsonl", max_bytes=1_000_000):
    for item in task.read():
        print(getattr(item, "text", None) or (item.line, item.reason))
print(tracemalloc.get_traced_memory()[1])
"""


def test_a_line_of_200_mb_takes_little_memory(tmp_path, run_python):
    done = run_python("-c", MEMORY, str(Path(__file__).parent), cwd=tmp_path)
    *found, peak = done.stdout.splitlines()
    assert found == ["first", "(2, 'the line is longer than 8000000 bytes')", "last"], done.stderr
    assert int(peak) < 64 << 20


def test_five_thousand_keys_and_one_of_them_twice_are_refused():
    keys = ",".join(f'"k{number}":0' for number in range(5_000))
    assert reasons(read_lines(f'{{"text":"a",{keys},"k4999":0}}\n', max_bytes=1_000_000)[1]) == [
        (1, "not JSON: the key 'k4999' stands twice in one object")
    ]


# --- every list of texts survives

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40).filter(str.strip)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(ANY_TEXT, max_size=8), st.booleans(), st.sampled_from(["\n", "\r\n", "\n\n", " \n"]))
def test_texts_written_as_json_lines_come_back_with_the_same_ids(values, ascii_only, end):
    data = "".join(json.dumps({"text": value}, ensure_ascii=ascii_only) + end for value in values)
    documents, refused = read_lines(data)
    assert texts(documents) == values
    assert [d.id for d in documents] == [derived_id("in.jsonl", "", value) for value in values]
    assert [item.reason for item in refused] == ([] if values else ["has no records"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200), st.integers(1, 200))
def test_any_bytes_are_read_or_refused_and_never_an_error(data, size):
    found = cut_lines((data[at : at + size] for at in range(0, len(data), size)), limit=50)
    assert all(item.place if isinstance(item, Document) else item.reason for item in found)
