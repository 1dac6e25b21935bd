"""Parquet and saved data sets: the physical type of a column is no property of the text."""

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codex_ml.config import Source
from codex_ml.data.documents import Document
from codex_ml.data.readers import parquet as module
from codex_ml.data.readers import plan
from codex_ml.errors import UserError

TEXTS = ["one", "zwei\n", "three"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(kind="parquet", path="t.parquet", **settings):
    return [item for task in plan(Source(kind=kind, path=path, **settings), max_bytes=1000) for item in task.read()]


def write(table, name="t.parquet", **options):
    pq.write_table(table, name, **options)
    return read(path=name)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())], ids=str)
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_every_kind_of_text_column_and_row_group_gives_the_same_documents(kind, rows):
    table = pa.table({"text": pa.array(TEXTS).cast(kind), "id": ["a", "b", "c"]})
    items = write(table, row_group_size=rows)
    assert [(item.text, item.id, item.meta, item.place) for item in items] == [
        (text, name, "", f"t.parquet:{row}") for row, (text, name) in enumerate(zip(TEXTS, "abc", strict=True))
    ]


def test_an_index_of_pandas_is_no_metadata():
    items = write(pa.table({"text": TEXTS, "__index_level_0__": [5, 6, 7]}))
    assert {item.meta for item in items} == {""}


def test_keys_that_arrow_fills_in_are_not_there():
    calls = [[{"role": "user", "content": "hi"}, {"role": "tool", "content": "3", "name": "add"}]]
    (item,) = write(pa.table({"messages": calls}))
    assert json.loads(item.messages) == calls[0]


def test_metadata_is_json():
    day = datetime.date(2020, 2, 29)
    (item,) = write(
        pa.table({"text": ["x"], "n": [2**60], "d": [day], "f": [float("nan")], "b": [b"\x01"], "l": [[1, 2]]})
    )
    assert json.loads(item.meta) == {"n": 2**60, "d": "2020-02-29", "f": None, "b": "01", "l": [1, 2]}


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
    assert (item.line, item.reason) == (None, "the column text is int64, a text column is wanted")


def test_no_rows_is_said_and_not_bad():
    (item,) = write(pa.table({"text": pa.array([], pa.string())}))
    assert (item.reason, item.bad) == ("holds no row", False)


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
    with pytest.raises(UserError, match=r"names '\.\./x\.arrow', which is no file in that folder"):
        read("datasets", "set")


def test_a_dictionary_of_splits_says_which_there_are(tmp_path):
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
