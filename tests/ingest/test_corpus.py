"""The corpus on disk depends on its documents only, not on their order or on the pieces in which they arrive."""

import json
import random
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.documents.document import Document, read_documents
from codex_ml.documents.signals import SIGNALS
from codex_ml.ingest import corpus_writer, spill_sort
from codex_ml.ingest.corpus import (
    CORPUS_SCHEMA,
    SPILL_SCHEMA,
    SeenIds,
    id_hashes,
    measured,
    pieces_of,
    spilling,
    table_of_pieces,
)
from codex_ml.ingest.corpus_writer import write_corpus
from codex_ml.ingest.text_signals import signals

quiet = lambda _: None  # noqa: E731


def forms(number, content):
    chat = json.dumps([{"role": "user", "content": content}])
    content_of_form = [{"text": content}, {"prompt": content, "completion": "!"}, {"messages": chat, "tools": "[]"}][
        number % 3
    ]
    return Document(
        "s", f"p{number % 4}", f"id{number}", "", "MIT", "python", meta="{}", place=f"f:{number}", **content_of_form
    )


DOCUMENTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=25).map(
    lambda texts: [forms(number, text) for number, text in enumerate(texts)]
)


def written(folder, documents, *, pieces=(), workers=0):
    """The bytes of the corpus of these documents, cut into tables at these places."""
    edges = [0, *sorted(pieces), len(documents)]
    folder.mkdir(exist_ok=True)
    with spilling(folder / "spills") as spills:
        for start, stop in pairwise(edges):
            if stop > start:
                spills.add(pieces_of(measured(documents[start:stop])))
        write_corpus(folder / "corpus.parquet", spills, workers=workers, advance=quiet)
    assert list((folder / "spills").iterdir()) == []
    return (folder / "corpus.parquet").read_bytes()


@given(DOCUMENTS, st.data())
@settings(max_examples=20, deadline=None)
def test_the_bytes_depend_on_neither_order_nor_pieces(tmp_path_factory, documents, data):
    expected = written(tmp_path_factory.mktemp("a"), documents)
    order = data.draw(st.permutations(documents))
    pieces = data.draw(st.lists(st.integers(0, len(documents)), max_size=4))
    spill_bytes = data.draw(st.sampled_from([1, 1000, 128 << 20]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill_sort, "SPILL_BYTES", spill_bytes)
        patch.setattr(spill_sort, "RUNS", data.draw(st.sampled_from([2, 3, 16])))
        assert written(tmp_path_factory.mktemp("b"), order, pieces=pieces) == expected


def test_all_forms_come_back_as_they_went_in(tmp_path):
    documents = [forms(i, text) for i, text in enumerate(["", "ä" * 9, "\r\n\u2028\0", "\U0001f600"] * 9)]
    written(tmp_path, documents)
    found = list(read_documents(tmp_path / "corpus.parquet"))
    assert sorted(found, key=lambda d: d.place) == sorted(documents, key=lambda d: d.place)


def test_the_measures_are_those_of_the_content():
    documents = [forms(i, f"# text {i}\nä = 1\n") for i in range(6)]
    table = measured(documents)
    assert table.schema == SPILL_SCHEMA
    for row, document in zip(table.to_pylist(), documents, strict=True):
        assert row["size"] == len(document.content.encode())
        expected = signals(document.content, "python")
        assert {name: row[name] for name in SIGNALS} == {name: getattr(expected, name) for name in SIGNALS}


def test_one_long_line_is_measured_with_four_copies_of_it():
    text = "var a=b(1);" * (1 << 20)
    tracemalloc.start()
    try:
        measured([Document("s", "bundle.js", "i", "", "MIT", "javascript", text)])
        assert tracemalloc.get_traced_memory()[1] < 4.5 * len(text)
    finally:
        tracemalloc.stop()


def test_no_documents_make_a_corpus_without_rows(tmp_path):
    written(tmp_path, [])
    file = pq.ParquetFile(tmp_path / "corpus.parquet")
    assert (file.metadata.num_rows, file.schema_arrow.names) == (0, CORPUS_SCHEMA.names)


def test_row_groups_end_with_the_row_that_fills_them(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_writer, "ROW_GROUP_BYTES", 500)
    monkeypatch.setattr(corpus_writer, "ALL_COLUMNS", 100)
    dice = random.Random(2)
    documents = [forms(i, "x" * dice.choice([0, 5, 90, 700])) for i in range(200)]
    told = []
    with spilling(tmp_path / "spills") as spills:
        spills.add(pieces_of(measured(documents)))
        write_corpus(tmp_path / "corpus.parquet", spills, advance=told.append)
    file = pq.ParquetFile(tmp_path / "corpus.parquet")
    sizes = [file.read_row_group(group, columns=["size"])[0].to_pylist() for group in range(file.num_row_groups)]
    assert all(sum(group[:-1]) < 500 for group in sizes)
    assert all(sum(group) >= 500 for group in sizes[:-1])
    assert told == [sum(group) for group in sizes]
    assert sum(told) == sum(len(d.content.encode()) for d in documents)


def groups_of(path):
    file = pq.ParquetFile(path)
    return [file.read_row_group(group) for group in range(file.num_row_groups)]


def test_row_groups_are_bounded_in_all_columns_and_in_rows(tmp_path, monkeypatch):
    """20,000 records with 20 kB of metadata each were one row group of 417 MB."""
    monkeypatch.setattr(corpus_writer, "ROW_GROUP_BYTES", 10_000)
    monkeypatch.setattr(corpus_writer, "ROW_GROUP_ROWS", 25)
    for name in ("meta", "tools", "id", "group"):
        documents = [
            Document(
                "s",
                "",
                **({"id": f"{n}", "group": ""} | {name: f"{n}" * 2000}),
                licence="MIT",
                language="text",
                text=f"{n}",
            )
            for n in range(40)
        ]
        written(tmp_path / name, documents)
        groups = groups_of(tmp_path / name / "corpus.parquet")
        assert sum(group.num_rows for group in groups) == 40
        assert all(group.nbytes < 30_000 + 2 * 4500 for group in groups), name
        assert all(group.nbytes > 20_000 for group in groups[:-1])
    written(tmp_path / "short", [forms(n, "") for n in range(130)])
    assert [group.num_rows for group in groups_of(tmp_path / "short/corpus.parquet")] == [25] * 5 + [5]


def test_row_groups_do_not_depend_on_where_a_document_was_read(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_writer, "ROW_GROUP_BYTES", 4000)
    documents = [replace(forms(n, f"{n}"), meta="m" * 500) for n in range(100)]
    elsewhere = [replace(document, place="folder/" * 30 + document.place) for document in documents]
    written(tmp_path / "one", documents)
    written(tmp_path / "other", elsewhere)
    one, other = (groups_of(tmp_path / name / "corpus.parquet") for name in ("one", "other"))
    assert len(one) == len(other) > 4
    for first, second in zip(one, other, strict=True):
        assert first.drop_columns("place").equals(second.drop_columns("place"))


@pytest.mark.parametrize("workers", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(corpus_writer, "ROW_GROUP_BYTES", 3000)
    dice = random.Random(3)
    documents = [forms(i, "text " * dice.choice([0, 5, 90, 700])) for i in range(300)]
    assert written(tmp_path / "some", documents, workers=workers) == written(tmp_path / "none", documents)
    assert len(groups_of(tmp_path / "some/corpus.parquet")) > 20


@given(DOCUMENTS)
@settings(max_examples=20, deadline=None)
def test_a_table_comes_back_from_its_pieces(documents):
    table = measured(documents)
    back = table_of_pieces(pieces_of(table))
    order = np.argsort(table.column("key").to_numpy() >> np.uint64(58), kind="stable")
    assert back.to_pylist() == table.take(order).to_pylist()


def open_below(folder):
    links = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return [str(entry.readlink()) for entry in links if str(entry.readlink()).startswith(str(folder))]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks open files up in /proc")
def test_after_an_exception_no_file_stays_open(tmp_path):
    class BrokenError(Exception):
        pass

    def fail(_):
        raise BrokenError

    table = measured([forms(i, str(i)) for i in range(50)])

    def while_adding():
        with spilling(tmp_path / "a") as spills:
            spills.add(pieces_of(table))
            assert open_below(tmp_path)
            raise BrokenError

    def while_writing():
        with spilling(tmp_path / "b") as spills:
            spills.add(pieces_of(table))
            write_corpus(tmp_path / "corpus.parquet", spills, advance=fail)

    for action in (while_adding, while_writing):
        with pytest.raises(BrokenError):
            action()
        assert open_below(tmp_path) == []


IDS = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 2)), max_size=40)


@given(IDS, st.lists(st.integers(0, 40), max_size=5))
@settings(max_examples=200, deadline=None)
def test_an_id_with_another_content_is_reported(rows, cuts):
    """Compared with a dictionary: for any batches, the first content of an id is never reported."""
    seen, model = SeenIds(), {}
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for start, stop in pairwise(edges):
        batch = rows[start:stop]
        found = seen.repeated(id_hashes([name for name, _ in batch]), [key for _, key in batch]).tolist()
        for (name, key), told in zip(batch, found, strict=True):
            before = name in model
            first = model.setdefault(name, key)
            assert told or key == first
            if not before:
                assert not told


def test_the_batches_in_which_ids_come_make_no_difference():
    one, cut = SeenIds(), SeenIds()
    one.repeated(id_hashes(["a"]), [1])
    cut.repeated(id_hashes(["a"]), [1])
    together = one.repeated(id_hashes(["a", "a"]), [2, 1]).tolist()
    assert (
        together
        == [*cut.repeated(id_hashes(["a"]), [2]).tolist(), *cut.repeated(id_hashes(["a"]), [1]).tolist()]
        == [True, False]
    )


def test_many_ids_stay_in_few_sorted_runs():
    seen = SeenIds()
    for start in range(0, 5000, 50):
        names = [f"id{i}" for i in range(start, start + 50)]
        assert not seen.repeated(id_hashes(names), range(50)).any()
    assert len(seen._runs) <= 13
    assert sum(map(len, seen._runs)) == 5000
    assert not seen.repeated(id_hashes([f"id{i}" for i in range(5000)]), [i % 50 for i in range(5000)]).any()
    assert seen.repeated(id_hashes([f"id{i}" for i in range(5000)]), [51] * 5000).all()
