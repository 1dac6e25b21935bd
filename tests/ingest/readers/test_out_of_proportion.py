"""Fields that are out of proportion cost a bounded amount, or are refused in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codex_ml.ingest.readers import records

sys.path.insert(0, str(Path(__file__).parent))
from helpers import ingest, reasons, write

LIMIT = 1 << 20  # of a record, for documents of 1000 bytes
MOST = records.LONGEST_SHORT


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(kind, rows):
    if kind == "jsonl":
        write("in.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), "in.parquet", use_dictionary=False)


CASES = {
    "id": ({"id": "i" * (MOST + 1)}, f"id is longer than {MOST} characters"),
    "id of a megabyte": ({"id": "i" * 500_000}, f"id is longer than {MOST} characters"),
    "group": ({"group": "g" * (MOST + 1)}, f"group is longer than {MOST} characters"),
    "language": ({"language": "l" * 5000}, f"language is longer than {MOST} characters"),
    "metadata": ({"x": "m" * (LIMIT + 1)}, f"the other fields are longer than {LIMIT} bytes"),
    "metadata of many": ({f"k{n}": "m" * 200 for n in range(6000)}, f"the other fields are longer than {LIMIT} bytes"),
}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(("fields", "reason"), CASES.values(), ids=CASES)
def test_a_field_out_of_proportion_is_one_refusal(kind, fields, reason):
    first = {"text": "before", **dict.fromkeys(fields, "")}
    written(kind, [first, {"text": "it", **fields}, {**first, "text": "after"}])
    documents, refused = ingest(kind, f"in.{kind}")
    assert [document.text for document in documents] == ["before", "after"]
    if kind == "jsonl" and "bytes" in reason:  # the line is refused before it is parsed
        reason = f"the line is longer than {LIMIT} bytes"
    assert reasons(refused) == [(2 if kind == "jsonl" else 1, reason)]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_what_is_as_long_as_allowed_is_read(kind):
    row = {"text": "it", "id": "ä" * MOST, "group": "g" * MOST, "language": "l" * MOST, "x": "m" * 900_000}
    written(kind, [row])
    (document,), refused = ingest(kind, f"in.{kind}")
    assert refused == []
    assert (len(document.id), len(document.group), len(document.language)) == (MOST, MOST, MOST)
    assert len(document.meta) == len('{"x":""}') + 900_000
