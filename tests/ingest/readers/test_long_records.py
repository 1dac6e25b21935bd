"""A long line or record takes time in proportion to its bytes: it is not copied or matched again for each block."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import sys
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from codex_ml.documents.document import Refused
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers import compression
from codex_ml.ingest.readers import csv_tables as tables
from codex_ml.ingest.readers import json_lines as lines
from codex_ml.ingest.readers.csv_tables import plan_table
from codex_ml.ingest.readers.json_lines import plan_lines
from codex_ml.ingest.readers.tasks import Context

sys.path.insert(0, str(Path(__file__).parent))
from helpers import ingest, reasons, texts, write

BLOCK = 1000


class Block(bytes):
    """A block that raises when it is appended to bytes with `+`."""

    def __radd__(self, other):
        raise AssertionError(f"{len(other)} bytes are copied for a block of {len(self)}")


def blocks(data, size=BLOCK):
    return (Block(data[start : start + size]) for start in range(0, len(data), size))


def context(kind):
    return Context(Source(kind=kind, path=f"in.{kind}"), f"in.{kind}", 1 << 20)


@pytest.mark.parametrize("length", [5 * BLOCK, 500 * BLOCK])
def test_the_blocks_of_a_long_line_are_put_together_once(monkeypatch, length):
    monkeypatch.setattr(lines, "START_BYTES", BLOCK)
    data = b"".join(b'{"text":"%s"}\n' % (b"x" * count) for count in (5, length, 1, length))
    items = list(plan_lines(((block, len(block)) for block in blocks(data)), context("jsonl"), limit=1 << 20))
    assert b"".join(item.data for item in items) == data
    assert sum(item.bytes for item in items) == len(data)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "mark"])
@pytest.mark.parametrize("size", [3, BLOCK])
def test_a_long_record_is_matched_as_often_as_it_doubles(monkeypatch, start, size):
    matched = []
    plain = tables.end_of_whole
    monkeypatch.setattr(tables, "end_of_whole", lambda text, *rest: matched.append(len(text)) or plain(text, *rest))
    length = 300 * size
    data = start + b"id,text\n" + b"".join(b'%d,"%s"\n' % (n, b'a""\n' * (length // 4)) for n in range(3))
    items = list(plan_table(map(bytes, blocks(data, size)), context("csv"), delimiter=",", limit=10 * length))
    assert b"".join(item.data for item in items) == data[len(start) + len(b"id,text\n") :]
    assert sum(matched) < 5 * len(data)


def records(kind, lengths, limit):
    """(file, texts, (line, reason) of those beyond the limit)."""
    reason = f"the {'line' if kind == 'jsonl' else 'record'} is longer than {limit} bytes"
    header = b"" if kind == "jsonl" else b"id,text\n"
    rows, found, refused = [], [], []
    for number, length in enumerate(lengths, 1):
        text = f"{number} " + "x" * length
        row = json.dumps({"id": number, "text": text}) if kind == "jsonl" else f"{number},{text}"
        rows.append(row)
        if len(row) + (kind == "csv") > limit:
            refused.append((number + (kind == "csv"), reason))
        else:
            found.append(text)
    return header + "".join(f"{row}\n" for row in rows).encode(), found, refused


PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("packed", [*PACK, ".zst"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_lines_on_both_sides_of_the_limit_in_every_compression(tmp_path, monkeypatch, kind, packed):
    """Blocks and limits of all sizes, the limit below a block and far above it."""
    monkeypatch.chdir(tmp_path)
    dice = random.Random(f"{kind}{packed}")
    for block, floor in [(700, 3000), (9000, 1000), (97, 5000)]:
        monkeypatch.setattr(compression, "BLOCK", block)
        monkeypatch.setattr("codex_ml.ingest.readers.tasks.LINE_FLOOR", floor)
        lengths = [dice.choice([3, 50, floor // 2, floor - 60, floor + 1, 3 * floor, 7 * floor]) for _ in range(40)]
        data, found, refused = records(kind, lengths, floor)
        whole = pa.compress(data, "zstd", asbytes=True) if packed == ".zst" else PACK[packed](data)
        write(f"in.{kind}{packed}", whole)
        documents, bad = ingest(kind, f"in.{kind}{packed}", max_bytes=floor // 8)
        assert texts(documents) == [text for text in found if len(text) <= floor // 8]
        assert [item for item in reasons(bad) if item[1].startswith("the ")] == refused


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_where_blocks_end_makes_no_difference_to_long_records(kind):
    dice = random.Random(kind)
    data, _, _ = records(kind, [dice.choice([1, 90, 400, 3000]) for _ in range(60)], 2000)
    context_of = context(kind)

    def found(cuts):
        pieces = [data[start:stop] for start, stop in pairwise([0, *cuts, len(data)])]
        if kind == "jsonl":
            tasks = plan_lines(((piece, len(piece)) for piece in pieces), context_of, limit=2000)
        else:
            tasks = plan_table(iter(pieces), context_of, delimiter=",", limit=2000)
        return [item for task in tasks for item in ([task] if isinstance(task, Refused) else task.read())]

    expected = found([])
    for _ in range(60):
        assert found(sorted(dice.choices(range(len(data)), k=dice.choice([1, 5, 40])))) == expected
