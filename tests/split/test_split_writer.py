"""The splits and the list of dropped documents are the same for every number of workers, and follow the verdicts."""

import json
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.core import parallel
from codex_ml.documents.document import Document, read_documents
from codex_ml.ingest import corpus_writer
from codex_ml.ingest.corpus import measured, pieces_of, spilling
from codex_ml.ingest.corpus_writer import write_corpus
from codex_ml.split.candidates import DROPPED, DocumentKeys
from codex_ml.split.config import Split
from codex_ml.split.crew import Crew
from codex_ml.split.redaction import ScreenSettings, screen_settings
from codex_ml.split.split_writer import _Names, write_splits
from codex_ml.split.splits import CorpusSplit, Pool, column_bytes, corpus_bytes

quiet = lambda _: None  # noqa: E731
TOKEN = "ghp_" + "A1b2C3d4E5f6G7h8I9" * 2 + "kL"  # a rule of tests/project redacts it pragma: allowlist secret


def corpus_of(folder, texts, monkeypatch):
    """A corpus of small row groups, its documents in their order."""
    monkeypatch.setattr(corpus_writer, "ROW_GROUP_BYTES", 200)
    documents = [
        Document("s", f"p{n}", f"id{n}", "g" if n % 5 == 0 else "", "MIT", "text", text) for n, text in enumerate(texts)
    ]
    with spilling(folder / "spills") as spills:
        spills.add(pieces_of(measured(documents)))
        write_corpus(folder / "corpus.parquet", spills, advance=quiet)
    return folder / "corpus.parquet", list(read_documents(folder / "corpus.parquet"))


def decided(documents, part, kept_by, reason):
    size = np.array([len(document.content.encode()) for document in documents])
    passed = np.flatnonzero(part != DROPPED)
    unit = np.array([1 if documents[row].group else row + 2 for row in passed], dtype=np.uint64)
    grouped = np.array([bool(documents[row].group) for row in passed])
    empty = np.zeros(len(passed), dtype=np.uint64)
    changed = np.array([TOKEN in document.content for document in documents])
    candidates = DocumentKeys(empty, empty, empty, unit, grouped, np.zeros(len(passed), dtype=np.int32))
    reasons = ["", "near-duplicate", "few letters"]
    pool = Pool(reason, reasons, size, changed, passed, candidates, Counter(), set(), 0, set())
    return CorpusSplit(part, reason, kept_by.astype(np.int32), reasons), pool


@pytest.mark.parametrize("workers", [0, 2])
def test_every_document_is_in_its_split_and_redacted(tmp_path, monkeypatch, project, workers):
    texts = [f"use {TOKEN} {n}" if n % 7 == 0 else f"plain text number {n}" for n in range(60)]
    path, documents = corpus_of(tmp_path, texts, monkeypatch)
    policy = screen_settings(
        Split(),
        policy=project / "data/policy.yaml",
        lock=project / "data/detectors.lock",
        key=project / "data/redaction_key",
        benchmarks=tmp_path / "none",
    )
    row = np.arange(60)
    part = np.where(row % 4 == 3, DROPPED, row % 4).astype(np.int8)
    kept_by = np.where(row % 8 == 3, (row * 7 + 1) % 60 // 4 * 4, -1)
    reason = np.where(row % 8 == 3, 1, np.where(row % 8 == 7, 2, 0)).astype(np.int8)
    result, pool = decided(documents, part, kept_by, reason)
    told = []
    out = tmp_path / "out"
    out.mkdir()

    @contextmanager
    def watch(what, total, unit):
        assert (what, total, unit) == ("split: write", pool.size.sum(), "bytes")
        yield told.append

    counts = write_splits(out, path, result, pool, policy, Crew(workers, watch))

    assert sum(told) == pool.size.sum()
    assert sorted(file.name for file in out.iterdir()) == [
        "dropped.ndjson", "test.parquet", "train.parquet", "val.parquet",
    ]  # fmt: skip
    for number, name in enumerate(("train", "val", "test")):
        expected = [document for document, at in zip(documents, part, strict=True) if at == number]
        found = list(read_documents(out / f"{name}.parquet"))
        assert [document.id for document in found] == [document.id for document in expected]
        for before, after in zip(expected, found, strict=True):
            if TOKEN in before.text:
                head, _, tail = before.text.partition(TOKEN)
                assert after.text.startswith(f"{head}<SECRET:github-token:")
                assert after.text.endswith(f">{tail}")
            else:
                assert after == before
        numbers = counts[name].as_dict()
        assert numbers["documents"] == len(expected)
        assert numbers["bytes"] == sum(len(document.content.encode()) for document in expected)
        assert numbers["groups"] == len({document.group for document in expected} - {""})
        assert numbers["sources"] == {"s": len(expected)}
    lines = [json.loads(line) for line in (out / "dropped.ndjson").read_text().splitlines()]
    assert lines == [
        {
            "source": "s", "path": documents[n].path, "id": documents[n].id,
            "reason": "near-duplicate" if n % 8 == 3 else "few letters",
            "kept": documents[kept_by[n]].id if n % 8 == 3 else "",
        }
        for n in range(60) if part[n] == DROPPED
    ]  # fmt: skip


@pytest.mark.parametrize("several", [3, *(pytest.param(workers, marks=pytest.mark.slow) for workers in (2, 5))])
def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path, monkeypatch, several):
    path, documents = corpus_of(tmp_path, [f"text number {n}" * (n % 9 + 1) for n in range(90)], monkeypatch)
    row = np.arange(90)
    part = np.where(row % 3 == 2, DROPPED, row % 2).astype(np.int8)
    kept_by = np.where(part == DROPPED, (row + 1) % 90, -1)
    result, pool = decided(documents, part, kept_by, (part == DROPPED).astype(np.int8))
    settings_ = ScreenSettings(Split(policy="off"), None, b"", "")
    written = {}
    for workers in (0, several):
        out = tmp_path / str(workers)
        out.mkdir()
        with parallel.shared_workers(workers):
            write_splits(out, path, result, pool, settings_, Crew(workers))
        written[workers] = {file.name: file.read_bytes() for file in out.iterdir()}
    assert written[0] == written[several]
    assert pq.ParquetFile(tmp_path / "0/train.parquet").num_row_groups > 5


@given(st.lists(st.tuples(st.booleans(), st.text(max_size=5)), min_size=1, max_size=30), st.integers(1, 7), st.data())
@settings(max_examples=60, deadline=None)
def test_names_are_read_back_from_their_file(tmp_path_factory, ids, step, data):
    rows = np.flatnonzero([needed for needed, _ in ids]).astype(np.int32)
    asked = np.array(data.draw(st.lists(st.sampled_from([-1, *rows.tolist()]), max_size=9)), dtype=np.int32)
    encoded = [name.encode("utf-8", "replace") for _, name in ids]
    with _Names(tmp_path_factory.mktemp("names") / "names", rows) as names:
        for start in range(0, len(ids), step):
            here = slice(start, min(len(ids), start + step))
            names.write([name for name, needed in zip(encoded[here], names.needed(here), strict=True) if needed])
        names.seal()
        whole = names.path.read_bytes()
        found = [whole[start:end] for start, end in names.bytes_of(asked).tolist()]
    assert found == [b"" if row < 0 else encoded[row] for row in asked.tolist()]
    assert not names.path.exists()


def test_the_size_of_the_work_counts_all_columns(tmp_path):
    documents = [
        Document("s", "", f"{n}", "", "MIT", "text", "short", meta='{"a": "%s"}' % ("m" * n)) for n in range(50)
    ]
    with spilling(tmp_path / "spills") as spills:
        spills.add(pieces_of(measured(documents)))
        write_corpus(tmp_path / "corpus.parquet", spills, advance=quiet)
    assert corpus_bytes(tmp_path / "corpus.parquet") == 50 * len("short")
    assert column_bytes(tmp_path / "corpus.parquet") > 50 * len("short") + sum(range(50))
