"""Compares a JSON value with a JSON Schema: the part of draft 2020-12 that pydantic writes, and no other keyword.

The library that makes our schemas would accept what it wrote itself, so the tests check with these few lines instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip
SILENT = {"$defs", "$schema", "default", "description", "title"}  # say nothing about a value


def problems(value: Any, schema: dict[str, Any]) -> list[str]:
    """What is wrong with a value, each with its place; [] if it is valid.

    Raises:
        NotImplementedError: for a keyword that this module does not know, which could forbid something.
    """
    return list(_of(value, schema, schema.get("$defs", {}), "$"))


def _of(value: Any, schema: Any, defs: dict[str, Any], at: str) -> Iterator[str]:
    if schema is True:
        return
    for keyword, wanted in schema.items():
        if keyword not in SILENT | {"prefixItems", "additionalProperties"}:
            yield from CHECKS.get(keyword, _unknown(keyword))(value, wanted, defs, at)
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        for number, (item, inner) in enumerate(zip(value, first, strict=False)):
            yield from _of(item, inner, defs, f"{at}[{number}]")
        if first and len(value) > len(first) and "items" not in schema:
            yield f"{at}: more than {len(first)} items"
    if isinstance(value, dict):
        more = schema.get("additionalProperties", True)
        for key in sorted(value.keys() - schema.get("properties", {}).keys()):
            if more is False:
                yield f"{at}: {key} is not a key of the schema"
            else:
                yield from _of(value[key], more, defs, f"{at}.{key}")


def _unknown(keyword: str) -> Any:
    def refuse(*_: Any) -> Iterator[str]:
        raise NotImplementedError(keyword)

    return refuse


def _type(value: Any, wanted: str, defs: Any, at: str) -> Iterator[str]:
    if not isinstance(value, TYPES[wanted]) or (isinstance(value, bool) and wanted != "boolean"):
        yield f"{at}: expected {wanted}, found {value!r:.60}"


def _properties(value: Any, wanted: dict[str, Any], defs: dict[str, Any], at: str) -> Iterator[str]:
    for key, inner in wanted.items() if isinstance(value, dict) else ():
        if key in value:
            yield from _of(value[key], inner, defs, f"{at}.{key}")


def _required(value: Any, wanted: list[str], defs: Any, at: str) -> Iterator[str]:
    yield from (f"{at}: {key} is missing" for key in wanted if isinstance(value, dict) and key not in value)


def _items(value: Any, wanted: Any, defs: dict[str, Any], at: str) -> Iterator[str]:
    for number, item in enumerate(value) if isinstance(value, list) else ():
        yield from _of(item, wanted, defs, f"{at}[{number}]")


def _any_of(value: Any, wanted: list[Any], defs: dict[str, Any], at: str) -> Iterator[str]:
    found = [list(_of(value, each, defs, at)) for each in wanted]
    if all(found):
        yield f"{at}: fits none of {len(wanted)} forms: {found}"


def _ref(value: Any, wanted: str, defs: dict[str, Any], at: str) -> Iterator[str]:
    yield from _of(value, defs[wanted.removeprefix("#/$defs/")], defs, at)


def _one_of_values(value: Any, wanted: list[Any], defs: Any, at: str) -> Iterator[str]:
    if value not in wanted:
        yield f"{at}: {value!r:.60} is none of {wanted}"


def _pattern(value: Any, wanted: str, defs: Any, at: str) -> Iterator[str]:
    if isinstance(value, str) and not re.search(wanted, value):
        yield f"{at}: {value!r:.60} does not match {wanted}"


def _length(value: Any, wrong: bool, at: str) -> Iterator[str]:
    if isinstance(value, list) and wrong:
        yield f"{at}: {len(value)} items"


def _number(value: Any, wrong: bool, at: str) -> Iterator[str]:
    if wrong:
        yield f"{at}: {value} is out of range"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


CHECKS: dict[str, Any] = {
    "type": _type, "properties": _properties, "required": _required, "items": _items, "anyOf": _any_of, "$ref": _ref,
    "enum": _one_of_values, "pattern": _pattern,
    "const": lambda value, wanted, defs, at: _one_of_values(value, [wanted], defs, at),
    "minItems": lambda value, wanted, defs, at: _length(value, isinstance(value, list) and len(value) < wanted, at),
    "minimum": lambda value, wanted, defs, at: _number(value, _is_number(value) and value < wanted, at),
    "maximum": lambda value, wanted, defs, at: _number(value, _is_number(value) and value > wanted, at),
    "maxItems": lambda value, wanted, defs, at: _length(value, isinstance(value, list) and len(value) > wanted, at),
}  # fmt: skip
