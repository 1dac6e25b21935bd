"""The sizes that the pages of a Parquet file declare, read before Arrow decodes a page.

Arrow decodes a page as a whole, so a reader must hold a page in memory; 25 kB can encode a page of 800 MB. The footer
gives only the sum over a column's pages, and that can be false. Page headers are structs of Thrift's compact protocol.
This module reads only the fields that it needs
(https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift). Used by: ingest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow.parquet as pq

HEADER_BYTES, MOST_HEADER_BYTES = 4096, 16 << 20  # of a page header: read first, and Arrow's limit
DEEPEST = 20  # nested structs
TRUE, FALSE, BYTE, DOUBLE, BINARY, STRUCT = 1, 2, 3, 7, 8, 12  # Thrift's types; 4 to 6 are integers, 0 ends a struct
UNCOMPRESSED, COMPRESSED = 2, 3  # fields of PageHeader
WITH_VALUES = (
    5,
    7,
    8,
)  # fields of PageHeader: header of a data page, of a dictionary page, of a data page v2; their field 1 counts values


@dataclass(frozen=True)
class Page:
    """A page: its size in bytes after decompression, and its number of values."""

    bytes: int
    values: int


def pages(path: Path, metadata: pq.FileMetaData) -> Iterator[Page]:
    """Every page of every column, located as Arrow locates it.

    Raises:
        ValueError: for a damaged page header.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        for group in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                column = metadata.row_group(group).column(number)
                if not column.num_values:  # Arrow reads no page of an empty column, and its offsets may be 0
                    continue
                place = column.data_page_offset
                if column.has_dictionary_page and 0 < column.dictionary_page_offset < place:
                    place = column.dictionary_page_offset
                end = min(place + column.total_compressed_size, size)
                while place < end:
                    page, length = _page(file, place)
                    yield page
                    place += length


def _page(file: IO[bytes], place: int) -> tuple[Page, int]:
    """(the page whose header begins at `place`, bytes of header and page in the file)."""
    most = HEADER_BYTES
    while True:
        file.seek(place)
        data = file.read(most)
        try:
            fields, length = _struct(data, 0, 0)
        except IndexError:
            if most >= MOST_HEADER_BYTES or len(data) < most:
                raise ValueError("a page header that does not end") from None
            most *= 16
            continue
        held, packed = _number(fields, UNCOMPRESSED), _number(fields, COMPRESSED)
        inner = next((fields[number] for number in WITH_VALUES if number in fields), None)
        return Page(held, _number(inner, 1) if isinstance(inner, dict) else 0), length + packed


def _number(fields: dict[int, object], number: int) -> int:
    value = fields.get(number)
    if not isinstance(value, int) or value < 0:
        raise ValueError("a page header without a size")
    return value


def _struct(data: bytes, place: int, depth: int) -> tuple[dict[int, object], int]:
    """(field -> integer, struct or None, offset after the struct). Raises IndexError when `data` is too short."""
    if depth > DEEPEST:
        raise ValueError("a page header nested too deeply")
    fields: dict[int, object] = {}
    number = 0
    while kind := data[place] & 15:
        step, place = data[place] >> 4, place + 1
        if step:
            number += step
        else:
            number, place = _zigzag(data, place)
        fields[number], place = _value(data, place, kind, depth)
    return fields, place + 1


def _value(data: bytes, place: int, kind: int, depth: int) -> tuple[object, int]:
    if kind in (TRUE, FALSE):  # the type of a boolean field is its value
        return None, place
    if kind == STRUCT:
        return _struct(data, place, depth + 1)
    if kind in (BYTE, DOUBLE):
        return None, place + (1 if kind == BYTE else 8)
    if kind < DOUBLE:
        return _zigzag(data, place)
    if kind == BINARY:
        length, place = _varint(data, place)
        if length >= MOST_HEADER_BYTES:
            raise ValueError("a page header that does not end")
        return None, place + length
    raise ValueError("a page header with a list or a map")  # the format defines no such field


def _zigzag(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a page header with a number of more than 64 bits")
