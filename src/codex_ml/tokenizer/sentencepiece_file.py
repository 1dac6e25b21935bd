"""Read a SentencePiece .model file: a protocol buffer (sentencepiece_model.proto), of which a few fields are needed.

This module parses them itself, so that neither protobuf nor sentencepiece reads a foreign file that is not yet checked.
Foreign files are read in a limited child process only (tokenizer.trials).
Used by: tokenizer.sentencepiece_model, tokenizer.trials.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codex_ml.core.errors import UserError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # ModelProto.SentencePiece.Type
GRID = 1 / 64  # Unigram scores are multiples of it, so float32 and float64 sums are exact, and ties are broken alike
OUT_OF_REACH = -1000.0  # nats; lower than any path of ordinary pieces, so byte and unknown pieces are the last choice


@dataclass(frozen=True)
class SentencePieceModel:
    """The contents of a .model file.

    Attributes:
        pieces: (text, score, type), indexed by id.
        unigram: True for Unigram, False for BPE.
        byte_fallback: unknown characters become their UTF-8 bytes.
        charsmap: compiled normalisation rules; empty for identity.
        dummy_prefix: a space is put before every text.
        squeeze: leading, trailing and repeated spaces are removed.
        escape: spaces become U+2581.
    """

    pieces: tuple[tuple[str, float, int], ...]
    unigram: bool
    byte_fallback: bool
    charsmap: bytes
    dummy_prefix: bool
    squeeze: bool
    escape: bool


def read_model(data: bytes, name: Path) -> SentencePieceModel:
    """Read a .model file.

    Raises:
        UserError: when it is damaged, or of a kind that tokenizer.json cannot express (word, char).
    """
    try:
        return _read_model(data)
    except (ValueError, IndexError, struct.error, OverflowError) as error:
        raise UserError(f"{name} cannot be used as a SentencePiece model: {error}") from None


def _read_model(data: bytes) -> SentencePieceModel:
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(data):
        if number == 1:
            piece = _message(value)
            (score,) = struct.unpack("<f", _data(piece, 2, bytes(4)))
            if score != score or abs(score) == float("inf"):
                raise ValueError(f"piece {len(pieces)} has the score {score}")
            pieces.append((_data(piece, 1).decode("utf-8"), score, _number(piece, 3, NORMAL)))
        elif number == 2:
            trainer = _message(value)
        elif number == 3:
            normalizer = _message(value)
    if not pieces:
        raise ValueError("it has no pieces")
    if len({text for text, _, _ in pieces}) != len(pieces):
        raise ValueError("it holds a piece twice")
    if (kind := _number(trainer, 3, 1)) not in (1, 2):
        raise ValueError(f"its model type is {kind}; allowed: unigram (1) and bpe (2)")
    if _number(trainer, 24, 0):
        raise ValueError("it treats white space as a suffix")
    return SentencePieceModel(
        pieces=tuple(pieces),
        unigram=kind == 1,
        byte_fallback=bool(_number(trainer, 35, 0)),
        charsmap=_data(normalizer, 2),
        dummy_prefix=bool(_number(normalizer, 3, 1)),
        squeeze=bool(_number(normalizer, 4, 1)),
        escape=bool(_number(normalizer, 5, 1)),
    )


def _message(value: Any) -> dict[int, Any]:
    """The fields of a message inside a message; of a repeated one the last."""
    if not isinstance(value, bytes):
        raise ValueError("it has a number where a message is expected")
    return dict(_fields(value))


def _data(message: dict[int, Any], number: int, default: bytes = b"") -> bytes:
    value = message.get(number, default)
    if not isinstance(value, bytes):
        raise ValueError(f"its field {number} is a number; expected bytes")
    return value


def _number(message: dict[int, Any], number: int, default: int) -> int:
    value = message.get(number, default)
    if not isinstance(value, int):
        raise ValueError(f"its field {number} is not a whole number")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (field number, value) of a protocol buffer message: int for varints, bytes for all other types."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == 2:
            length, place = _varint(data, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {place}")
        if place + length > len(data):
            raise ValueError(f"it ends inside the field at byte {place}")
        yield number, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if shift > 63:
            raise ValueError(f"a number of more than 64 bits at byte {place}")
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def on_grid(data: bytes) -> bytes:
    """The same model with the scores of ordinary pieces rounded to GRID; byte and unknown pieces get OUT_OF_REACH.

    sentencepiece adds scores as float32 and tokenizers as float64. Without rounding, they would break ties differently,
    such as the tie between the pieces "three spaces, one space" and "one space, three spaces".
    """
    result = bytearray()
    place = 0
    while place < len(data):
        start = place
        key, place = _varint(data, place)
        length, place = _varint(data, place)
        value = data[place : place + length]
        if key == (1 << 3 | 2):
            piece = dict(_fields(value))
            (score,) = struct.unpack("<f", piece.get(2, bytes(4)))
            ordinary = piece.get(3, NORMAL) == NORMAL
            rounded = round(score / GRID) * GRID if ordinary else OUT_OF_REACH
            body = b"\x0a" + _encoded(len(piece[1])) + piece[1] + b"\x15" + struct.pack("<f", rounded)
            if not ordinary:
                body += b"\x18" + _encoded(piece[3])
            result += b"\x0a" + _encoded(len(body)) + body
        else:
            result += data[start : place + length]
        place += length
    return bytes(result)


def _encoded(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])
