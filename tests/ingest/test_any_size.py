"""The corpus does not depend on the sizes at which ingest switches to its code for large data.

Every size is lowered, so that each way runs here; lines are shuffled and spread over shards, workers read and write.
"""

from __future__ import annotations

import gzip
import json
import random
import shutil
from importlib import import_module
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from codex_ml.ingest.config import Ingest, Source
from codex_ml.ingest.corpus import spilling
from codex_ml.ingest.corpus_writer import write_corpus
from codex_ml.ingest.sources import Tally, read_sources

SIZES = {
    "codex_ml.ingest.spill_sort": {"SPILL_BYTES": (1, 900, 20_000), "RUNS": (2, 3, 16)},
    "codex_ml.ingest.corpus_writer": {"ROW_GROUP_BYTES": (2000,), "ROW_GROUP_ROWS": (17, 1000)},
    "codex_ml.ingest.readers.compression": {"BLOCK": (50, 777, 1 << 20)},
    "codex_ml.ingest.readers.json_lines": {"START_BYTES": (1, 100, 1 << 20)},
    "codex_ml.ingest.readers": {"BATCH_BYTES": (1, 3000, 1 << 20), "BATCH_FILES": (1, 2, 1000)},
    "codex_ml.ingest.readers.files": {"BATCH_BYTES": (1, 500, 1 << 20), "BATCH_FILES": (1, 7)},
    "codex_ml.ingest.readers.table_rows": {"PART_BYTES": (1, 400, 1 << 20)},
    "codex_ml.ingest.readers.zips": {"TASK_BYTES": (1, 500), "TASK_FILES": (1, 7, 4096)},
    "codex_ml.ingest.readers.tars": {"TASK_BYTES": (1, 500), "TASK_FILES": (1, 7, 4096)},
}


def records():
    """Different texts, one text with many ids, long texts, metadata of all sizes, and a repeated id."""
    dice = random.Random(1)
    found = []
    for number in range(260):
        text = dice.choice(
            [f"text {dice.random()}", "the text of many", "long " * dice.randrange(300), "ä\n\U0001f600"]
        )
        record = {"id": f"d{number}", "text": f"{text} {number % 5}", "licence": dice.choice(["MIT", "0BSD"])}
        if number % 3 == 0:
            record["notes"] = "n" * dice.choice([1, 50, 4000])
        found.append(record)
    return found


def lower(monkeypatch, dice):
    for module, sizes in SIZES.items():
        for name, values in sizes.items():
            monkeypatch.setattr(import_module(module), name, dice.choice(values))


def corpus(sources, workers=0):
    """The rows of the corpus without their places, and its row groups."""
    settings = Ingest(sources=tuple(sources), max_document_bytes=3000)
    with spilling(Path("work/spills")) as spills:
        for row in read_sources(settings, spills, Tally(), workers=workers, advance=lambda _: None):
            assert "longer than" in row["reason"]
        write_corpus(Path("work/corpus.parquet"), spills, workers=workers, advance=lambda _: None)
    assert list(Path("work/spills").iterdir()) == []
    Path("work/spills").rmdir()
    assert [path.name for path in Path("work").iterdir()] == ["corpus.parquet"]
    return pq.read_table("work/corpus.parquet").drop_columns(["place"])


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("work").mkdir()


def shards(found, count):
    """JSON Lines in this many files, every second one compressed."""
    Path("in").mkdir()
    for number in range(count):
        data = "".join(json.dumps(record) + "\n" for record in found[number::count]).encode()
        packed = number % 2
        Path(f"in/{number}.jsonl{'.gz' if packed else ''}").write_bytes(gzip.compress(data) if packed else data)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Make something in a new folder, with the sizes that the library ships."""

    def run(make):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path_factory.mktemp("shipped"))
            Path("work").mkdir()
            return make()

    return run


@pytest.fixture(scope="module")
def corpus_of_one_file(elsewhere):
    def make():
        shards(records(), 1)
        return corpus([Source(kind="jsonl", path="in")])

    return elsewhere(make)


@pytest.mark.parametrize(
    ("seed", "workers"),
    [
        (0, 0),
        (1, 0),
        (10, 0),
        (99, 2),
        *(pytest.param(seed, 0, marks=pytest.mark.slow) for seed in (2, 3, 4, 5, 6, 7, 8, 9, 11)),
    ],
)
def test_shuffled_lines_in_shards_give_the_same_corpus_with_all_sizes_lowered(
    monkeypatch, corpus_of_one_file, seed, workers
):
    found = records()
    dice = random.Random(seed)
    dice.shuffle(found)
    shards(found, dice.choice([1, 2, 30, 200]))
    lower(monkeypatch, dice)
    assert corpus([Source(kind="jsonl", path="in")], workers).equals(corpus_of_one_file)


def archives():
    """A folder of files and three archives of it, as sources."""
    dice = random.Random(7)
    for number in range(60):
        file = Path(f"in/{dice.choice('abc')}/{number}.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"x = {number % 9}\n" * dice.choice([1, 5, 40]))
    for kind in ("zip", "tar", "gztar"):
        shutil.make_archive(kind, kind, "in")
    named = [("files", "in"), ("zip", "zip.zip"), ("tar", "tar.tar"), ("tar", "gztar.tar.gz")]
    return [Source(kind=kind, path=path, name=path, glob="**/*.py") for kind, path in named]


@pytest.fixture(scope="module")
def corpus_of_archives(elsewhere):
    return elsewhere(lambda: corpus(archives()))


@pytest.mark.parametrize("seed", [2, 3, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 1, 4, 5))])
def test_folders_and_archives_give_the_same_corpus_with_all_sizes_lowered(monkeypatch, corpus_of_archives, seed):
    assert corpus_of_archives.num_rows == 4 * 60
    lower(monkeypatch, random.Random(seed))
    assert corpus(archives()).equals(corpus_of_archives)
