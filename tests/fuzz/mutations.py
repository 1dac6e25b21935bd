"""Random changes of an input: of bytes, of JSON values, of the fields of a protocol buffer, of the text of a template.

All randomness comes from the `random.Random` that is given, so a number and a seed give the same input again.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from copy import deepcopy
from random import Random
from typing import Any

EDGES = (0, 1, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
FORMATS = ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q")
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, -(2**63), 2**64, 10**30, 0.5, 1e308, -0.0, "", "a", "\0", "\ud800", "../../x",
    "\u2581", "a" * 5000, [], {}, [[]], [None] * 500, {"": ""}, {"type": "Sequence"}, ["a", "a"], "[" * 300, "\u202e\x1b[2J",
)  # fmt: skip


def changed_bytes(data: bytes, rng: Random, *, others: Sequence[bytes] = (), tail: float = 0.0) -> bytes:
    """One to four changes: of bits, of whole numbers, of spans.

    Args:
        others: further inputs, of which a span may be copied.
        tail: share of the changes that fall into the last 600 bytes, where Parquet and zip have their index.
    """
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if not made:
            made += rng.randbytes(8)
        begin = max(len(made) - 600, 0) if rng.random() < tail else 0
        at = rng.randrange(begin, len(made))
        span = slice(at, at + rng.choice((1, 1, 2, 4, 8, 16, 64, 1000)))
        change = rng.randrange(9)
        if change == 0:
            made[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            made[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif change in (2, 3):
            form = rng.choice(FORMATS)
            size = struct.calcsize(form)
            made[at : at + size] = struct.pack(form, (rng.choice(EDGES) + rng.randrange(-2, 3)) % 256**size)
        elif change == 4:
            del made[span]
        elif change == 5:
            made[at:at] = bytes(made[span]) * rng.choice((1, 1, 2, 50))
        elif change == 6:
            made[at:at] = rng.randbytes(rng.choice((1, 2, 8, 40)))
        elif change == 7:
            del made[at:]
        elif others:
            other = rng.choice(others)
            begin = rng.randrange(len(other) or 1)
            made[span] = other[begin : begin + rng.choice((4, 64, 1000))]
    return bytes(made)


def changed_json(value: Any, rng: Random, *, odd: Sequence[Any] = ()) -> Any:
    """A copy of a JSON value in which one to three places have another value, no value, or another name.

    Args:
        odd: values that mean something in this format, beside `VALUES`.
    """
    value = deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _changed_place(value, rng, (*VALUES, *odd))
    return value


def _changed_place(value: Any, rng: Random, choices: Sequence[Any]) -> Any:
    if not value or not isinstance(value, dict | list) or rng.random() < 0.1:
        return _other_value(value, rng, choices)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    action = rng.randrange(10)
    if action == 0:
        del value[key]
    elif action == 1 and isinstance(value, dict):
        value[rng.choice(("", "type", "a" * 300, str(key) + "x", "__metadata__", "auto_map"))] = value.pop(key)
    elif action == 2 and isinstance(value, list):
        value += value[: rng.choice((1, 10, 200))]
    elif action == 3:
        value[key], value[keys[0]] = value[keys[0]], value[key]
    else:
        value[key] = _changed_place(value[key], rng, choices)
    return value


def _other_value(value: Any, rng: Random, choices: Sequence[Any]) -> Any:
    if type(value) is int and rng.random() < 0.5:
        return rng.choice((value + 1, value - 1, -value, value * 2**20, value * 1000, float(value)))
    if isinstance(value, str) and value and rng.random() < 0.5:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(("\0", "\u00e9", "\U0001f468", "(", "+", "*", "{99999}", value * 3)) + value[at:]
    if rng.random() < 0.03:
        depth = rng.choice((100, 201, 900, 5000))
        nested: Any = []
        for _ in range(min(depth, 900)):
            nested = [nested]
        return nested
    return deepcopy(rng.choice(choices))  # a change of the result must not change the next input


def json_bytes(value: Any, rng: Random) -> bytes:
    """JSON text of a value; now and then with a change of its bytes, or with a key that occurs twice."""
    try:
        text = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    except RecursionError:
        text = b"[" * 5000 + b"]" * 5000
    if rng.random() < 0.05:
        text = text.replace(b"{", b'{"a": 1, "a": 2, ', 1)
    return changed_bytes(text, rng) if rng.random() < 0.1 else text


def changed_message(data: bytes, rng: Random) -> bytes:
    """A protocol buffer in which one field, at any depth, has another number, type, length or value."""
    fields = _fields(data)
    if not fields:
        return changed_bytes(data, rng)
    at = rng.randrange(len(fields))
    number, wire, value = fields[at]
    action = rng.randrange(8)
    if action == 0:
        fields[at] = (rng.choice((0, 1, 2, 3, 35, 2**28)), wire, value)
    elif action == 1:
        fields[at] = (number, 0, _varint(rng.choice(EDGES)))
    elif action == 2:
        fields[at] = (number, rng.choice((1, 2, 3, 5, 7)), value)
    elif action == 3:
        fields += [fields[at]] * rng.choice((1, 3, 100))
    elif action == 4:
        del fields[at]
    elif wire == 2 and action < 7:
        fields[at] = (number, wire, changed_message(value, rng))
    else:
        fields[at] = (number, wire, changed_bytes(value, rng))
    return b"".join(_field(*field) for field in fields)


def _fields(data: bytes) -> list[tuple[int, int, bytes]]:
    """Fields (number, wire type, bytes of the value) of a message; [] if it is none."""
    fields, place = [], 0
    while place < len(data):
        key, place = _read_varint(data, place)
        begin = place
        if key & 7 == 0:
            _, place = _read_varint(data, place)
        elif key & 7 == 2:
            length, begin = _read_varint(data, place)
            place = begin + length
        elif key & 7 in (1, 5):
            place += 8 if key & 7 == 1 else 4
        else:
            return []
        if place > len(data):
            return []
        fields.append((key >> 3, key & 7, data[begin:place]))
    return fields


def _field(number: int, wire: int, value: bytes) -> bytes:
    return _varint(number << 3 | wire) + (_varint(len(value)) if wire == 2 else b"") + value


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data):
        value |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if data[place - 1] < 0x80:
            break
    return value, place


def changed_text(text: str, rng: Random, pieces: Sequence[str]) -> str:
    """A text with one to three pieces put in, taken out or repeated; the pieces are parts of its language."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, stop = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        action = rng.randrange(4)
        if action == 0:
            text = text[:at] + text[at + rng.choice((1, 2, 10)) :]
        elif action == 1:
            text = text[:at] + text[at : min(stop, at + 200)] * rng.choice((2, 3, 20)) + text[at:]
        else:
            text = text[:at] + rng.choice(pieces) + text[at:]
    return text


def one_of(changes: Sequence[Callable[[Random], bytes]]) -> Callable[[Random], bytes]:
    """A change that is one of these, drawn anew each time."""
    return lambda rng: rng.choice(changes)(rng)
