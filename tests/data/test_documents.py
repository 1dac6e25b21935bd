"""Documents come back from Parquet as they went in, whatever their size and number."""

import pytest

from codex_ml.data import documents as module
from codex_ml.data.documents import Document, count_documents, read_documents, write_documents
from codex_ml.errors import UserError


def document(text, path="a.py"):
    return Document("source", path, "MIT", "python", "0" * 64, text)


def test_documents_come_back_in_order_over_row_groups(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    monkeypatch.setattr(module, "ROW_GROUP_BYTES", 10)
    written = [
        document(text, str(i)) for i, text in enumerate(["ä" * 6, "b", "", "\r\n\u2028\0", "c" * 30, "\U0001f600"])
    ]
    assert write_documents(tmp_path / "d.parquet", iter(written)) == (6, 12 + 1 + 0 + 6 + 30 + 4)
    assert list(read_documents(tmp_path / "d.parquet")) == written
    assert count_documents(tmp_path / "d.parquet") == 6
    assert pq.ParquetFile(tmp_path / "d.parquet").num_row_groups == 3


def test_equal_documents_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_documents(tmp_path / name, (document(str(i)) for i in range(100)))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_documents_are_a_file_without_rows(tmp_path):
    assert write_documents(tmp_path / "d.parquet", []) == (0, 0)
    assert list(read_documents(tmp_path / "d.parquet")) == []


def test_an_id_depends_on_the_place_only():
    # sha256(b"source\0a.py")[:16] with coreutils' sha256sum
    assert document("x").id == document("y").id == "edc58b512225b85e"
    assert document("x", "b.py").id != document("x").id


def test_a_missing_or_damaged_file_is_told(tmp_path):
    with pytest.raises(UserError, match=r"d\.parquet is missing; `dvc repro` makes it$"):
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
        with pytest.raises(
            UserError, match=r"d\.parquet is damaged \(.*\); `dvc checkout` or `dvc repro` brings it back"
        ):
            list(read_documents(tmp_path / "d.parquet"))
