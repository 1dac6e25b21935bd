"""Parquet and saved data sets: the text does not depend on the physical type of its column."""

import datetime
import json
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codex_ml.core.errors import UserError
from codex_ml.documents.document import Document
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers import parquet as module
from codex_ml.ingest.readers import plan_source
from codex_ml.ingest.readers import table_rows as rows

TEXTS = ["one", "zwei\n", "three"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(kind="parquet", path="t.parquet", **settings):
    return [
        item for task in plan_source(Source(kind=kind, path=path, **settings), max_bytes=1000) for item in task.read()
    ]


def write(table, name="t.parquet", **options):
    pq.write_table(table, name, **options)
    return read(path=name)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())], ids=str)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_every_kind_of_text_column_and_row_group_gives_the_same_documents(kind, size):
    table = pa.table({"text": pa.array(TEXTS).cast(kind), "id": ["a", "b", "c"]})
    items = write(table, row_group_size=size)
    assert [(item.text, item.id, item.meta, item.place) for item in items] == [
        (text, name, "", f"t.parquet:{row}") for row, (text, name) in enumerate(zip(TEXTS, "abc", strict=True))
    ]


def test_an_index_of_pandas_is_not_metadata():
    items = write(pa.table({"text": TEXTS, "__index_level_0__": [5, 6, 7]}))
    assert {item.meta for item in items} == {""}


def test_keys_that_arrow_fills_in_are_left_out():
    calls = [[{"role": "user", "content": "hi"}, {"role": "tool", "content": "3", "name": "add"}]]
    (item,) = write(pa.table({"messages": calls}))
    assert json.loads(item.messages) == calls[0]


def test_metadata_is_json():
    day = datetime.date(2020, 2, 29)
    (item,) = write(
        pa.table(
            {
                "text": ["x"],
                "n": [2**60],
                "d": [day],
                "f": [float("nan")],
                "b": [b"\xe9 a"],
                "u": [b"\xc3\xa9"],
                "l": [[1, 2]],
            }
        )
    )
    assert json.loads(item.meta) == {"n": 2**60, "d": "2020-02-29", "f": None, "b": "é a", "u": "é", "l": [1, 2]}


def test_a_null_text_is_refused_by_its_row():
    items = write(pa.table({"text": ["x", None, "z"]}), row_group_size=1)
    assert [item.text if isinstance(item, Document) else (item.line, item.reason) for item in items] == [
        "x", (1, "text is null"), "z"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: b"", "damaged, or no Parquet file (Parquet file size is 0 bytes)"),
        (lambda data: data[:-5], "damaged, or no Parquet file (Parquet magic bytes not found in footer"),
        (lambda data: data[: len(data) // 2], "damaged, or no Parquet file ("),
        (lambda data: b"PAR1" + b"x" * 100 + b"PAR1", "damaged, or no Parquet file ("),
    ],
)
def test_a_damaged_file_is_refused_whole(change, reason):
    table = pa.table({"text": [f"text {i} " * 20 for i in range(500)]})
    pq.write_table(table, "t.parquet", row_group_size=100)
    Path("t.parquet").write_bytes(change(Path("t.parquet").read_bytes()))
    (item,) = read()
    assert (item.line, item.bad) == (None, True)
    assert item.reason.startswith(reason)


def test_a_damaged_page_in_a_late_row_group_refuses_the_whole_file():
    table = pa.table({"text": [f"text {i} {i * 7919}" for i in range(4000)]})
    pq.write_table(table, "t.parquet", row_group_size=1000, compression="zstd", write_page_checksum=True)
    offset = pq.ParquetFile("t.parquet").metadata.row_group(3).column(0).data_page_offset
    with Path("t.parquet").open("r+b") as file:
        file.seek(offset + 40)
        file.write(b"\xff" * 64)
    (item,) = read()
    assert item.reason.startswith("damaged, or no Parquet file (")


def test_a_text_column_of_numbers_is_refused_once():
    (item,) = write(pa.table({"text": [1, 2, 3]}))
    assert (item.line, item.reason) == (None, "the column text is int64; expected a text column")


def test_a_table_without_rows_is_reported_and_is_not_bad():
    (item,) = write(pa.table({"text": pa.array([], pa.string())}))
    assert (item.reason, item.bad) == ("has no rows", False)


def test_a_row_group_that_declares_too_much_is_refused(monkeypatch):
    monkeypatch.setattr(module, "GROUP_LIMIT", 10)
    (item,) = write(pa.table({"text": ["x" * 100]}))
    assert item.reason.startswith("row group 0 declares ")


def saved(folder, names=("data-00000-of-00001.arrow",)):
    folder.mkdir()
    for number, name in enumerate(names):
        table = pa.table({"text": [f"{number} {text}" for text in TEXTS]})
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))


def test_a_saved_data_set_is_read_file_by_file(tmp_path):
    saved(tmp_path / "set", ("a.arrow", "b.arrow"))
    items = read("datasets", "set")
    assert [item.text for item in items] == [f"{n} {text}" for n in (0, 1) for text in TEXTS]
    assert items[4].place == "set/b.arrow:1"


def test_a_data_set_cannot_name_files_outside(tmp_path):
    saved(tmp_path / "set")
    (tmp_path / "set/state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}')
    with pytest.raises(UserError, match=r"names '\.\./x\.arrow', which is not a file in that folder"):
        read("datasets", "set")


def test_the_message_for_a_dictionary_of_splits_names_them(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(UserError, match=r"set holds the splits train, test; name one: set/train"):
        read("datasets", "set")


def test_a_damaged_arrow_file_is_refused(tmp_path):
    saved(tmp_path / "set")
    file = tmp_path / "set/data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:100])
    items = read("datasets", "set")
    assert items[0].reason.startswith("damaged, or no Arrow file (")


def test_a_large_row_group_is_cut_into_tasks_that_read_every_row_once(monkeypatch):
    monkeypatch.setattr(rows, "PART_BYTES", 2000)
    monkeypatch.setattr(module, "MOST_PARTS", 1 << 20)
    texts = [f"{number:03} " * 40 for number in range(200)]
    pq.write_table(pa.table({"text": texts}), "t.parquet", row_group_size=150)
    tasks = list(plan_source(Source(kind="parquet", path="t.parquet"), max_bytes=1000))
    found = [list(task.read()) for task in tasks]
    assert len(tasks) > 10 and max(sum(len(item.text) for item in items) for items in found) <= 2000
    assert [(item.text, item.place) for items in found for item in items] == [
        (text, f"t.parquet:{row}") for row, text in enumerate(texts)
    ]
    assert sum(task.bytes for task in tasks) == Path("t.parquet").stat().st_size


@pytest.mark.parametrize("keep", [False, True], ids=["text", "dictionary"])
def test_a_dictionary_that_stands_for_a_terabyte_is_refused(keep):
    indices = pa.array([0] * 1_000_000, pa.int32())
    table = pa.table({"text": pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 1_000_000]))})
    (item,) = write(table, store_schema=keep)
    assert Path("t.parquet").stat().st_size < 100_000
    assert (item.line, item.reason) == (None, "more than 1 GiB and 200 times its size: a decompression bomb")


def test_two_columns_of_one_name_are_refused():
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    (item,) = write(table)
    assert item.reason == "two columns have the name 'text'"


@pytest.mark.parametrize("rows_a_batch", [1, 2, 1000])
def test_a_saved_data_set_is_cut_into_tasks_too(tmp_path, monkeypatch, rows_a_batch):
    monkeypatch.setattr(rows, "PART_BYTES", 500)
    texts = [f"{number} " * 20 for number in range(60)]
    (tmp_path / "set").mkdir()
    table = pa.table({"text": texts})
    with pa.OSFile("set/a.arrow", "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_a_batch)
    Path("set/state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    tasks = list(plan_source(Source(kind="datasets", path="set"), max_bytes=1000))
    assert len(tasks) >= 6
    found = [(item.text, item.place) for task in tasks for item in task.read()]
    assert found == [(text, f"set/a.arrow:{row}") for row, text in enumerate(texts)]
    assert sum(task.bytes for task in tasks) == Path("set/a.arrow").stat().st_size


def test_a_text_that_is_not_utf_8_is_refused_by_its_row():
    offsets = pa.array([0, 1, 2, 3], pa.int32()).buffers()[1]
    texts = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"a\xe9c")])
    items = write(pa.table({"text": texts}))
    assert [item.text if isinstance(item, Document) else (item.line, item.reason) for item in items] == [
        "a", (1, "text is not UTF-8, or a time that Python cannot represent"), "c"
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("us", "No/Where"), pa.duration("s")], ids=str)
def test_a_time_beyond_those_of_python_is_refused_by_its_row(kind):
    (item,) = write(pa.table({"text": ["x"], "when": pa.array([2**62]).cast(kind)}))
    assert (item.line, item.reason) == (0, "when is not UTF-8, or a time that Python cannot represent")


def test_an_extension_type_becomes_text():
    (item,) = write(pa.table({"text": ["x"], "u": pa.array([uuid.UUID(int=5).bytes], pa.uuid())}))
    assert json.loads(item.meta) == {"u": "00000000-0000-0000-0000-000000000005"}


def test_rows_of_nothing_but_an_index_are_refused_and_not_lost():
    items = write(pa.table({"__index_level_0__": [5, 6]}))
    assert [(item.line, item.bad) for item in items] == [(0, True), (1, True)]
