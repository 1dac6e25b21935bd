"""A spill file is sorted in bounded memory, also when all its rows have one key."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from codex_ml.documents.document import Document, documents_of, row_bytes
from codex_ml.ingest import spill_sort
from codex_ml.ingest.corpus import measured, pieces_of, spilling
from codex_ml.ingest.corpus_writer import write_corpus
from codex_ml.ingest.spill_sort import ORDER, sorted_tables

quiet = lambda _: None  # noqa: E731


def one_text(number, dice):
    return Document("s", f"p{number % 3}", f"id{number}", dice.choice(["", "ä", "z"]), "MIT", "text", "the same text")


def two_forms(number, dice):
    """The same content in two forms, so that columns which decide the order are null in some rows."""
    form = {"text": "ab"} if number % 2 else {"prompt": "a", "completion": "b"}
    return Document("s", "", f"id{number // 2}", "", "MIT", "text", meta=dice.choice(["", "{}"]), **form)


def long_among_short(number, dice):
    return Document("s", "", f"id{number}", "", "MIT", "text", "x" * dice.choice([1, 1, 1, 4000]))


def unlike(number, dice):
    return Document("\U0001f600\ue000", "", f"{number}", "", "MIT", "text", f"{dice.random()}", place=f"f:{number}")


def equal_rows(number, dice):
    return Document("s", "", "id", "", "MIT", "text", "the same", place=f"f:{number // 7}")


KINDS = [one_text, two_forms, long_among_short, unlike, equal_rows]


def documents(kind, count=250):
    dice = random.Random(count)
    found = [kind(number, dice) for number in range(count)]
    dice.shuffle(found)
    return found


def spilled(folder, found):
    """One spill file of these documents, in many batches."""
    tables = [measured(found[start : start + 37]) for start in range(0, len(found), 37)]
    with pa.OSFile(str(folder / "0"), "wb") as sink, pa.ipc.new_stream(sink, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    return folder / "0"


def model(found):
    """The rows as Python sorts them, null after every text."""
    rows = measured(found).to_pylist()
    return sorted(rows, key=lambda row: [(row[name] is None, row[name] or "") for name, _ in ORDER if name != "key"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("spill_bytes", "runs"), [(1, 2), (3000, 2), (20_000, 3), (20_000, 16)])
def test_the_rows_of_a_spill_file_come_in_order_with_any_memory_limit(tmp_path, monkeypatch, kind, spill_bytes, runs):
    found = documents(kind, 60 if spill_bytes == 1 else 250)
    file = spilled(tmp_path, found)
    monkeypatch.setattr(spill_sort, "SPILL_BYTES", spill_bytes)
    monkeypatch.setattr(spill_sort, "RUNS", runs)
    rows = [row for table in sorted_tables(file) for row in table.to_pylist()]
    assert list(tmp_path.iterdir()) == []
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    expected = {}
    for row in model(found):
        expected.setdefault(row["key"], []).append(row)
    assert rows == [row for key in sorted(expected) for row in expected[key]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_spill_file_is_never_held_as_a_whole(tmp_path, monkeypatch, kind):
    """Tables that are sorted at one time stay near the bound; only one row may exceed it."""
    found = documents(kind)
    file = spilled(tmp_path, found)
    monkeypatch.setattr(spill_sort, "SPILL_BYTES", 10_000)
    monkeypatch.setattr(spill_sort, "RUNS", 4)
    sorted_at_once = []
    plain = spill_sort._in_order
    monkeypatch.setattr(spill_sort, "_in_order", lambda table, most: sorted_at_once.append(table) or plain(table, most))
    assert sum(table.num_rows for table in sorted_tables(file)) == len(found)
    longest = max(int(row_bytes(table).max()) for table in sorted_at_once)
    batch = max(measured(found[start : start + 37]).nbytes for start in range(0, len(found), 37))
    assert max(table.nbytes for table in sorted_at_once) < 10_000 + batch + 4 * longest


@pytest.mark.parametrize("kind", KINDS)
def test_the_corpus_has_the_same_bytes_with_small_sizes(tmp_path, monkeypatch, kind):
    found, written = documents(kind, 200), []
    for number, spill in enumerate([128 << 20, 100_000, 3000, 1]):
        monkeypatch.setattr(spill_sort, "SPILL_BYTES", spill)
        monkeypatch.setattr(spill_sort, "RUNS", 3)
        random.Random(number).shuffle(found)
        with spilling(tmp_path / f"{number}") as spills:
            for start, stop in pairwise([*range(0, len(found), 50), len(found)]):
                spills.add(pieces_of(measured(found[start:stop])))
            write_corpus(tmp_path / "corpus.parquet", spills, advance=quiet)
        assert list((tmp_path / f"{number}").iterdir()) == []
        written.append((tmp_path / "corpus.parquet").read_bytes())
    assert written == [written[0]] * 4


def test_the_bytes_of_a_row_are_those_of_all_its_columns():
    found = [Document("s", "p", "i", "", "MIT", "c", "ä" * count, meta="m" * (9 - count)) for count in range(9)]
    table = measured(found)
    fixed = len("sp" + "i" + "MIT" + "c") + sum(
        max(1, field.type.bit_width // 8) for field in table.schema if not pa.types.is_large_string(field.type)
    )
    expected = [fixed + 2 * count + 9 - count for count in range(9)]
    assert row_bytes(table).tolist() == expected
    joined = pa.concat_tables([table.slice(5), table.slice(0, 0), table.slice(0, 5)])
    assert row_bytes(joined).tolist() == expected[5:] + expected[:5]
    assert row_bytes(table.slice(0, 0)).dtype == np.int64
    assert [document.meta for document in documents_of(table.slice(7))] == ["mm", "m"]
