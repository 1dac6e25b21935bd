"""Plain values as JSON: what may pass between a solution and the process that judges it.

JSON has one number type, no tuple and text keys only, so the other types are tagged objects with one key:

    {"tuple": [...]}   {"set": [...]}   {"frozenset": [...]}   {"dict": [[key, value], ...]}
    {"bytes": "hex"}   {"bytearray": "hex"}   {"complex": [real, imaginary]}
    {"float": "nan" | "inf" | "-inf"}   {"int": "hex"} for integers beyond 64 bits

None, booleans, other numbers, text and lists are themselves. A subclass is sent as its plain base (a Counter as a
dict), so no class of the sender reaches the receiver: `loads` makes values of built-in types only.

Runs inside the sandbox, where an interpreter starts in 7 ms and the imports of json and typing would take 12 more. So
it uses the functions in C that the module json itself uses. Used by: guest, candidate, tester, supervisor.
"""

from __future__ import annotations

from _json import encode_basestring_ascii, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

DEPTH = 64  # containers inside containers
WIDE = 1 << 63  # from here on an integer is hexadecimal: Python refuses to parse more than 4300 decimal digits


class NotPlainError(TypeError):
    """A value is of a type that does not pass, or is nested too deeply. The message names the type."""


def dumps(value: Any, depth: int = 0) -> str:
    """Return the value as JSON in ASCII, without line breaks; see the module for the tags.

    Raises:
        NotPlainError: for a value (or a part of one) that is not plain.
    """
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if depth > DEPTH:
        raise NotPlainError(f"a value nested more than {DEPTH} deep")
    for kind, form in FORMS.items():
        if isinstance(value, kind):
            return form(value, depth + 1)
    raise NotPlainError(f"a value of the type {type(value).__name__}")


# Each form calls methods of the built-in type, so an override of a subclass does not run.
def _integer(value: Any, _: int) -> str:
    number = int.__index__(value)
    return int.__repr__(number) if -WIDE <= number < WIDE else f'{{"int":"{number:#x}"}}'


def _float(value: Any, _: int) -> str:
    number = float.__float__(value)
    return float.__repr__(number) if number - number == 0 else f'{{"float":"{number!r}"}}'


def _complex(value: Any, depth: int) -> str:
    number = complex.__complex__(value)
    return f'{{"complex":[{_float(number.real, depth)},{_float(number.imag, depth)}]}}'


def _listed(items: Iterable[Any], depth: int) -> str:
    return f"[{','.join([dumps(item, depth) for item in items])}]"


def _tagged(tag: str, walk: Callable[[Any], Iterable[Any]]) -> Callable[[Any, int], str]:
    return lambda value, depth: f'{{"{tag}":{_listed(walk(value), depth)}}}'


FORMS: dict[type, Callable[[Any, int], str]] = {
    int: _integer,
    float: _float,
    str: lambda value, _: encode_basestring_ascii(str.__str__(value)),
    list: lambda value, depth: _listed(list.__iter__(value), depth),
    tuple: _tagged("tuple", tuple.__iter__),
    dict: _tagged("dict", lambda value: [list(item) for item in dict.items(value)]),
    set: _tagged("set", set.__iter__),
    frozenset: _tagged("frozenset", frozenset.__iter__),
    bytes: lambda value, _: f'{{"bytes":"{bytes.hex(value)}"}}',
    bytearray: lambda value, _: f'{{"bytearray":"{bytearray.hex(value)}"}}',
    complex: _complex,
}


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} must be tagged")


class _Rules:
    """How the scanner reads: strictly, and into built-in types; see json.JSONDecoder."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int, parse_constant = float, int, staticmethod(_refuse)


SCAN = make_scanner(_Rules)  # type: ignore[arg-type]


def loads(line: bytes) -> Any:
    """Return the value that a hostile line stands for; it is of built-in types only.

    Raises:
        ValueError: for anything that `dumps` does not write.
    """
    try:
        text = line.decode("ascii")
        form, end = SCAN(text, 0)
        if text[end:].strip():
            raise ValueError("more than one value")
        return _decode(form, 0)
    except (TypeError, RecursionError, StopIteration) as error:  # a key that cannot be hashed, depth, no JSON
        raise ValueError(f"not a plain value: {type(error).__name__}") from None


def _decode(form: Any, depth: int) -> Any:
    if depth > DEPTH:
        raise ValueError("nested too deeply")
    if type(form) is list:
        return [_decode(item, depth + 1) for item in form]
    if type(form) is not dict:
        return form
    if len(form) != 1:
        raise ValueError("an object must have one tag")
    ((tag, content),) = form.items()
    if tag not in TAGS:
        raise ValueError("unknown tag")
    return TAGS[tag](content, depth + 1)


def _text(content: Any) -> str:
    if type(content) is not str:
        raise ValueError("text expected")
    return content


def _list(content: Any, depth: int) -> list[Any]:
    if type(content) is not list:
        raise ValueError("list expected")
    return [_decode(item, depth) for item in content]


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
