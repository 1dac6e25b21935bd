"""Join row groups that worker processes encoded into one Parquet file, with the bytes that a single writer makes.

A worker writes its row group as a Parquet file of its own (`encoded`). `Joiner` appends the pages to the common file
and adds their position to the offsets in the metadata. So the parent process only copies compressed bytes.
The footer is a struct of Thrift's compact protocol. This module reads and writes all of its fields, also those that it
does not know; the constants below name the fields that hold offsets
(https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift,
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md).
Used by: ingest, split.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import pyarrow as pa

from codex_ml.core.errors import naming
from codex_ml.documents.document import parquet_writer

MAGIC = b"PAR1"
TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, STRUCT = 1, 2, 3, 7, 8, 9, 12  # Thrift's types; 4 to 6 are integers
NUM_ROWS, ROW_GROUPS = 3, 4  # fields of FileMetaData
COLUMNS, GROUP_ROWS, GROUP_OFFSET, ORDINAL = 1, 3, 5, 7  # fields of RowGroup
CHUNK_OFFSETS, COLUMN = (2, 4, 6), 3  # fields of ColumnChunk: offsets of the chunk and its two indexes; its metadata
COLUMN_OFFSETS = (9, 10, 11, 14)  # fields of ColumnMetaData: offsets of data, an index, a dictionary, a Bloom filter
MOST_ORDINALS = 1 << 15  # the ordinal is an int16; the writer leaves out larger ones


class Field(NamedTuple):
    """Thrift type and value of a field. The value is an integer, bytes, a `Struct`, or (type of the items, items)."""

    kind: int
    value: Any


Struct = dict[int, Field]


class EncodedGroup(NamedTuple):
    """An encoded row group: the bytes of its pages, and its metadata as if it were the first group of a file."""

    pages: bytes
    metadata: Struct


def encoded(table: pa.Table) -> EncodedGroup:
    """Encode a table of at least one row as one row group. Runs in a worker."""
    sink = pa.BufferOutputStream()
    with parquet_writer(sink, table.schema) as writer:
        writer.write_table(table, row_group_size=table.num_rows)
    file = bytes(sink.getvalue())
    footer, end = _footer_of(file)
    (group,) = footer[ROW_GROUPS].value[1]
    return EncodedGroup(file[len(MAGIC) : end], group)


class Joiner:
    """Write row groups that `encoded` returned to one Parquet file, in the order of the calls of `add`.

    >>> with Joiner(Path("all.parquet"), schema) as file:
    ...     file.add(encoded(first))
    ...     file.add(encoded(second))
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        empty = pa.BufferOutputStream()
        with parquet_writer(empty, schema):
            pass
        self._footer, _ = _footer_of(bytes(empty.getvalue()))
        self._groups: list[Struct] = []
        self._rows = 0
        self._file = path.open("wb")
        self._place = self._file.write(MAGIC)

    def add(self, group: EncodedGroup) -> None:
        """Append a row group; its table must have the same schema."""
        self._rows += group.metadata[GROUP_ROWS].value
        _shift(group.metadata, self._place - len(MAGIC), number=len(self._groups))
        self._groups.append(group.metadata)
        with naming(self.path):
            self._place += self._file.write(group.pages)

    def __enter__(self) -> Joiner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with naming(self.path), self._file:
            if kind is None:
                self._footer[NUM_ROWS] = self._footer[NUM_ROWS]._replace(value=self._rows)
                self._footer[ROW_GROUPS] = Field(LIST, (STRUCT, self._groups))
                footer = bytearray()
                _put_struct(footer, dict(sorted(self._footer.items())))
                self._file.write(footer + len(footer).to_bytes(4, "little") + MAGIC)


def _footer_of(file: bytes) -> tuple[Struct, int]:
    """(FileMetaData of a Parquet file, its offset)."""
    begin = len(file) - 8 - int.from_bytes(file[-8:-4], "little")
    footer, end = _struct(memoryview(file)[:-8], begin)
    assert end == len(file) - 8, "the footer must end where its length says"
    return footer, begin


def _shift(group: Struct, bytes_: int, *, number: int) -> None:
    """Add `bytes_` to the offsets of a row group. An offset of 0 means that the part does not exist."""

    def move(struct: Struct, fields: tuple[int, ...]) -> None:
        for field in fields:
            if field in struct and struct[field].value:
                struct[field] = struct[field]._replace(value=struct[field].value + bytes_)

    move(group, (GROUP_OFFSET,))
    if ORDINAL in group:
        group[ORDINAL] = group[ORDINAL]._replace(value=number)
        if number >= MOST_ORDINALS:
            del group[ORDINAL]
    for chunk in group[COLUMNS].value[1]:
        move(chunk, CHUNK_OFFSETS)
        move(chunk[COLUMN].value, COLUMN_OFFSETS)


def _struct(data: memoryview, place: int) -> tuple[Struct, int]:
    """(the struct that begins at `place`, the offset after it)."""
    fields: Struct = {}
    number = 0
    while header := data[place]:
        place += 1
        step, kind = header >> 4, header & 15
        if step:
            number += step
        else:
            number, place = _zigzag(data, place)
        value, place = (None, place) if kind in (TRUE, FALSE) else _value(data, place, kind)
        fields[number] = Field(kind, value)
    return fields, place + 1


def _value(data: memoryview, place: int, kind: int) -> tuple[Any, int]:
    if kind == STRUCT:
        return _struct(data, place)
    if kind == LIST:
        size, inner = data[place] >> 4, data[place] & 15
        place += 1
        if size == 15:
            size, place = _varint(data, place)
        items = []
        for _ in range(size):
            item, place = _value(data, place, inner)
            items.append(item)
        return (inner, items), place
    if kind == BINARY:
        length, place = _varint(data, place)
        return bytes(data[place : place + length]), place + length
    if kind == DOUBLE:
        return bytes(data[place : place + 8]), place + 8
    if kind in (TRUE, FALSE, BYTE):  # a boolean takes a byte only in a list
        return data[place], place + 1
    assert 3 < kind < DOUBLE, f"no footer has Thrift type {kind}"
    return _zigzag(data, place)


def _zigzag(data: memoryview, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7


def _put_struct(out: bytearray, fields: Struct) -> None:
    last = 0
    for number, (kind, value) in fields.items():
        if 0 < number - last < 16:
            out.append((number - last) << 4 | kind)
        else:
            out.append(kind)
            _put_varint(out, _unsigned(number))
        last = number
        if kind not in (TRUE, FALSE):
            _put_value(out, kind, value)
    out.append(0)


def _put_value(out: bytearray, kind: int, value: Any) -> None:
    if kind == STRUCT:
        _put_struct(out, value)
    elif kind == LIST:
        inner, items = value
        out.append(min(len(items), 15) << 4 | inner)
        if len(items) >= 15:
            _put_varint(out, len(items))
        for item in items:
            _put_value(out, inner, item)
    elif kind == BINARY:
        _put_varint(out, len(value))
        out += value
    elif kind == DOUBLE:
        out += value
    elif kind in (TRUE, FALSE, BYTE):
        out.append(value)
    else:
        _put_varint(out, _unsigned(value))


def _unsigned(value: int) -> int:
    """Zigzag encoding: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    return value << 1 if value >= 0 else (-value << 1) - 1


def _put_varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
