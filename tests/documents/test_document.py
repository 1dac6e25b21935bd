"""Documents come back from Parquet unchanged; tests define which texts are equal, and which text a model reads."""

import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.core.errors import UserError
from codex_ml.documents import document as module
from codex_ml.documents.document import (
    Document,
    canonical,
    count_documents,
    derived_id,
    documents_of,
    map_texts,
    read_documents,
    table_of,
    writable,
    write_documents,
)


def document(text=None, path="a.py", **forms):
    return Document("source", path, "0" * 16, "", "MIT", "python", text, **forms)


@given(st.text(st.sampled_from("a\u00a0é \t\r\n\u2028"), max_size=12))
def test_the_canonical_text_is_its_own_canonical_text(text):
    once = canonical(text)
    assert canonical(once) == once
    assert "\r\n" not in once
    assert not any(line.endswith((" ", "\t", "\r")) for line in once.split("\n"))
    assert canonical(text.replace("\n", "\r\n")) == once
    assert canonical(text + " \r\n\n\t") == once


def test_texts_are_equal_over_line_ends_and_trailing_blanks_only():
    text = "a\n  b\nc"
    for same in ("a\r\n  b\r\nc", "a \n  b\t\nc\n\n", "a\n  b\nc \t", "a\r\r\n  b\nc"):
        assert canonical(same) == text
    for other in (
        "A\n  b\nc",
        "a\n b\nc",
        "a\n\n  b\nc",
        " a\n  b\nc",
        "a\r  b\nc",
        "a\n  b\nc\u00a0",
        "a\n  b\nc\u0301",
    ):
        assert canonical(other) == other != text


@pytest.mark.parametrize(
    ("forms", "content"),
    [
        ({"text": "t\n"}, "t\n"),
        ({"text": ""}, ""),
        ({"prompt": "p", "completion": "c"}, "pc"),
        ({"prompt": "p"}, "p"),
        ({"completion": "c"}, "c"),
        (
            {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
            "user: hi\nassistant: ho\n",
        ),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [1]}]}, "assistant: \n"),
        (
            {
                "messages": [
                    {"content": [{"type": "text", "text": "a"}, {"type": "image"}, "x", {"text": ["y", {"text": "b"}]}]}
                ]
            },
            ": a\n",
        ),
        ({"messages": [], "tools": [{"name": "f"}]}, ""),
    ],
)
def test_the_content_is_what_a_model_reads(forms, content):
    encoded = {key: json.dumps(value) if isinstance(value, list) else value for key, value in forms.items()}
    assert document(**encoded).content == content


def test_every_text_of_a_value_is_changed():
    value = {"a": ["b", 1, None, True, {"c": "d"}], "e": 2.5}
    assert map_texts(value, str.upper) == {"A": ["B", 1, None, True, {"C": "D"}], "E": 2.5}
    assert map_texts("x", str.upper) == "X"
    assert value["a"][0] == "b"


def test_a_derived_id_is_frozen_and_depends_on_source_path_and_content():
    # printf 'source\0a.py\0x' | sha256sum
    assert derived_id("source", "a.py", "x") == "84712146e7ec5b31"
    others = [("source2", "a.py", "x"), ("source", "b.py", "x"), ("source", "a.py", "y"), ("sourcea", ".py", "x")]
    assert len({derived_id(*other) for other in [("source", "a.py", "x"), *others]}) == 5
    assert len(derived_id("", "", "\ud800")) == 16


def test_a_name_of_any_bytes_can_be_written():
    assert writable(b"a\xff\xc3\xa4".decode("utf-8", "surrogateescape")) == "a\\xffä"


def test_documents_come_back_in_order_over_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROW_GROUP_BYTES", 10)
    monkeypatch.setattr(module, "ROWS_TOGETHER", 2)
    written = [
        document(text, str(i)) for i, text in enumerate(["ä" * 6, "b", "", "\r\n\u2028\0", "c" * 30, "\U0001f600"])
    ]
    assert write_documents(tmp_path / "d.parquet", iter(written)) == (6, 12 + 1 + 0 + 6 + 30 + 4)
    assert list(read_documents(tmp_path / "d.parquet")) == written
    assert count_documents(tmp_path / "d.parquet") == 6
    assert pq.ParquetFile(tmp_path / "d.parquet").num_row_groups == 3


def test_missing_and_empty_forms_stay_different(tmp_path):
    written = [
        document(""),
        document(prompt="", completion=None),
        document(prompt=None, completion=""),
        document(messages="[]", tools=None),
        document(messages="[]", tools="[]", meta='{"a": 1}'),
    ]
    write_documents(tmp_path / "d.parquet", written)
    assert list(read_documents(tmp_path / "d.parquet")) == written == list(documents_of(table_of(written)))


def test_equal_documents_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_documents(tmp_path / name, (document(str(i)) for i in range(100)))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_documents_make_a_file_without_rows(tmp_path):
    assert write_documents(tmp_path / "d.parquet", []) == (0, 0)
    assert list(read_documents(tmp_path / "d.parquet")) == []


def test_a_missing_or_damaged_file_is_reported(tmp_path):
    with pytest.raises(
        UserError, match=r"d\.parquet is missing; name a whole file of documents, such as data/splits/val\.parquet$"
    ):
        list(read_documents(tmp_path / "d.parquet"))
    write_documents(tmp_path / "d.parquet", (document(f"text {i}" * 50, str(i)) for i in range(200)))
    whole = (tmp_path / "d.parquet").read_bytes()
    damaged = [
        b"",
        whole[:-1],
        whole[: len(whole) // 2],
        b"not parquet at all",
        whole[:100] + b"\xff" * 300 + whole[400:],
    ]
    for data in damaged:
        (tmp_path / "d.parquet").write_bytes(data)
        with pytest.raises(UserError, match=r"d\.parquet is damaged \(.*\); name a whole file of documents"):
            list(read_documents(tmp_path / "d.parquet"))
