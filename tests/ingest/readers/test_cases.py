"""Inputs by which other tools lost data, in forms of our own: planned, read by a worker, and the whole stage once."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codex_ml.documents.document import count_documents, read_documents

sys.path.insert(0, str(Path(__file__).parent))
from helpers import ingest, line_of, read_lines, reasons, texts, write

BOM = b"\xef\xbb\xbf"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def found(documents):
    return [(line_of(d), d.id, d.text) for d in documents]


def lines(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def test_c001_what_str_splitlines_takes_for_a_line_end_is_content():
    data = (
        '{"id": "one", "text": "left\u2028right"}\n{"id": "two", "text": "a\u0085b\u2029c"}\n'
        '{"id": "three", "text": "a\\u2028b"}\n{"id": "four", "text": "a\\u000b\\u000c\\u001cb"}\n'
        '{"id": "five", "text": "raw\x0c"}\n{"id": "six", "text": "dos"}\r\n{"id": "seven", "text": "end"}'
    )
    documents, refused = read_lines(data)
    assert found(documents) == [
        (1, "one", "left\u2028right"), (2, "two", "a\u0085b\u2029c"), (3, "three", "a\u2028b"), (4, "four", "a\x0b\x0c\x1cb"),
        (6, "six", "dos"), (7, "seven", "end"),
    ]  # fmt: skip
    assert reasons(refused) == [(5, "not JSON: Invalid control character at character 28")]


def test_c003_what_json_forbids_is_refused_and_what_looks_like_it_is_kept():
    data = [
        '{"text": "NaN"}', '{"text": NaN}', '{"text": "a", "x": [Infinity]}', '{"text": "null"}', '{"text": null}',
        '{"text": "a", "x": 1e999}', '{"text": "a", }', "{'text': 'a'}", '{"text": "a"} # why', '{"text": "a", "x": 007}',
        '{"text": "-Infinity"}',
    ]  # fmt: skip
    documents, refused = read_lines("\n".join(data))
    assert [(line_of(d), d.text) for d in documents] == [(1, "NaN"), (4, "null"), (11, "-Infinity")]
    assert [item.line for item in refused] == [2, 3, 5, 6, 7, 8, 9, 10]


def test_c004_types_that_change_from_row_to_row_stay_what_they_are():
    labels = [1, "one", "1", {"a": {}}, None, [1, "x"], True, 1.5]
    rows = [{"id": str(n), "text": f"row {n}", "label": label} for n, label in enumerate(labels)]
    documents, refused = read_lines(lines(*rows, {"text": 5}, {"text": ["a"]}, {"text": "no label"}))
    assert [json.loads(d.meta)["label"] for d in documents[:-1]] == labels
    assert [type(json.loads(d.meta)["label"]) for d in documents[:-1]] == [type(label) for label in labels]
    assert documents[-1].meta == ""
    assert reasons(refused) == [(9, "text must be a text, found a number"), (10, "text must be a text, found a list")]


def test_c004_a_text_after_thousands_of_nulls_is_a_text():
    data = lines(*({"text": f"t{n}", "note": None} for n in range(4000)), {"text": "last", "note": "late"})
    documents, refused = read_lines(data)
    assert len(documents) == 4001 and refused == []
    assert [d.meta for d in documents[-2:]] == ['{"note":null}', '{"note":"late"}']


def test_c008_a_byte_order_mark_is_dropped_at_a_start_and_kept_inside():
    rows = lines({"id": 1, "text": "a"}, {"id": 2, "text": "b\ufeffc"}).encode()
    write("in/start.jsonl", BOM + rows)
    write("in/joined.jsonl", BOM + rows + BOM + rows)
    write("in/only.jsonl", BOM)
    documents, refused = ingest("jsonl")
    assert [d.text for d in documents] == ["a", "b\ufeffc", "b\ufeffc", "a", "b\ufeffc"]
    assert [(item.path, item.line, item.bad) for item in refused] == [
        ("in/joined.jsonl", 3, True), ("in/only.jsonl", None, False),
    ]  # fmt: skip
    write("mark.csv", BOM + "id,text\n9,été\n".encode())
    assert found(ingest("csv", "mark.csv")[0]) == [(2, "9", "été")]
    write("mark.txt", BOM + b"plain\n")
    assert ingest("files", "mark.txt")[0][0].text == "plain\n"


def test_c009_another_encoding_is_decoded_by_its_mark_or_named():
    write("cp.jsonl", b'{"text": "ok"}\n{"text": "it\x92s"}\n{"text": "\xc3\xa9"}\n')
    documents, refused = ingest("jsonl", "cp.jsonl")
    assert texts(documents) == ["ok", "é"]
    assert reasons(refused) == [(2, "byte 0x92 at offset 12 of the line is not UTF-8")]
    write("in/le.txt", b"\xff\xfe" + "γ\nδ\n".encode("utf-16-le"))
    write("in/none.txt", "γ\nδ\n".encode("utf-16-le"))
    write("in/latin.txt", b"na\xefve\n")
    documents, refused = ingest("files", glob="*.txt")
    assert {d.path: d.text for d in documents} == {"le.txt": "γ\nδ\n"}
    assert {item.path: item.reason for item in refused} == {
        "latin.txt": "byte 0xEF at offset 2 is not UTF-8",
        "none.txt": "NUL bytes, not UTF-8 text (UTF-16 without a byte order mark, or binary)",
    }
    write("wide.jsonl", lines({"text": "γ"}).encode("utf-16"))
    ((_, reason),) = reasons(ingest("jsonl", "wide.jsonl")[1])
    assert "UTF-16" in reason
    assert not any(character in (d.text or "") for d in documents for character in "\0\ufffd")


def test_c010_shards_without_a_last_line_end_do_not_fuse():
    write("in/1.jsonl", '{"text": "a"}\n{"text": "b"}')
    write("in/2.jsonl", '{"text": "c"}')
    assert texts(ingest("jsonl")[0]) == ["a", "b", "c"]


def test_c010_two_values_on_a_line_and_other_layouts_are_reported_once():
    documents, refused = read_lines('{"text": "a"}\n{"text": "b"}{"text": "c"}\n\n \n{"text": "d"}\n')
    assert [(line_of(d), d.text) for d in documents] == [(1, "a"), (5, "d")]
    assert reasons(refused) == [(2, "not JSON: Extra data at character 14")]
    for value in ([{"text": "a"}, {"text": "b"}], {"text": "a"}):
        documents, refused = read_lines(json.dumps(value, indent=4))
        assert documents == [] and len(refused) == 1 and refused[0].line == 1


CALLS = [
    {
        "messages": [
            {"role": "user", "content": "time?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"name": "clock", "arguments": {"z": "UTC"}}}],
            },
            {"role": "tool", "tool_call_id": "x", "content": "noon"},
        ],
        "tools": [{"name": "clock", "parameters": {"z": {"type": "string"}}}, {"name": "dice"}],
    },
    {
        "messages": [
            {"role": "assistant", "tool_calls": [{"function": {"name": "dice", "arguments": '{"sides": null}'}}]}
        ]
    },
    {
        "messages": [{"role": "assistant", "content": "", "tool_calls": []}, {"role": "user", "content": "?"}],
        "tools": [],
    },
    {
        "messages": [{"role": "user", "content": "a"}],
        "tools": [{"name": "dice", "parameters": {"sides": {"default": None}}}],
    },
]


def test_c012_messages_and_tools_are_equal_as_json_values():
    documents, refused = read_lines(lines(*CALLS), max_bytes=10_000)
    assert refused == []
    for record, document in zip(CALLS, documents, strict=True):
        assert json.loads(document.messages) == record["messages"]
        assert (None if document.tools is None else json.loads(document.tools)) == record.get("tools")


def test_c014_gzip_members_are_all_read_and_a_broken_file_gives_nothing():
    one, two = (gzip.compress(lines({"text": name}).encode()) for name in ("one", "two"))
    write("in/members.jsonl.gz", one + two)
    write("in/padded.jsonl.gz", one + b"\0" * 1000)
    write("in/cut.jsonl.gz", one + two[:-5])
    write("in/crc.jsonl.gz", one + two[:-8] + b"\0\0\0\0" + two[-4:])
    write("in/plain.jsonl.gz", lines({"text": "plain"}))
    documents, refused = ingest("jsonl")
    assert [(d.place, d.text) for d in documents] == [
        ("in/members.jsonl.gz:1", "one"), ("in/members.jsonl.gz:2", "two"), ("in/padded.jsonl.gz:1", "one"),
    ]  # fmt: skip
    assert [item.path for item in refused] == ["in/crc.jsonl.gz", "in/cut.jsonl.gz", "in/plain.jsonl.gz"]


def test_c016_notebooks_of_both_formats_give_the_same_code():
    code = ["import sys\nsys.exit", "!ls\n%%time\nx = '''\n'''\n"]
    png = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo" * 9}}
    other = [
        {"cell_type": "markdown", "source": "# prose"},
        {"cell_type": "raw", "source": "raw"},
        {"cell_type": "code", "source": []},
    ]
    for name, split in (("list", lambda text: text.splitlines(keepends=True)), ("string", lambda text: text)):
        cells = [{"cell_type": "code", "source": split(text), "outputs": [png]} for text in code]
        write(f"in/{name}.ipynb", json.dumps({"nbformat": 4, "cells": [other[0], cells[0], *other[1:], cells[1]]}))
    cells = [{"cell_type": "code", "input": text.splitlines(keepends=True), "outputs": [png]} for text in code]
    sheets = [{"cells": [cells[0], {"cell_type": "heading", "level": 1, "source": "h"}]}, {"cells": [cells[1]]}]
    write("in/sheets.ipynb", json.dumps({"nbformat": 3, "worksheets": sheets}))
    write("in/cut.ipynb", json.dumps({"nbformat": 4, "cells": []})[:-3])
    documents, refused = ingest("files", glob="*.ipynb", max_bytes=10_000)
    assert {d.path: d.text for d in documents} == dict.fromkeys(
        ("list.ipynb", "string.ipynb", "sheets.ipynb"), f"{code[0]}\n\n{code[1]}"
    )
    assert [(item.path, item.line, item.reason) for item in refused] == [("cut.ipynb", 1, "not JSON (line 1)")]


def parquet(name, table, **options):
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return write(name, file.getvalue())


def test_c018_a_text_is_the_same_however_it_is_stored():
    pytest.importorskip("codex_ml.ingest.readers.parquet")
    values, ids = ["gamma", "δ\n", "gamma"], ["x", "y", "z"]
    table = pa.table({"id": ids, "text": values})
    parquet("in/1.parquet", table)
    for number, kind in enumerate((pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()), 2):
        parquet(f"in/{number}.parquet", table.set_column(1, "text", pa.array(values, pa.string()).cast(kind)))
    parquet("in/5.parquet", table, row_group_size=1)
    parquet("in/6.parquet", table.append_column("__index_level_0__", pa.array([4, 5, 6])))
    documents, refused = ingest("parquet")
    assert [(d.id, d.text, d.meta) for d in documents] == [(i, t, "") for i, t in zip(ids, values, strict=True)] * 6
    assert [line_of(d) for d in documents] == [0, 1, 2] * 6 and refused == []


def test_c018_broken_and_foreign_parquet_files_are_refused_by_file_or_row():
    pytest.importorskip("codex_ml.ingest.readers.parquet")
    whole = parquet("in/null.parquet", pa.table({"text": ["a", None]})).read_bytes()
    parquet("in/int.parquet", pa.table({"text": [1]}))
    parquet("in/none.parquet", pa.table({"text": pa.array([], pa.string())}))
    write("in/cut.parquet", whole[: len(whole) // 2])
    write("in/empty.parquet", b"")
    documents, refused = ingest("parquet")
    assert texts(documents) == ["a"]
    assert [(item.path, item.line, item.bad) for item in refused] == [
        ("in/cut.parquet", None, True), ("in/empty.parquet", None, True), ("in/int.parquet", None, True),
        ("in/none.parquet", None, False), ("in/null.parquet", 1, True),
    ]  # fmt: skip


def test_c030_records_without_a_key_form_no_group_and_7_equals_its_text():
    keys = ["owner/a", "owner/a", None, "", 8, "8", ["x"], 8.0]
    rows = [{"id": n, "text": f"t{n}", "repository": key} for n, key in enumerate(keys)]
    documents, refused = read_lines(lines(*rows, {"id": 9, "text": "t9"}), fields={"group": "repository"})
    assert [(d.id, d.group) for d in documents] == [
        ("0", "owner/a"), ("1", "owner/a"), ("2", ""), ("3", ""), ("4", "8"), ("5", "8"), ("9", ""),
    ]  # fmt: skip
    assert reasons(refused) == [
        (7, "repository must be a text or an integer, found a list"),
        (8, "repository must be a text or an integer, found a number"),
    ]


# --- the stage


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, repository):
    """A copy of what `ingest` needs."""
    root = tmp_path_factory.mktemp("stage") / "work space"
    for name in ("src", "stages"):
        shutil.copytree(repository / name, root / name)
    shutil.copyfile(repository / "dvc.yaml", root / "dvc.yaml")
    shutil.copyfile(repository / "pyproject.toml", root / "pyproject.toml")
    return root


@pytest.fixture
def stage(checkout, project):
    """Runs stages/ingest.py on sources, as DVC does."""

    def run(*sources):
        params = {"ingest": {"sources": sources, "max_document_bytes": 1000}, "runtime": {"workers": 1}}
        (checkout / "params.yaml").write_text(json.dumps(params), encoding="utf-8")  # JSON is YAML
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "CODEX_ML_"))}
        return subprocess.run(
            [sys.executable, "stages/ingest.py"], cwd=checkout, env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip

    for name in ("data", "reports"):
        shutil.rmtree(checkout / name, ignore_errors=True)
    (checkout / "data/raw").mkdir(parents=True)
    shutil.copyfile(project / "data/readers.lock", checkout / "data/readers.lock")
    run.root = checkout
    return run


BAD = '{"id": 1, "text": "a"}\n{"id": 2, "text": 3}\n\n{"id": 1, "text": "b"}\n{"id": 4, "text": " "}\n{"id": 5, "text": "c"\n'
SOURCE = {"kind": "jsonl", "path": "data/raw/rows.jsonl"}


def left(root):
    """What lies in data/ and reports/, besides the source, the lock of readers and the record of the start."""
    files = (
        file.relative_to(root).as_posix()
        for name in ("data", "reports")
        for file in (root / name).rglob("*")
        if file.is_file()
    )
    return sorted(set(files) - {"data/raw/rows.jsonl", "data/readers.lock", "reports/ingest/lineage.json"})


def errors(done):
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def test_a_bad_record_ends_the_run_with_file_and_line_and_leaves_nothing(stage):
    write(stage.root / "data/raw/rows.jsonl", BAD)
    done = stage(SOURCE)
    assert done.returncode == 2, done.stderr
    assert errors(done) == [
        "error: data/raw/rows.jsonl:2: text must be a text, found a number; correct it, or set bad_records: skip for its source "
        "in ingest.sources"
    ]
    assert "Traceback" not in done.stderr and left(stage.root) == []
    assert sorted(path.name for path in (stage.root / "data").iterdir()) == ["raw", "readers.lock"]


def test_skipped_records_are_listed_with_file_line_and_reason(stage):
    write(stage.root / "data/raw/rows.jsonl", BAD)
    done = stage({**SOURCE, "bad_records": "skip"})
    assert done.returncode == 0, done.stderr
    listed = [json.loads(line) for line in (stage.root / "data/corpus/refused.ndjson").read_text("utf-8").splitlines()]
    assert {(row["path"], row["line"], row["reason"], row["bad"]) for row in listed} == {
        ("data/raw/rows.jsonl", 2, "text must be a text, found a number", True),
        ("data/raw/rows.jsonl", 4, "this file has the id already, with another text", True),
        ("data/raw/rows.jsonl", 5, "empty", False),
        ("data/raw/rows.jsonl", 6, "not JSON: Expecting ',' delimiter at character 22", True),
    }
    assert len(listed) == 4 and {row["source"] for row in listed} == {"data/raw/rows.jsonl"}
    corpus = stage.root / "data/corpus/documents.parquet"
    assert count_documents(corpus) == 1 and [(d.id, d.text) for d in read_documents(corpus)] == [("1", "a")]
    details = json.loads((stage.root / "reports/ingest/details.json").read_bytes())
    assert (details["documents"], details["refused"]) == (1, 4)
    assert left(stage.root) == [
        "data/corpus/documents.parquet",
        "data/corpus/refused.ndjson",
        "reports/ingest/details.json",
        "reports/ingest/metrics.json",
    ]


@pytest.mark.parametrize(("most", "code"), [(1, 2), (2, 2), (3, 0)])
def test_too_many_bad_records_end_the_run_too(stage, most, code):
    write(stage.root / "data/raw/rows.jsonl", BAD)
    done = stage({**SOURCE, "bad_records": "skip", "max_bad_records": most})
    assert done.returncode == code, done.stderr
    if code:
        (message,) = errors(done)
        assert message.startswith(
            f"error: ingest.sources: data/raw/rows.jsonl has more than max_bad_records = {most} bad records, the last is "
            "data/raw/rows.jsonl:"
        )
        assert left(stage.root) == []


def test_a_failed_run_keeps_what_the_last_one_wrote(stage):
    write(stage.root / "data/raw/rows.jsonl", '{"text": "good"}\n')
    assert stage(SOURCE).returncode == 0
    before = {name: (stage.root / name).read_bytes() for name in left(stage.root)}
    write(stage.root / "data/raw/rows.jsonl", BAD)
    assert stage(SOURCE).returncode == 2
    assert {name: (stage.root / name).read_bytes() for name in left(stage.root)} == before


def test_sources_without_a_document_end_the_run(stage):
    write(stage.root / "data/raw/rows.jsonl", '{"text": " "}\n\n')
    done = stage(SOURCE)
    assert done.returncode == 2
    assert errors(done) == [
        "error: no document in data/raw/rows.jsonl (1 refused: 1 empty); check ingest.sources: kind, path and glob"
    ]
    assert left(stage.root) == []


def test_a_compressed_shard_that_is_cut_short_is_named(stage):
    write(stage.root / "data/raw/rows.jsonl", '{"text": "a"}\n')
    write(stage.root / "data/raw/cut.jsonl.gz", gzip.compress(b'{"text": "b"}\n')[:-3])
    try:
        done = stage({"kind": "jsonl", "path": "data/raw"})
        assert done.returncode == 2
        assert errors(done) == [
            "error: data/raw/cut.jsonl.gz: damaged (Compressed file ended before the end-of-stream marker was reached); correct it, "
            "or set bad_records: skip for its source in ingest.sources"
        ]
    finally:
        (stage.root / "data/raw/cut.jsonl.gz").unlink()


def test_hostile_names_of_fields_make_one_line(stage):
    write(stage.root / "data/raw/rows.jsonl", '{"te\\nxt\\u001b[31m": 1}\n')
    done = stage(SOURCE)
    assert done.returncode == 2 and "\x1b" not in done.stderr
    assert [line for line in done.stderr.splitlines() if "see fields of ingest.sources" in line] == errors(done)
