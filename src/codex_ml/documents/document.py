"""The corpus on disk: one Parquet schema for all stages, streamed by row group.

A document has one of three forms: `text`, `prompt` + `completion`, or chat `messages` (with optional `tools`).
Messages, tools and free metadata are stored as JSON texts: a column of structs would add keys that a record does not
have (huggingface/trl#5118).
Used by: ingest, split, tokenizer, pack, evaluate, safety_audit, the commands of `codex-ml`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from codex_ml.core.errors import UserError, naming, one_line, raise_disk_error
from codex_ml.core.pipeline import remedy

OTHERWISE = "name a whole file of documents, such as data/splits/val.parquet"
ROW_GROUP_BYTES = 8 << 20  # of text; a reader holds one row group at a time
ROWS_TOGETHER = 4096  # documents that become Python objects at once, of which a row group of short ones has 100,000
FORMS = ("text", "prompt", "completion", "messages", "tools")  # the fields that detectors read and redaction changes


@dataclass(frozen=True, slots=True)
class Document:
    """One document.

    Attributes:
        source: origin, such as "flask==3.1.2" or the name of a source in params.yaml.
        path: name inside the source; "" for a record of a table.
        id: the user's own id, else 16 hexadecimal digits of a hash of source, path and content.
        group: documents of one group are never in different splits; "" for no group.
        licence: SPDX expression, or "unknown".
        language: name such as "python"; "text" for a record that names none, "other" for an unknown file name.
        text, prompt, completion, messages, tools: the content in its form; None for the other forms. Messages and tools
            are JSON texts.
        meta: JSON object of all other fields of a record; "" for none.
        place: file, and line or row, at which it was read. Only the corpus has it, for messages to people.
    """

    source: str
    path: str
    id: str
    group: str
    licence: str
    language: str
    text: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    tools: str | None = None
    meta: str = ""
    place: str = ""

    @property
    def content(self) -> str:
        """The document as one text, as a language model without a chat template reads it."""
        if self.text is not None:
            return self.text
        if self.messages is None:
            return f"{self.prompt or ''}{self.completion or ''}"
        return "".join(f"{m.get('role', '')}: {_as_text(m.get('content'))}\n" for m in json.loads(self.messages))


@dataclass(frozen=True, slots=True)
class Refused:
    """A record or file that did not become a document, and why. data/corpus/refused.ndjson lists it.

    Attributes:
        source, path: as in `Document`.
        line: physical line (number of LF bytes before it, plus 1), or row from 0 in a Parquet file; None for a file.
        reason: what was found, in a few words; a `Reason` where it shows a value of the document.
        bad: True for an error in the data (damage, wrong encoding, wrong type), which `bad_records` of its source
            decides about. False for valid data that is not a document (empty, too long, a link).
        place: file, and the member of an archive, for messages to people; "" where source and path say it.
    """

    source: str
    path: str
    line: int | None
    reason: str
    bad: bool = True
    place: str = ""

    @property
    def row(self) -> dict[str, Any]:
        """A line of refused.ndjson."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "place"}


def writable(name: str) -> str:
    """A file name as text that UTF-8 can encode. Other bytes in the name become escapes such as `\\udcff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def derived_id(source: str, path: str, content: str) -> str:
    """The id of a document that has none: it depends on source, path and content, never on its row or file shard."""
    return hashlib.sha256(f"{source}\0{path}\0{content}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def canonical(text: str) -> str:
    """The form in which texts are compared: LF line ends, no blanks at line ends, no empty lines at the end.

    Case and Unicode form stay, because they are content. `canonical(canonical(x)) == canonical(x)`.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    if " \n" in text or "\t\n" in text or "\r\n" in text:  # by line: a regular expression backtracks over long blanks
        text = "\n".join(line.rstrip(" \t\r") for line in text.split("\n"))
    return text.rstrip(" \t\r\n")


def _as_text(content: Any) -> str:
    """The text of a message's content, which is a text, null, or a list of parts (chat formats of several vendors)."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(text for text in parts if isinstance(text, str))
    return ""


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of a JSON value with `change` applied to every text in it, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [map_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {change(key): map_texts(item, change) for key, item in value.items()}
    return value


TEXT_COLUMNS = [field.name for field in fields(Document)]
PUBLISHED = [name for name in TEXT_COLUMNS if name != "place"]  # a row number would depend on the order of the input
SCHEMA = pa.schema([pa.field(name, pa.large_string()) for name in PUBLISHED])
_ROW = attrgetter(*PUBLISHED)


def table_of(documents: Sequence[Document]) -> pa.Table:
    """Documents as an Arrow table with `SCHEMA`, one row per document."""
    columns = zip(*map(_ROW, documents), strict=True) if documents else ([] for _ in PUBLISHED)
    return pa.table([text_column(column) for column in columns], schema=SCHEMA)


def text_column(values: Sequence[str | None]) -> pa.Array:
    """Texts as an Arrow column of large strings (len(values),), built from their bytes; None becomes null.

    `pa.array` takes three times as long, and it imports pandas to test the type of the list.
    """
    encoded = [b"" if value is None else value.encode("utf-8") for value in values]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(data) for data in encoded], out=offsets[1:])
    present = np.array([value is not None for value in values], dtype=bool)
    validity = None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
    buffers = [validity, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(encoded), buffers)


def number_column(values: NDArray[Any]) -> pa.Array:
    """Numbers or booleans (n,) as an Arrow column of the same type; see `text_column`."""
    if values.dtype == bool:
        bits = pa.py_buffer(np.packbits(values, bitorder="little"))
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, bits])
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def numbers_of(table: pa.Table, name: str) -> NDArray[Any]:
    """A column of integers without nulls: (rows,) of its own type. It is a view where the column has one chunk."""
    parts = []
    for chunk in table.column(name).chunks:
        dtype = np.dtype(str(chunk.type))
        parts.append(np.frombuffer(chunk.buffers()[1], dtype, len(chunk), chunk.offset * dtype.itemsize))
    if not parts:  # a filter that matches no row leaves no chunk
        return np.empty(0, np.dtype(str(table.schema.field(name).type)))
    return np.concatenate(parts) if len(parts) != 1 else parts[0]


def row_bytes(table: pa.Table) -> NDArray[np.int64]:
    """Bytes of each row over all columns: (rows,) int64. Columns must be large strings, numbers or booleans."""
    sizes = np.zeros(table.num_rows, dtype=np.int64)
    for column in table.columns:
        if not pa.types.is_large_string(column.type):
            sizes += max(1, column.type.bit_width // 8)
            continue
        place = 0
        for chunk in filter(len, column.chunks):  # an empty one may have no buffer
            offsets = np.frombuffer(chunk.buffers()[1], np.int64, len(chunk) + 1, chunk.offset * 8)
            sizes[place : place + len(chunk)] += np.diff(offsets)
            place += len(chunk)
    return sizes


def documents_of(table: pa.Table | pa.RecordBatch) -> Iterator[Document]:
    """Turn rows of a table into documents; columns that are not fields of a document are ignored."""
    names = [name for name in TEXT_COLUMNS if name in table.schema.names]
    columns = [table.column(name).to_pylist() for name in names]
    if names == TEXT_COLUMNS[: len(names)]:  # true for every file we write; takes half the time of keyword arguments
        yield from map(Document, *columns)
        return
    yield from (Document(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True))


def write_documents(path: Path, documents: Iterable[Document]) -> tuple[int, int]:
    """Write documents as zstd Parquet; memory does not grow with their number.

    Returns:
        (number of documents, bytes of content).
    """
    count = total = held = 0
    rows: list[Document] = []
    with parquet_writer(path, SCHEMA) as writer:
        for document in documents:
            size = len(document.content.encode("utf-8"))
            count, total, held = count + 1, total + size, held + size
            rows.append(document)
            if held >= ROW_GROUP_BYTES:
                writer.write_table(table_of(rows))
                rows, held = [], 0
        if rows:
            writer.write_table(table_of(rows))
    return count, total


def parquet_writer(path: Path | pa.NativeFile, schema: pa.Schema) -> pq.ParquetWriter:
    """A Parquet writer whose bytes depend on the rows only.

    Only columns with repeated values use dictionaries, because dictionaries do not make texts smaller.
    """
    repeating = [name for name in ("source", "group", "licence", "language") if name in schema.names]
    return pq.ParquetWriter(path, schema, compression="zstd", store_schema=False, use_dictionary=repeating)


def read_documents(path: Path) -> Iterator[Document]:
    """Stream the documents of a Parquet file in the order of its rows.

    Raises:
        UserError: when the file is missing or damaged.
    """
    with opened(path) as file:
        names = [name for name in TEXT_COLUMNS if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):  # a batch of several groups would hold them all
            for batch in file.iter_batches(ROWS_TOGETHER, row_groups=[group], columns=names):
                yield from documents_of(batch)


def places_of(path: Path, names: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Where documents were read, for messages to people: (source, id) -> file and line.

    Names that the corpus does not hold are left out.
    """
    found = {}
    with opened(path) as file:
        for batch in file.iter_batches(columns=["source", "id", "place"]):
            for source, id, place in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if (source, id) in names:
                    found[source, id] = place
    return found


def count_documents(path: Path) -> int:
    """Number of documents of a Parquet file, from its footer; see `read_documents`."""
    with opened(path) as file:
        return int(file.metadata.num_rows)


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file that a stage wrote; its errors say what to do. Raises as `read_documents`."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {remedy(path, OTHERWISE)}") from None
    except (pa.ArrowException, OSError) as error:
        if "reading bytes" in str(error):  # Arrow failed to read this file; other errors may come from a file written
            with naming(path):
                raise_disk_error(error)
        raise_disk_error(error)
        raise UserError(f"{path} is damaged ({one_line(error)}); {remedy(path, OTHERWISE)}") from None
