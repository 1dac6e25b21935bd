"""A record becomes a document in one of three forms, with every value as it was, or is refused by its number."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codex_ml.documents.document import Document, Refused, derived_id

sys.path.insert(0, str(Path(__file__).parent))
from helpers import ingest, read_lines, read_record, reasons, write

USER = {"role": "user", "content": "hi"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refusal(record, **options):
    """(reason, bad) of a record that is refused."""
    item = read_record(record, **options)
    assert isinstance(item, Refused), item
    assert (item.source, item.path, item.line) == ("in.jsonl", "in.jsonl", 1)
    return item.reason, item.bad


# --- forms


def test_a_text_is_a_document():
    document = read_record({"text": " a\n"})
    assert document == Document(
        source="in.jsonl", path="", id=derived_id("in.jsonl", "", " a\n"), group="", licence="unknown", language="text",
        text=" a\n", place="in.jsonl:1",
    )  # fmt: skip
    assert document.content == " a\n"


def test_a_prompt_and_its_completion_are_a_document():
    document = read_record({"prompt": "1 + 1 =", "completion": " 2"})
    assert (document.text, document.prompt, document.completion, document.messages) == (None, "1 + 1 =", " 2", None)
    assert document.content == "1 + 1 = 2" and document.id == derived_id("in.jsonl", "", "1 + 1 =\0 2")


def test_messages_are_a_document():
    document = read_record({"messages": [USER, {"role": "assistant", "content": "ho"}]})
    assert (document.text, document.prompt, document.tools) == (None, None, None)
    assert document.messages == '[{"role":"user","content":"hi"},{"role":"assistant","content":"ho"}]'
    assert document.content == "user: hi\nassistant: ho\n"


FORMS = "text, prompt + completion, or messages"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"text": "a", "prompt": "p"}, f"more than one of {FORMS}"),
        ({"text": "a", "completion": "c"}, f"more than one of {FORMS}"),
        ({"text": "a", "prompt": "p", "completion": "c"}, f"more than one of {FORMS}"),
        ({"text": "", "messages": [USER]}, f"more than one of {FORMS}"),
        ({"prompt": "p", "completion": "c", "messages": [USER]}, f"more than one of {FORMS}"),
        ({"prompt": "p"}, "prompt and completion go together; completion is missing or null"),
        ({"prompt": "p", "completion": None}, "prompt and completion go together; completion is missing or null"),
        ({"completion": "c"}, "prompt and completion go together; prompt is missing or null"),
        ({"text": None}, "text is null"),
        ({"prompt": None}, "prompt is null"),
        ({"messages": None}, "messages is null"),
        ({}, f"no {FORMS} in it, found nothing; see fields of ingest.sources"),
        ({"body": 1, "a": 2}, f"no {FORMS} in it, found a, body; see fields of ingest.sources"),
        ({"Text": "a"}, f"no {FORMS} in it, found Text; see fields of ingest.sources"),
        ({"tools": []}, f"no {FORMS} in it, found tools; see fields of ingest.sources"),
        ({"text": 7}, "text must be a text, found a number"),
        ({"text": 7.5}, "text must be a text, found a number"),
        ({"text": True}, "text must be a text, found a boolean"),
        ({"text": ["a"]}, "text must be a text, found a list"),
        ({"text": []}, "text must be a text, found an empty list"),
        ({"text": {}}, "text must be a text, found an object"),
        ({"prompt": "p", "completion": ["c"]}, "completion must be a text, found a list"),
        ({"prompt": [USER], "completion": "c"}, "prompt must be a text, found a list"),
        ({"messages": "hi"}, "messages must be a list of messages, found a text"),
        ({"messages": []}, "messages must be a list of messages, found an empty list"),
        ({"messages": {}}, "messages must be a list of messages, found an object"),
        ({"messages": ["hi"]}, "messages[0] must be an object with a role"),
        ({"messages": [USER, {"content": "a"}]}, "messages[1] must be an object with a role"),
        ({"messages": [{"role": 1, "content": "a"}]}, "messages[0] must be an object with a role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content must be a text, a list of parts or null, found a number"),
        ({"messages": [{"role": "user", "content": {}}]}, "messages[0].content must be a text, a list of parts or null, found an object"),
        ({"messages": [USER], "tools": {}}, "tools must be a list, found an object"),
        ({"messages": [USER], "tools": "t"}, "tools must be a list, found a text"),
        ({"text": "a", "licence": 1}, "licence must be a text, found a number"),
        ({"text": "a", "license": ["MIT"]}, "license must be a text, found a list"),
        ({"text": "a", "language": 1}, "language must be a text, found a number"),
    ],
)  # fmt: skip
def test_a_record_without_exactly_one_form_is_bad(record, reason):
    assert refusal(record) == (reason, True)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"text": ""}, "empty"),
        ({"text": " \n\t\u00a0\u2003"}, "empty"),
        ({"prompt": "", "completion": " "}, "empty"),
        ({"text": "a" * 1001}, "longer than 1000 bytes"),
        ({"prompt": "a" * 600, "completion": "b" * 401}, "longer than 1000 bytes"),
    ],
)
def test_an_empty_or_long_record_is_refused_and_not_bad(record, reason):
    assert refusal(record) == (reason, False)


def test_a_prompt_may_be_empty():
    document = read_record({"prompt": "", "completion": "c"})
    assert (document.prompt, document.completion) == ("", "c")


def test_a_null_field_of_another_form_is_not_a_second_form():
    document = read_record({"text": "a", "prompt": None, "completion": None})
    assert document.text == "a" and json.loads(document.meta) == {"prompt": None, "completion": None}


def test_the_reason_stays_short_whatever_the_names_of_the_fields():
    """The reason is counted, printed and written to reports, so it must not hold the content."""
    reason, _ = refusal({"x" * 100_000: 1}, max_bytes=1_000_000)
    assert len(reason) < 1000


# --- names of fields


FIELDS = {
    "text": "content", "prompt": "question", "completion": "answer", "messages": "conversation", "tools": "functions",
    "id": "key", "group": "repo", "licence": "terms", "language": "lang",
}  # fmt: skip


def test_fields_may_have_other_names():
    record = {
        "content": "a",
        "key": "k",
        "repo": "r",
        "terms": "MIT",
        "lang": "python",
        "text": 1,
        "id": [],
        "license": 2,
    }
    document = read_record(record, fields=FIELDS)
    found = (document.text, document.id, document.group, document.licence, document.language)
    assert found == ("a", "k", "r", "MIT", "python")
    assert json.loads(document.meta) == {"text": 1, "id": [], "license": 2}
    document = read_record({"question": "q", "answer": "a"}, fields=FIELDS)
    assert (document.prompt, document.completion, document.meta) == ("q", "a", "")
    document = read_record({"conversation": [USER], "functions": [1]}, fields=FIELDS)
    assert (json.loads(document.messages), document.tools, document.meta) == ([USER], "[1]", "")


def test_the_renamed_field_is_named_in_the_refusal():
    assert refusal({"content": 1}, fields=FIELDS) == ("content must be a text, found a number", True)
    wanted = "no content, question + answer, or conversation in it, found text; see fields of ingest.sources"
    assert refusal({"text": "a"}, fields=FIELDS) == (wanted, True)


# --- licence and language


@pytest.mark.parametrize(
    ("more", "licence", "meta"),
    [
        ({}, "Apache-2.0", {}),
        ({"licence": "MIT"}, "MIT", {}),
        ({"license": "MIT"}, "MIT", {}),
        ({"licence": ""}, "Apache-2.0", {}),
        ({"licence": None}, "Apache-2.0", {}),
        ({"licence": "MIT", "license": "GPL-3.0-only"}, "MIT AND GPL-3.0-only", {}),
        ({"license": "MIT", "licence": "GPL-3.0-only OR MIT"}, "(GPL-3.0-only OR MIT) AND MIT", {}),
        ({"licence": "MIT", "license": " mit"}, "MIT", {}),
        ({"licence": "", "license": "GPL-3.0-only"}, "GPL-3.0-only", {}),
        ({"licence": "GPL-3.0-only", "license": ""}, "GPL-3.0-only", {}),
        ({"licence": "MIT", "license": "all rights reserved"}, "unknown", {}),
        ({"licence": "MIT) OR (MIT", "license": "GPL-3.0-only"}, "unknown", {}),
        ({"licence": "our own", "license": "our own"}, "our own", {}),
        ({"licence": None, "license": "GPL-3.0-only"}, "GPL-3.0-only", {}),
        ({"License": "GPL-3.0-only"}, "GPL-3.0-only", {}),
        ({"LICENCE": "GPL-3.0-only", "license": "MIT"}, "GPL-3.0-only AND MIT", {}),
    ],
)
def test_the_licence_is_the_records_own_else_the_sources(more, licence, meta):
    document = read_record({"text": "a", **more}, licence="Apache-2.0")
    assert document.licence == licence
    assert json.loads(document.meta or "{}").get("license") == meta.get("license")


def test_without_a_name_the_licence_is_unknown_and_the_language_is_text():
    document = read_record({"text": "a", "language": ""})
    assert (document.licence, document.language) == ("unknown", "text")
    assert read_record({"text": "a", "language": "python"}).language == "python"


# --- ids and groups


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (7, "7"), ("7", "7"), (0, "0"), (-1, "-1"), ("07", "07"), (" ", " "), ("a/b é\u2028", "a/b é\u2028"),
        (2**64, "18446744073709551616"), (None, ""), ("", ""),
    ],
)  # fmt: skip
def test_an_integer_and_its_text_are_one_group_and_null_and_empty_are_none(value, name):
    document = read_record({"text": "a", "group": value})
    assert (document.group, document.meta) == (name, "")
    document = read_record({"text": "a", "id": value})
    assert document.id == (name or derived_id("in.jsonl", "", "a"))


@pytest.mark.parametrize("field", ["id", "group"])
@pytest.mark.parametrize(
    ("value", "found"),
    [(True, "a boolean"), (7.0, "a number"), ([7], "a list"), ([], "an empty list"), ({}, "an object")],
)
def test_an_id_or_a_group_of_another_type_is_bad(field, value, found):
    assert refusal({"text": "a", field: value}) == (f"{field} must be a text or an integer, found {found}", True)


def test_a_derived_id_depends_on_the_source_and_the_content_not_on_line_or_file():
    write("a.jsonl", '\n{"n": 1, "text": "a"}\n{"text": "a"}\n{"text": "b"}\n')
    write("b.jsonl", '{"text": "a"}\n')
    (first, second, third), _ = ingest("jsonl", "a.jsonl", name="mine")
    (fourth,), _ = ingest("jsonl", "b.jsonl", name="mine")
    (fifth,), _ = ingest("jsonl", "b.jsonl", name="yours")
    assert first.id == second.id == fourth.id == derived_id("mine", "", "a")
    assert len({first.id, third.id, fifth.id}) == 3


def test_a_text_and_messages_that_read_the_same_have_different_ids():
    assert read_record({"messages": [USER]}).id != read_record({"text": "user: hi\n"}).id
    assert read_record({"messages": [USER]}).id != read_record({"messages": [USER], "tools": [{}]}).id


# --- metadata


@pytest.mark.parametrize(
    "value",
    [
        1, 1.0, -0.0, 0.1, 1e300, 5e-324, 12345678901234567890123, True, False, None, "", "1", "null", "é\u2028\0", [], {},
        [1, "1", 1.0, None, [], {}], {"b": {"a": {}}, "a": [{}]}, [[0, 4, "Protein"]],
    ],
)  # fmt: skip
def test_metadata_is_kept_value_by_value_and_type_by_type(value):
    document = read_record({"text": "a", "value": value})
    found = json.loads(document.meta)["value"]
    assert (found, type(found), repr(found)) == (value, type(value), repr(value))


def test_metadata_keeps_its_order_and_types_that_change_from_line_to_line():
    data = (
        '{"z": 1, "text": "a", "a": "1"}\n{"text": "b", "z": "1", "a": {}}\n{"text": "c", "z": null}\n{"text": "d"}\n'
    )
    documents, refused = read_lines(data)
    assert [d.meta for d in documents] == ['{"z":1,"a":"1"}', '{"z":"1","a":{}}', '{"z":null}', ""] and refused == []


def test_the_row_numbers_that_pandas_stores_are_not_metadata():
    document = read_record({"text": "a", "__index_level_0__": 5, "__index_level_x__": 1, "path": "p", "source": "s"})
    assert json.loads(document.meta) == {"__index_level_x__": 1, "path": "p", "source": "s"}
    assert (document.path, document.source) == ("", "in.jsonl")


def test_tools_without_messages_are_metadata():
    document = read_record({"text": "a", "tools": [{"name": "t"}]})
    assert (document.tools, json.loads(document.meta)) == (None, {"tools": [{"name": "t"}]})


# --- chat

CHATS = [
    [{"role": "user", "content": None}],
    [{"role": "user"}],
    [{"role": "assistant", "content": ""}, {"role": "tool", "content": None, "name": "t", "tool_call_id": "1"}],
    [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": None, "b": []}}}]}],
    [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": null}'}}]}],
    [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "url": None}, "plain", 7]}],
    [{"z": 1, "role": "user", "content": "order", "a": {"y": 1, "b": 2}}],
]


@pytest.mark.parametrize("messages", CHATS)
@pytest.mark.parametrize("tools", [None, [], [{"name": "f", "parameters": {"a": {"type": None}}}, {"name": "g"}]])
def test_messages_and_tools_are_kept_as_they_are(messages, tools):
    record = {"messages": messages, "tools": tools}
    document = read_record(record)
    assert document.messages == json.dumps(messages, separators=(",", ":"))
    assert (None if document.tools is None else json.loads(document.tools)) == tools and document.meta == ""


def test_no_key_of_one_message_appears_in_another():
    documents, _ = read_lines("".join(json.dumps({"messages": messages}) + "\n" for messages in CHATS))
    assert [json.loads(d.messages) for d in documents] == CHATS


def test_the_content_of_parts_is_their_text():
    record = {
        "messages": [{"role": "user", "content": [{"text": "a"}, {"image": 1}, {"text": None}, {"text": "b"}, 7]}]
    }
    assert read_record(record).content == "user: ab\n"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), children, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(VALUES)
def test_any_json_value_comes_back_from_metadata(value):
    document = read_record({"text": "a", "value": value})
    assert document.meta == json.dumps({"value": value}, ensure_ascii=False, separators=(",", ":"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, VALUES)))
def test_any_record_is_a_document_or_is_refused(record):
    item = read_record(record)
    assert isinstance(item, Document) or (item.line == 1 and item.reason)


# --- one id twice


def test_the_reader_leaves_ids_to_ingest_which_sees_the_whole_file():
    documents, refused = read_lines('{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}\n')
    assert [d.id for d in documents] == ["1", "1"] and reasons(refused) == []
