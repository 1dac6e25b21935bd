"""JSON by RFC 8259: written with sorted keys; NaN, duplicate keys, deep nesting and too many values are refused.

A value takes up to 150 bytes of memory, so the number of values is what limits memory: 100 MB of `[]` took 2.4 GB.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import Reason, UserError

NESTED = 200  # levels of arrays and objects that a JSON text may have (RFC 8259 section 9 allows such a limit)
TOO_DEEP = f"nested too deeply, more than {NESTED} levels"
VALUES = 4_000_000  # values of a JSON text; the vocabularies with the most pieces have a million, with their merges
TOO_MANY = f"it holds more than {VALUES:,} values"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)  # a text that does not end is read once, too


def dump_json(value: Any, *, indent: int | None = 2) -> str:
    """JSON by RFC 8259: sorted keys, a final newline, and a `ValueError` for NaN and Infinity (section 6)."""
    return json.dumps(value, indent=indent, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def ndjson_line(value: Any) -> bytes:
    """`value` as a line of NDJSON with its newline, in UTF-8; a lone surrogate is an escape such as `\\ud800`."""
    return dump_json(value, indent=None).encode("utf-8", "backslashreplace")


def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON.

    Raises:
        ValueError: for NaN, Infinity, a number that overflows, duplicate keys, or any other departure from RFC 8259;
            for more than NESTED levels or VALUES values.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    if text.startswith("\ufeff"):
        raise json.JSONDecodeError("unexpected byte order mark", text, 0)
    if len(text) > VALUES and _counted(text) > VALUES:
        raise ValueError(Reason(TOO_MANY))
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _same_in_every_python(error) from None
    except RecursionError:
        raise ValueError(Reason(TOO_DEEP)) from None
    if text.count("[") + text.count("{") > NESTED and _is_too_deep(value):
        raise ValueError(Reason(TOO_DEEP))
    return value


def _counted(text: str) -> int:
    """An upper bound of the number of values, by their brackets, braces and commas; those in strings do not count."""
    count = sum(map(text.count, "[{,"))
    return count if count <= VALUES else sum(map(_STRING.sub("", text).count, "[{,"))


def _is_too_deep(value: Any) -> bool:
    """Whether arrays and objects are nested deeper than NESTED. Python 3.11 parses 900 levels, 3.13 ten thousand."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(NESTED):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _same_in_every_python(error: json.JSONDecodeError) -> json.JSONDecodeError:
    """The error as Python 3.13 words it: older versions point at the character after a trailing comma."""
    before = error.doc[: error.pos].rstrip(" \t\n\r")
    expected = {"]": ("array", "Expecting value"), "}": ("object", "Expecting property name enclosed in double quotes")}
    kind, message = expected.get(error.doc[error.pos : error.pos + 1], ("", ""))
    if before.endswith(",") and error.msg == message:
        return json.JSONDecodeError(f"Illegal trailing comma before end of {kind}", error.doc, len(before) - 1)
    return error


def _refuse_constant(name: str) -> Any:
    raise ValueError(Reason(f"{name} is not JSON (RFC 8259 section 6)"))


def _finite_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(Reason("the number {} is too large for a double", text))
    return number


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = next(key for key, count in counts.items() if count > 1)
        raise ValueError(Reason("the key {!r} stands twice in one object", repeated[:100]))
    return result


def parse_json_file(data: bytes | str, name: str, *, line: int | None = None) -> Any:
    """Parse a file of the project, or one line of it.

    Args:
        name: the file, for messages.
        line: the number of the line in the file; None for a whole file.

    Raises:
        UserError: for conflict markers of a merge, or anything else that is not strict JSON.
    """
    try:
        return parse_json(data)
    except ValueError as error:
        refuse_conflict(data, name, first_line=line or 1)
        where = f"{name}:{line}" if line else name
        raise UserError(f"{where} is not valid JSON: {error}") from None


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite_float, object_pairs_hook=_unique_keys)
