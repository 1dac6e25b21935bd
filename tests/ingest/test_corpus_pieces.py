"""Cutting the corpus into spill files costs the same for small tables and for large ones, and leaves no trace."""

import random

import pytest

from codex_ml.documents.document import Document
from codex_ml.ingest import spill_sort
from codex_ml.ingest.corpus import measured, pieces_of, spilling
from codex_ml.ingest.corpus_writer import write_corpus

quiet = lambda _: None  # noqa: E731


@pytest.fixture(scope="module")
def table():
    dice = random.Random(0)
    texts = ["".join(dice.choices("abcdef \n", k=dice.randrange(6000))) for _ in range(900)]  # several Parquet pages
    return measured([Document("s", f"p{i}", f"{i}", "", "MIT", "python", text) for i, text in enumerate(texts)])


@pytest.mark.parametrize("spill_bytes", [10_000, 60_000])
def test_the_bytes_do_not_depend_on_how_a_spill_file_was_sorted(tmp_path, monkeypatch, table, spill_bytes):
    found = []
    for limit in (128 << 20, spill_bytes):
        monkeypatch.setattr(spill_sort, "SPILL_BYTES", limit)
        folder = tmp_path / str(limit)
        with spilling(folder) as spills:
            spills.add(pieces_of(table))
            write_corpus(tmp_path / "corpus.parquet", spills, advance=quiet)
        found.append((tmp_path / "corpus.parquet").read_bytes())
    assert found[0] == found[1]
