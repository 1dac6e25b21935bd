"""The corpus on disk: one Parquet schema for all stages, streamed by row group."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from codex_ml.errors import UserError

ROW_GROUP_BYTES = 8 << 20  # of text; what a reader holds at a time


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        source: where it came from, such as "flask==3.1.2" or the path of a file.
        path: name inside the source.
        licence: SPDX expression, or "unknown".
        language: name such as "python", by file extension.
        sha256: of the text as UTF-8, hexadecimal.
        text: the text itself.
    """

    source: str
    path: str
    licence: str
    language: str
    sha256: str
    text: str

    @property
    def id(self) -> str:
        """Identity of the place it stands at: 16 hexadecimal digits."""
        return hashlib.sha256(f"{self.source}\0{self.path}".encode()).hexdigest()[:16]


SCHEMA = pa.schema([(field.name, pa.large_string()) for field in fields(Document)])


def write_documents(path: Path, documents: Iterable[Document]) -> tuple[int, int]:
    """Write documents as zstd Parquet; memory does not grow with their number.

    Returns:
        (number of documents, bytes of text).
    """
    count = total = held = 0
    rows: list[tuple[str, ...]] = []
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", store_schema=False) as writer:

        def flush() -> None:
            columns = zip(*rows, strict=True)
            writer.write_table(pa.table([pa.array(c, pa.large_string()) for c in columns], schema=SCHEMA))
            rows.clear()

        for document in documents:
            size = len(document.text.encode("utf-8"))
            count, total, held = count + 1, total + size, held + size
            rows.append(astuple(document))
            if held >= ROW_GROUP_BYTES:
                flush()
                held = 0
        if rows:
            flush()
    return count, total


def read_documents(path: Path) -> Iterator[Document]:
    """Stream the documents of a Parquet file in their order.

    Raises:
        UserError: when the file is missing or damaged.
    """
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            columns = file.read_row_group(group, columns=SCHEMA.names).to_pydict()
            yield from (Document(*row) for row in zip(*columns.values(), strict=True))


def count_documents(path: Path) -> int:
    """Number of documents of a Parquet file, from its footer; see `read_documents`."""
    with _opened(path) as file:
        return int(file.metadata.num_rows)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro` makes it") from None
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is damaged ({reason}); `dvc checkout` or `dvc repro` brings it back") from None
