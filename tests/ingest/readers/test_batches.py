"""Small files, small row groups and refusals share a task. The documents do not depend on it."""

from __future__ import annotations

import json
import os
import random
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codex_ml.core.errors import UserError
from codex_ml.ingest import readers
from codex_ml.ingest.config import Ingest, Source
from codex_ml.ingest.corpus import spilling
from codex_ml.ingest.corpus_writer import write_corpus
from codex_ml.ingest.readers import compression, zips
from codex_ml.ingest.readers import table_rows as rows
from codex_ml.ingest.readers.tasks import BatchTask
from codex_ml.ingest.sources import Tally, read_sources

sys.path.insert(0, str(Path(__file__).parent))
from helpers import tasks, write


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def stage(kind, path="in", **settings):
    """(bytes of the corpus, rows of refused.ndjson)."""
    source = Source(kind=kind, path=path, **{"bad_records": "skip", **settings})
    with TemporaryDirectory(dir=".") as folder, spilling(Path(folder, "spills")) as spills:
        read = read_sources(Ingest(sources=(source,)), spills, Tally(), workers=0, advance=lambda _: None)
        refused = list(read)
        write_corpus(Path("corpus.parquet"), spills, workers=0, advance=lambda _: None)
    return Path("corpus.parquet").read_bytes(), refused


def one_by_one(monkeypatch):
    monkeypatch.setattr(readers, "BATCH_FILES", 1)
    monkeypatch.setattr(rows, "PART_BYTES", 1)


def lines(dice, number):
    """Records, some of them bad, some with an id that occurs again in this file or in another file."""
    found = []
    for _ in range(dice.choice([0, 1, 1, 2, 30])):
        record = {
            "id": dice.choice([f"{number}-{dice.randrange(9)}", f"{dice.randrange(9)}"]),
            "text": f"{dice.random()}",
        }
        found.append(dice.choice([json.dumps(record)] * 8 + ["{", '{"text": ""}', "", "\x00"]))
    return "\n".join(found)


def test_many_small_files_share_a_task(monkeypatch):
    for number in range(50):
        write(f"in/{number:02}.jsonl", json.dumps({"text": f"text {number}"}) + "\n")
    (task,) = tasks("jsonl")
    assert isinstance(task, BatchTask) and len(task.tasks) == 50
    assert (task.file, task.bytes) == ("in/00.jsonl", sum(f.stat().st_size for f in Path("in").iterdir()))
    monkeypatch.setattr(readers, "BATCH_FILES", 20)
    assert [len(task.tasks) for task in tasks("jsonl")] == [20, 20, 10]
    monkeypatch.setattr(readers, "BATCH_BYTES", 12 * len('{"text": "text 11"}\n'))
    assert [len(task.tasks) for task in tasks("jsonl")] == [12, 12, 12, 12, 2]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
@pytest.mark.parametrize(("block", "batch_bytes"), [(4 << 20, 4 << 20), (300, 4 << 20), (4 << 20, 900), (300, 900)])
def test_the_corpus_and_what_is_refused_are_those_of_files_read_one_by_one(monkeypatch, seed, block, batch_bytes):
    """Refusals keep the order of files and lines too, wherever files are cut."""
    dice = random.Random(seed)
    for number in range(25):
        write(f"in/{number:02}.jsonl", lines(dice, number))
    with monkeypatch.context() as patch:
        one_by_one(patch)
        expected = stage("jsonl")
    monkeypatch.setattr(compression, "BLOCK", block)
    monkeypatch.setattr("codex_ml.ingest.readers.json_lines.START_BYTES", 100)
    monkeypatch.setattr(readers, "BATCH_BYTES", batch_bytes)
    corpus, refused = stage("jsonl")
    assert [row for row in refused if row not in expected[1]] == []
    assert [row for row in expected[1] if row not in refused] == []
    assert [(r["path"], r["line"]) for r in refused] == [(r["path"], r["line"]) for r in expected[1]]
    assert (corpus, refused) == expected
    places = [(row["path"], row["line"]) for row in expected[1] if row["line"] is not None]
    assert places == sorted(places)


def test_an_id_may_occur_again_in_another_file_but_not_in_its_own():
    write("in/a.jsonl", '{"id": "x", "text": "one"}\n{"id": "y", "text": "two"}\n')
    write("in/b.jsonl", '{"id": "x", "text": "three"}\n{"id": "x", "text": "four"}\n')
    _, refused = stage("jsonl")
    assert [(row["path"], row["line"]) for row in refused] == [("in/b.jsonl", 2)]


def test_the_policy_of_bad_records_holds_inside_of_a_batch():
    for number in range(9):
        write(f"in/{number}.jsonl", json.dumps({"text": f"fine {number}"}) + "\n" + "{\n" * (number % 3))
    with pytest.raises(UserError, match=r"in/1\.jsonl:2: not JSON"):
        stage("jsonl", bad_records="fail")
    with pytest.raises(UserError, match=r"max_bad_records = 4 bad records, the last is in/5\.jsonl:2"):
        stage("jsonl", max_bad_records=4)
    assert len(stage("jsonl", max_bad_records=9)[1]) == 9


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_row_groups_of_every_size_give_the_same_documents(monkeypatch, seed):
    dice = random.Random(seed)
    texts = [dice.choice(["a", "b" * 40, "c" * 500, "", None]) for _ in range(300)]
    table = pa.table({"id": [f"{dice.randrange(200)}" for _ in texts], "text": pa.array(texts, pa.string())})
    Path("in").mkdir()
    found = []
    for size, part in [(300, 16 << 20), (1, 16 << 20), (1, 2000), (7, 300), (97, 300), (300, 700)]:
        monkeypatch.setattr(rows, "PART_BYTES", part)
        with pq.ParquetWriter("in/t.parquet", table.schema) as writer:
            for start in range(0, 300, size):
                writer.write_table(table.slice(start, size))
                writer.write_table(table.slice(0, 0))
        found.append(stage("parquet"))
    assert found == [found[0]] * 6
    assert [row["line"] for row in found[0][1]] == sorted(row["line"] for row in found[0][1])


@pytest.mark.parametrize("groups", [10, 400])
def test_a_file_of_tiny_row_groups_is_opened_as_often_as_its_bytes_need(monkeypatch, groups):
    """Each opening reads the footer, which has an entry per row group: 4,000 row groups took 31 s."""
    pq.write_table(pa.table({"text": [f"text {number}" for number in range(groups)]}), "in.parquet", row_group_size=1)
    opened = []
    plain = pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda path: opened.append(path) or plain(path))
    assert sum(1 for task in tasks("parquet", "in.parquet") for _ in task.read()) == groups
    assert len(opened) == 2


def test_refused_members_of_an_archive_share_a_task():
    with tarfile.open("in.tar", "w") as archive:
        for number in range(300):
            info = tarfile.TarInfo(f"{number}.py")
            info.size = 2000
            archive.addfile(info, BytesIO(b"x" * 2000))
    (task,) = tasks("tar", "in.tar")
    assert [item.path for item in task.read()] == [f"{number}.py" for number in range(300)]


@pytest.mark.parametrize("changed", [False, True])
def test_the_directory_of_a_zip_file_is_read_once_by_a_process(monkeypatch, changed):
    """Each reading takes 5 us per member, and a large archive has hundreds of tasks."""
    monkeypatch.setattr(zips, "TASK_BYTES", 100)
    names = [f"{number:03}.py" for number in range(200)]
    with zipfile.ZipFile("in.zip", "w") as archive:
        for name in names:
            archive.writestr(name, f"x = '{name}'\n" * 5)
    found = list(tasks("zip", "in.zip"))
    assert len(found) > 50
    opened = []
    plain = zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda raw: opened.append(raw) or plain(raw))
    documents = [item for task in found for item in task.read()]
    assert [item.path for item in documents] == names
    assert len(opened) == 1 and opened[0].closed
    if changed:
        next(found[0].read())
        os.utime("in.zip", ns=(0, 0))
        assert [item.path for item in found[3].read()] == [item.path for item in documents[6:8]]
        assert len(opened) == 3 and opened[1].closed
