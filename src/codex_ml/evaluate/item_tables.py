"""The tables of a result folder: one row per item, as Parquet and as NDJSON, streamed.

A row has texts that say which item it is, and numbers that add up over items: the columns of the metrics. Everything
that is reported about a task is computed from its Parquet file, so that anyone can compute it again.
Used by: the tasks of evaluate.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from codex_ml.core.errors import UserError
from codex_ml.core.io import atomic_file
from codex_ml.core.publication import published
from codex_ml.core.strict_json import ndjson_line
from codex_ml.documents.document import Document, count_documents, number_column, opened, text_column

ITEM, UNIT = "item", "unit"
ROWS = 4096  # per row group, at most
GROUP_BYTES = 8 << 20  # of texts per row group; the writer holds one row group
DECIMALS = 9


def content_hash(text: str) -> str:
    """16 hexadecimal digits of the SHA-256 of a text; texts that differ get different ones."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def unit_of(document: Document) -> str:
    """What documents are resampled by: the group of a document, else its content."""
    return content_hash(f"group\0{document.group}" if document.group else f"content\0{document.content}")


@dataclass
class ItemTable:
    """A table that is being written.

    Attributes:
        texts: names of the text columns; `item` and `unit` are the first two.
        numbers: names of the number columns.
        rows: number of rows so far.
    """

    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    _parquet: pq.ParquetWriter = field(repr=False)
    _lines: IO[bytes] = field(repr=False)
    rows: int = 0
    _held: list[tuple[tuple[str, ...], NDArray[np.float64]]] = field(default_factory=list, repr=False)
    _bytes: int = 0

    def add(self, texts: Mapping[str, str], numbers: Mapping[str, float]) -> None:
        """Add a row; its texts pass the gate of `core.publication`.

        Args:
            texts: a value for each text column.
            numbers: a value for each number column; NaN for one that is not known.
        """
        assert texts.keys() == set(self.texts), f"{sorted(texts)} are not the columns {sorted(self.texts)}"
        assert numbers.keys() == set(self.numbers), f"{sorted(numbers)} are not the columns {sorted(self.numbers)}"
        values = tuple(published(texts[name]) for name in self.texts)
        row: NDArray[np.float64] = np.array([numbers[name] for name in self.numbers], dtype=np.float64).round(DECIMALS)
        self._lines.write(
            ndjson_line(dict(zip((*self.texts, *self.numbers), (*values, *map(plain, row)), strict=True)))
        )
        self._held.append((values, row))
        self._bytes += sum(map(len, values))
        self.rows += 1
        if len(self._held) >= ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        columns = [text_column(column) for column in zip(*(values for values, _ in self._held), strict=True)]
        numbers = np.stack([row for _, row in self._held])
        columns += [number_column(np.ascontiguousarray(numbers[:, k])) for k in range(len(self.numbers))]
        self._parquet.write_table(pa.table(columns, schema=self._parquet.schema))
        self._held, self._bytes = [], 0


def plain(number: float) -> float | int | None:
    """A number as JSON has it: 12 instead of 12.0, and null for NaN and infinity."""
    if not math.isfinite(number):
        return None
    return int(number) if float(number).is_integer() else float(number)


@contextmanager
def write_table(folder: Path, stem: str, *, texts: Sequence[str], numbers: Iterable[str]) -> Iterator[ItemTable]:
    """Write `<stem>.parquet` and `<stem>.ndjson` in a folder, both atomically. Holds one row group in memory.

    Args:
        texts: text columns beside `item` and `unit`, which come first.
        numbers: number columns, float64.

    Raises:
        UserError: when a metric of another package names one of its numbers like a text column.

    >>> with write_table(folder, "documents", texts=["source"], numbers=["nll"]) as table:  # doctest: +SKIP
    ...     table.add({"item": "a", "unit": "1f", "source": "flask"}, {"nll": 12.5})
    """
    names, numbers = (ITEM, UNIT, *texts), tuple(numbers)
    if clash := sorted(set(names) & set(numbers)):
        raise UserError(f"a metric has the column {clash[0]}, which {stem}.parquet has for a text; rename the column")
    fields = [pa.field(name, pa.large_string()) for name in names]
    schema = pa.schema(fields + [pa.field(name, pa.float64()) for name in numbers])
    with (
        atomic_file(folder / f"{stem}.parquet") as file,
        atomic_file(folder / f"{stem}.ndjson") as lines,
        pq.ParquetWriter(file, schema, compression="zstd", store_schema=False, use_dictionary=names[2:]) as writer,
    ):
        table = ItemTable(names, numbers, writer, lines)
        yield table
        table._flush()


def read_numbers(file: Path, columns: Sequence[str]) -> NDArray[np.float64]:
    """Number columns of a table: (rows, columns) float64."""
    numbers, start = np.empty((count_documents(file), len(columns))), 0
    for part in number_batches(file, columns):
        numbers[start : start + len(part)] = part
        start += len(part)
    return numbers


def number_batches(file: Path, columns: Sequence[str]) -> Iterator[NDArray[np.float64]]:
    """Number columns of a table, in parts of at most `ROWS` rows: (rows, columns) float64 each."""
    with opened(file) as parquet:
        for batch in parquet.iter_batches(ROWS, columns=list(columns), use_threads=False):
            yield np.stack([np.asarray(batch.column(name)) for name in columns], 1)


def read_columns(file: Path, columns: Sequence[str], convert: Any) -> NDArray[Any]:
    """Read columns batch by batch and join what `convert` makes of each batch."""
    with opened(file) as parquet:
        empty = parquet.schema_arrow.empty_table().select(list(columns))  # a file of no rows has no batch
        parts = [
            convert(empty),
            *(convert(batch) for batch in parquet.iter_batches(ROWS, columns=list(columns), use_threads=False)),
        ]
    return np.concatenate(parts)
