"""How refusals are counted: fixed words keep their digits, and no value of a document gets into reports/ingest."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codex_ml.core.errors import Reason, UserError
from codex_ml.documents.document import Refused
from codex_ml.ingest.config import Ingest, Source
from codex_ml.ingest.sources import Tally

sys.path.insert(0, str(Path(__file__).parent))
from helpers import ingest, write

PLANTED = "AKIA7Q2X90"  # stands for a secret in every place of a record


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def kinds(kind, data, name="in"):
    if isinstance(data, pa.Table):
        pq.write_table(data, name)
    else:
        write(name, data)
    documents, refused = ingest(kind, name)
    assert documents == [] and refused
    tally = Tally()
    for item in refused:
        tally.refuse(item)
    return list(tally.details().refused_by_reason)


@pytest.mark.parametrize(
    ("kind", "name", "data", "expected"),
    [
        ("jsonl", "in.jsonl", '{"text": "a"}'.encode("utf-16"), "looks like UTF-16 (or binary); JSON Lines are UTF-8 (RFC 8259 section 8.1)"),
        ("jsonl", "in.jsonl", b'{"text": "caf\xe9"}\n', "byte 0xN at offset N of the line is not UTF-8"),
        ("jsonl", "in.jsonl", '{"text": NaN}\n', "not JSON: NaN is not JSON (RFC 8259 section 6)"),
        ("jsonl", "in.jsonl", '{"text": "a" 1}\n', "not JSON: Expecting ',' delimiter at character N"),
        ("jsonl", "in.jsonl", '{"text": "\\ud800"}\n', "a lone surrogate (U+N) is not text"),
        ("jsonl", "in.jsonl", '{"messages": [7]}\n', "messages[N] must be an object with a role"),
        ("csv", "in.csv", "id,text\n1,2,3\n", "N cells, the header has N"),
        ("csv", "in.csv", "id,text\n".encode("utf-16"), "looks like UTF-16 (or binary); expected UTF-8"),
        ("files", "a.py", b"\xff\xfea", "begins as UTF-16, but is none at byte N"),
        ("files", "a.txt", b"\xe9", "byte 0xN at offset N is not UTF-8"),
        ("files", "a.py", b"# coding: cp1252\n\x81\n", "byte 0xN at offset N is not ..."),
        ("files", "a.ipynb", "{", "not JSON (line N)"),
        ("files", "a.ipynb", '{"nbformat": 2}', "not a notebook of format 3 or 4 (nbformat)"),
        ("files", "a.py", "x" * 1001, "longer than N bytes"),
        ("parquet", "in.parquet", pa.table({"text": [1]}), "the column text is ...; expected a text column"),
    ],
)  # fmt: skip
def test_fixed_words_keep_their_digits(kind, name, data, expected):
    assert kinds(kind, data, name) == [expected]


@pytest.mark.parametrize(
    ("kind", "name", "data"),
    [
        ("jsonl", "in.jsonl", f'{{"{PLANTED}": 1, "{PLANTED}": 2}}\n'),
        ("jsonl", "in.jsonl", f'{{"{PLANTED}": "a"}}\n'),
        ("jsonl", "in.jsonl", f'{{"text": "{PLANTED}" {PLANTED}}}\n'),
        ("jsonl", "in.jsonl", '{"text": 1' + "0" * 400 + ".0e999}\n"),
        ("jsonl", "in.jsonl", f'"{PLANTED}"\n'),
        ("csv", "in.csv", f"text,{PLANTED},{PLANTED}\n"),
        ("csv", "in.csv", f'id,messages\n1,"{{""{PLANTED}"": 1, ""{PLANTED}"": 2}}"\n'),
        ("csv", "in.csv", f"{PLANTED}\n{PLANTED}\n"),
        ("files", "a.py", f"# coding: {PLANTED}\n"),
        ("files", "a.ipynb", f'{{"{PLANTED}": 1, "{PLANTED}": 2}}'),
        ("parquet", "in.parquet", pa.table([[1], [2]], names=[PLANTED, PLANTED])),
        ("parquet", "in.parquet", pa.table({PLANTED: ["a"]})),
        ("parquet", "in.parquet", f"PAR1{PLANTED}"),
        ("zip", "in.zip", f"PK{PLANTED}"),
        ("tar", "in.tar", PLANTED.encode() * 60),
    ],
)
def test_no_value_of_a_document_is_counted(kind, name, data):
    (reason,) = kinds(kind, data, name)
    assert PLANTED not in reason and PLANTED[4:] not in reason and "000" not in reason


def test_the_error_without_any_document_shows_kinds_only():
    tally = Tally()
    for value in ("one", "two"):
        tally.refuse(Refused("in", "in", 1, Reason("the key {!r} of UTF-8", value)))
    with pytest.raises(UserError, match=r"2 refused: 2 the key \.\.\. of UTF-8\)"):
        tally.require_documents(Ingest(sources=(Source(kind="jsonl", path="in"),)))


def test_a_line_of_the_list_has_the_same_fields_as_before():
    row = Refused("s", "p", 3, Reason("line {}", 3), place="x/p").row
    assert json.loads(json.dumps(row)) == {"source": "s", "path": "p", "line": 3, "reason": "line 3", "bad": True}
