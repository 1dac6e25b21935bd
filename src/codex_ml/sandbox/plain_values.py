"""Plain values as JSON: what may pass between a solution and the process that judges it.

JSON has one number type, no tuple and text keys only, so the other types are tagged objects with one key:

    {"tuple": [...]}   {"set": [...]}   {"frozenset": [...]}   {"dict": [[key, value], ...]}
    {"bytes": "hex"}   {"bytearray": "hex"}   {"complex": [real, imaginary]}
    {"float": "nan" | "inf" | "-inf"}   {"int": "hex"} for integers beyond 64 bits

None, booleans, other numbers, text and lists are themselves. A subclass is sent as its plain base (a Counter as a
dict), so no class of the sender reaches the receiver: `decode` makes values of built-in types only.

Runs inside the sandbox too: it imports the standard library only. Used by: candidate, tester.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

DEPTH = 64  # containers inside containers
WIDE = 1 << 63  # from here on an integer is hexadecimal: Python refuses to parse more than 4300 decimal digits


class NotPlainError(TypeError):
    """A value is of a type that does not pass, or is nested too deeply. The message names the type."""


def encode(value: Any, depth: int = 0) -> Any:
    """Return the JSON form of a value; see the module for the tags.

    Raises:
        NotPlainError: for a value (or a part of one) that is not plain.
    """
    if value is None or value is True or value is False:
        return value
    if depth > DEPTH:
        raise NotPlainError(f"a value nested more than {DEPTH} deep")
    for kind, form in FORMS.items():
        if isinstance(value, kind):
            return form(value, depth + 1)
    raise NotPlainError(f"a value of the type {type(value).__name__}")


# Each form calls methods of the built-in type, so an override of a subclass does not run.
def _integer(value: Any, _: int) -> Any:
    number = int.__index__(value)
    return number if -WIDE <= number < WIDE else {"int": hex(number)}


def _float(value: Any, _: int) -> Any:
    number = float.__float__(value)
    return number if math.isfinite(number) else {"float": repr(number)}


def _complex(value: Any, depth: int) -> Any:
    number = complex.__complex__(value)
    return {"complex": [_float(number.real, depth), _float(number.imag, depth)]}


def _items(value: Any, depth: int, walk: Callable[[Any], Any]) -> list[Any]:
    return [encode(item, depth) for item in walk(value)]


def _dict(value: Any, depth: int) -> Any:
    return {"dict": [[encode(key, depth), encode(item, depth)] for key, item in dict.items(value)]}


FORMS: dict[type, Callable[[Any, int], Any]] = {
    int: _integer,
    float: _float,
    str: lambda value, _: str.__str__(value),
    list: lambda value, depth: _items(value, depth, list.__iter__),
    tuple: lambda value, depth: {"tuple": _items(value, depth, tuple.__iter__)},
    dict: _dict,
    set: lambda value, depth: {"set": _items(value, depth, set.__iter__)},
    frozenset: lambda value, depth: {"frozenset": _items(value, depth, frozenset.__iter__)},
    bytes: lambda value, _: {"bytes": bytes.hex(value)},
    bytearray: lambda value, _: {"bytearray": bytearray.hex(value)},
    complex: _complex,
}


def parse(data: bytes) -> Any:
    """Return the JSON form in hostile bytes.

    Raises:
        ValueError: if it is not JSON, or uses NaN or Infinity without a tag.
        RecursionError: if it is nested more deeply than the parser goes.
    """
    return json.loads(data, parse_constant=_refuse)


def decode(form: Any, depth: int = 0) -> Any:
    """Return the value of a JSON form.

    Raises:
        ValueError: for anything that `encode` does not write.
        TypeError: for a set or a key that cannot be hashed.
    """
    if depth > DEPTH:
        raise ValueError("nested too deeply")
    if type(form) is list:
        return [decode(item, depth + 1) for item in form]
    if type(form) is not dict:
        return form
    if len(form) != 1:
        raise ValueError("an object must have one tag")
    ((tag, content),) = form.items()
    if tag not in TAGS:
        raise ValueError("unknown tag")
    return TAGS[tag](content, depth + 1)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} must be tagged")


def _text(content: Any) -> str:
    if type(content) is not str:
        raise ValueError("text expected")
    return content


def _list(content: Any, depth: int) -> list[Any]:
    if type(content) is not list:
        raise ValueError("list expected")
    return [decode(item, depth) for item in content]


def _pairs(content: Any, depth: int) -> dict[Any, Any]:
    pairs = _list(content, depth)
    if any(type(pair) is not list or len(pair) != 2 for pair in pairs):
        raise ValueError("pairs expected")
    return dict(pairs)


def _special(content: Any, _: int) -> float:
    if content not in ("nan", "inf", "-inf"):
        raise ValueError("special float expected")
    return float(content)


def _parts(content: Any, depth: int) -> complex:
    parts = _list(content, depth)
    if len(parts) != 2 or any(type(part) is not float for part in parts):
        raise ValueError("two floats expected")
    return complex(*parts)


TAGS: dict[str, Callable[[Any, int], Any]] = {
    "tuple": lambda content, depth: tuple(_list(content, depth)),
    "set": lambda content, depth: set(_list(content, depth)),
    "frozenset": lambda content, depth: frozenset(_list(content, depth)),
    "dict": _pairs,
    "bytes": lambda content, _: bytes.fromhex(_text(content)),
    "bytearray": lambda content, _: bytearray.fromhex(_text(content)),
    "complex": _parts,
    "float": _special,
    "int": lambda content, _: int(_text(content), 16),
}
