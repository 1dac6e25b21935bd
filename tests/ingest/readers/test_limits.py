"""Small inputs that could cost much: each through the code of the stage, in a child whose memory and CPU are counted."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codex_ml.ingest.readers import parquet

sys.path.insert(0, str(Path(__file__).parent))
from helpers import ingest, write


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(Path(__file__).with_name("counted.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield server
        server.stdin.close()


@pytest.fixture
def cost(server, tmp_path) -> Callable[..., list]:
    """Read a source in a process of its own: (documents, refused, reasons, MiB by which memory has grown)."""

    def cost(kind: str, path: str, glob: str = "**/*.py") -> list:
        server.stdin.write(json.dumps({"folder": str(tmp_path), "source": [kind, path, glob]}) + "\n")
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
        assert isinstance(answer, list), f"the child ended with status {answer}"
        return answer

    return cost


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


MB12 = 12_000_000
QUOTES = {
    "lines": '"\n',
    "commas": '"",',
    "closed too early": '1,"a"b\n',
    "opened inside": '1,a"b\n',
    "doubled": '"""\n',
    "shifted": '"a"\n"',
    "one that never ends": '"a',
}


SLOW = ("lines", "closed too early", "opened inside")  # a second each; four others hold the same bound


@pytest.mark.parametrize(
    "unit", [pytest.param(unit, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, unit in QUOTES.items()]
)
def test_quotes_of_every_kind_cost_what_a_thousand_bad_records_cost(cost, unit):
    write("in.csv", "id,text\n" + unit * (MB12 // len(unit)))
    documents, refused, reasons, grown = cost("csv", "in.csv")
    assert documents == 0 and refused <= 1001
    assert grown < 200
    assert any("more than max_bad_records = 1000" in reason or "longer than" in reason for reason in reasons)


def test_a_hundred_thousand_columns_cost_no_more_than_as_many_cells(cost):
    names = [f"c{number}" for number in range(100_000)]
    write("in.csv", ",".join(["text", *names]) + "\n" + ("a" + ",1" * len(names) + "\n") * 10)
    documents, refused, _, grown = cost("csv", "in.csv")
    assert (documents, refused) == (10, 0) and grown < 400
    write("twice.csv", ",".join(["text", *names, "c99999"]) + "\n")
    assert cost("csv", "twice.csv")[2][0] == "the header has the name 'c99999' twice"
    pq.write_table(pa.table([["a"]] * 5_000, names=["text", *names[:4999]]), "in.parquet")
    documents, refused, _, grown = cost("parquet", "in.parquet")
    assert (documents, refused) == (1, 0) and grown < 400


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("{" + ",".join(f'"{n}":0' for n in range(500_000)) + ',"text":"a"}', None),
        ('{"text":"a","x":' + "[" * 900_000 + "]" * 900_000 + "}", "not JSON: nested too deeply"),
        ('{"text":"a","x":' + "9" * 5_000_000 + "}", "not JSON: Exceeds the limit"),
        ("[" * 5_000_000, "a JSON array"),
    ],
    ids=["keys", "depth", "digits", "open"],
)
def test_one_record_of_json_costs_a_small_multiple_of_its_bytes(cost, record, reason):
    write("in.jsonl", record + "\n")
    documents, refused, reasons, grown = cost("jsonl", "in.jsonl")
    assert (documents, refused) == ((1, 0) if reason is None else (0, 1))
    assert reason is None or reasons[0].startswith(reason)
    assert grown < 400


def parquet_of(*texts, **options):
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    pq.write_table(table, "in.parquet", compression="zstd", **options)
    assert Path("in.parquet").stat().st_size < 200_000


def test_a_page_beyond_the_limit_is_refused_by_its_header_and_never_decoded(monkeypatch):
    monkeypatch.setattr(parquet, "PAGE_LIMIT", 1 << 20)
    parquet_of(*["x" * 100_000] * 11, use_dictionary=False)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", None)
    documents, (item,) = ingest("parquet", "in.parquet", max_bytes=1_000_000)
    assert documents == [] and item.bad
    assert (
        item.reason
        == "a page declares 1100050 bytes; at most 1 MiB are decoded at once; write it with a smaller write_batch_size"
    )


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_a_page_of_values_that_no_document_may_have_is_refused_by_its_header(cost, version, dictionary):
    parquet_of("x" * 70_000_000, use_dictionary=dictionary, data_page_version=version)
    documents, refused, (reason, *_), grown = cost("parquet", "in.parquet")
    assert (documents, refused) == (0, 1) and grown < 64
    assert re.fullmatch(r"a page declares values of 700000\d\d bytes on average, which no document may have", reason)


def test_pages_of_many_documents_are_read(cost):
    table = pa.table({"text": pa.array(["y" * 100_000] * 800, pa.large_string())})
    pq.write_table(table, "in.parquet", compression="zstd", use_dictionary=False)
    documents, refused, _, grown = cost("parquet", "in.parquet")
    assert (documents, refused) == (800, 0) and grown < 500


@pytest.mark.parametrize("at", range(4, 40, 3))
def test_a_damaged_page_header_is_one_refusal(cost, at):
    pq.write_table(pa.table({"text": ["a" * 50] * 10}), "in.parquet", use_dictionary=False)
    data = bytearray(Path("in.parquet").read_bytes())
    data[at : at + 3] = b"\xff\xff\xff"
    Path("in.parquet").write_bytes(data)
    documents, refused, reasons, grown = cost("parquet", "in.parquet")
    assert (documents, refused) in ((0, 1), (10, 0)) and grown < 200
    assert documents or reasons[0].startswith(("damaged", "a page declares"))


def empty_zip(count):
    """A zip file with this many empty members, written by hand: zipfile takes a minute for a million."""
    local, central, place = [], [], 0
    for number in range(count):
        name = b"%06d.py" % number
        head = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0) + name
        local.append(head)
        central.append(
            struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, place) + name
        )
        place += len(head)
    entries = b"".join(central)
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(entries), place)
    end += struct.pack("<4sLQL", b"PK\6\7", 0, place + len(entries), 1)
    return (
        b"".join(local)
        + entries
        + end
        + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    )


def test_the_directory_of_a_zip_file_is_counted_before_it_is_read(cost):
    write("in.zip", empty_zip(300_000))
    documents, refused, (reason, *_), grown = cost("zip", "in.zip")
    assert (documents, refused, reason) == (0, 1, "more than 250,000 members") and grown < 64
