"""What the tests of the readers share: sources from bytes, and what `plan` and `read` make of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from codex_ml.documents.document import Document, Refused, documents_of
from codex_ml.ingest.config import Source
from codex_ml.ingest.readers import plan_source
from codex_ml.ingest.readers.json_lines import plan_lines
from codex_ml.ingest.readers.tasks import Context, ReadTask
from codex_ml.ingest.sources import read_task

MAX_BYTES = 1000
LIMIT = 1 << 20  # bytes of a line for MAX_BYTES


def tasks(kind: str, path: str = "in", *, max_bytes: int = MAX_BYTES, **settings: Any) -> Iterator[ReadTask]:
    """The tasks of a source below the current folder."""
    return plan_source(Source(kind=kind, path=path, **settings), max_bytes=max_bytes)


def ingest(kind: str, path: str = "in", **settings: Any) -> tuple[list[Document], list[Refused]]:
    """(documents, refused) the way the stage gets them: planned, read by a worker, through its table."""
    documents: list[Document] = []
    refused: list[Refused] = []
    for task in tasks(kind, path, **settings):
        result = read_task(task)
        documents += documents_of(result.table())
        refused += result.refused
    return documents, refused


def write(name: str, data: bytes | str) -> Path:
    """A file below the current folder, byte for byte."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
    return path


def read_lines(data: bytes | str, *, name: str = "in.jsonl", **settings: Any) -> tuple[list[Document], list[Refused]]:
    """(documents, refused) of JSON Lines."""
    write(name, data)
    return ingest("jsonl", name, **settings)


def read_record(record: Any, **settings: Any) -> Document | Refused:
    """The document of one record, or its refusal."""
    (item,) = [item for items in read_lines(json.dumps(record), **settings) for item in items]
    return item


def cut_lines(blocks: Iterable[bytes], *, limit: int = LIMIT, max_bytes: int = MAX_BYTES) -> list[Document | Refused]:
    """The documents and refusals of JSON Lines that arrive in these blocks."""
    context = Context(Source(kind="jsonl", path="in.jsonl"), "in.jsonl", max_bytes)
    items: list[Document | Refused] = []
    for task in plan_lines(((block, len(block)) for block in blocks), context, limit=limit):
        items += [task] if isinstance(task, Refused) else task.read()
    return items


def texts(documents: Iterable[Document]) -> list[str | None]:
    return [document.text for document in documents]


def reasons(refused: Iterable[Refused]) -> list[tuple[int | None, str]]:
    return [(item.line, item.reason) for item in refused]


def line_of(document: Document) -> int:
    """The line at which the document was read, by its `place`."""
    return int(document.place.rpartition(":")[2])
