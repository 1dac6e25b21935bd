"""A footer that makes Arrow call `abort` ends a child process, and the file is refused like any other damaged one."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codex_ml.documents.document import Document
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers import plan_source
from codex_ml.ingest.readers.parquet_footer import footer_kills

# One row of {"text": "a", "tags": ["x", "y"]}; one byte of the footer names a histogram of another length.
ABORTS = zlib.decompress(base64.b64decode(
    'eNplUT1rwzAQPclCDSFDYnLGAhO8RGRwTFNI6JClSycPoXMXEUQbyIdru63TX9Df0p/YqScHt4aCdIdO9969J23uHhYosI/9DDmCD8AAwCCgj3'
    '5CpSFKlNEKZsyEzIxGdMvdZowDAcc4zii1wNqFM6EnOEmo/oc+h6z+RXvcReExj6NQj0sIZbl9tgeDAnAw5aGobF1NIYuobemO5qkkMTJbu4II'
    'xX5XVsgvzVd2bw/22PYHXEUq0RDhQC1BDtWFDekiKIJCp7rX9aOcTnBcQHI5rAkvlW50dkhuGw3N3HYeMYrgk9HSX0x/dG3+I9VCac7VvbPtNH'
    '6zgOseJZjFuSleXm013+b53BTF6T1+s0W5Ox3jm1V6nS5UQracs4Red0Mf9gORQD4i'
))  # fmt: skip
KILLED = "damaged: the child process that read its footer ended"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def items(path: str) -> list[object]:
    planned = plan_source(Source(kind="parquet", path=path), max_bytes=1000)
    return [item for task in planned for item in task.read()]


def test_a_footer_that_aborts_is_refused_and_the_next_file_is_read() -> None:
    Path("bad.parquet").write_bytes(ABORTS)
    pq.write_table(pa.table({"text": ["a"], "tags": [["x", "y"]]}), "good.parquet")
    (refused,) = items("bad.parquet")
    assert refused.reason == KILLED  # type: ignore[attr-defined]
    (document,) = items("good.parquet")
    assert isinstance(document, Document) and document.text == "a"


def test_an_error_that_python_can_catch_is_left_to_the_reader() -> None:
    Path("cut.parquet").write_bytes(ABORTS[:-9])
    assert footer_kills(Path("cut.parquet")) is None
    (refused,) = items("cut.parquet")
    assert refused.reason.startswith("damaged, or no Parquet file (")  # type: ignore[attr-defined]
