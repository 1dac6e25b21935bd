"""Values pass between solution and tests as plain values of built-in types, or not at all."""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from decimal import Decimal
from enum import IntEnum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codex_ml.sandbox.plain_values import DEPTH, NotPlainError, dumps, loads

KEYS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
LEAVES = KEYS | st.floats() | st.complex_numbers() | st.binary().map(bytearray) | st.frozensets(KEYS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner) | st.sets(KEYS),
    max_leaves=20,
)


def through(value: object) -> object:
    return loads(dumps(value).encode("ascii") + b"\n")


def shape(value: object) -> object:
    """The value with its types, comparable: NaN equals NaN, 1 differs from 1.0 and True, sets have no order."""
    match value:
        case list() | tuple():
            return type(value), [shape(item) for item in value]
        case set() | frozenset():
            return type(value), sorted(repr(shape(item)) for item in value)
        case dict():
            return dict, [(shape(key), shape(item)) for key, item in value.items()]
    return type(value), repr(value)


@settings(max_examples=50)
@given(VALUES)
def test_each_plain_value_arrives_with_its_types(value: object) -> None:
    assert shape(through(value)) == shape(value)


def test_the_forms_are_those_of_the_module_description() -> None:
    forms = {
        '[null,true,false,1,1.5,"a\\u00e9\\n"]': [None, True, False, 1, 1.5, "a\u00e9\n"],
        '{"tuple":[1,{"set":[2]}]}': (1, {2}),
        '{"dict":[[{"tuple":[1,2]},{"bytes":"00ff"}]]}': {(1, 2): b"\x00\xff"},
        '[{"float":"inf"},{"float":"-inf"},{"float":"nan"}]': [math.inf, -math.inf, math.nan],
        '[{"int":"0x8000000000000000"},-9223372036854775808]': [2**63, -(2**63)],
        '[{"complex":[1.0,-2.0]},{"bytearray":"61"},{"frozenset":[]}]': [1 - 2j, bytearray(b"a"), frozenset()],
    }
    assert {dumps(value): value for value in forms.values()} == forms
    assert all(json.loads(form) for form in forms)


def test_an_integer_of_ten_thousand_digits_arrives() -> None:
    assert through(-(10**10_000)) == -(10**10_000)


def test_a_subclass_arrives_as_its_plain_base() -> None:
    class Colour(IntEnum):
        RED = 3

    class Liar(int):
        def __eq__(self, _: object) -> bool:
            return True

        __hash__ = int.__hash__
        __index__ = None  # type: ignore[assignment]

    Point = namedtuple("Point", "x y")
    values = [Colour.RED, Liar(7), Point(1, 2), Counter("aab"), OrderedDict(a=1), defaultdict(int, {1: 2})]
    arrived = through(values)
    assert repr(arrived) == "[3, 7, (1, 2), {'a': 2, 'b': 1}, {'a': 1}, {1: 2}]"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (object(), "object"),
        (iter([]), "list_iterator"),
        (Decimal(1), "Decimal"),
        (range(3), "range"),
        (len, "builtin_function_or_method"),
        ([{"a": {1: map}}], "type"),
    ],
)
def test_any_other_value_is_refused_with_its_type(value: object, name: str) -> None:
    with pytest.raises(NotPlainError, match=f"^a value of the type {name}$"):
        dumps(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(NotPlainError, match=rf"nested more than {DEPTH} deep"):
        dumps(value)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_depth_is_limited_on_arrival_too() -> None:
    assert loads(nested(DEPTH + 1).encode()) is not None
    with pytest.raises(ValueError, match="nested too deeply"):
        loads(nested(DEPTH + 2).encode())
    with pytest.raises(ValueError, match="RecursionError"):
        loads(nested(100_000).encode())


@pytest.mark.parametrize(
    "line",
    ["", "{", "nan", "NaN", "Infinity", "[1,]", '{"tuple":[1],"set":[1]}', "{}", '{"class":"A"}', '{"tuple":3}', '{"set":{"a":1}}', '{"dict":[[1]]}', '{"dict":[1]}', '{"dict":{"a":1}}', '{"bytes":"0"}', '{"bytes":[1]}', '{"float":"1e5"}', '{"float":["nan"]}', '{"complex":[1,2]}', '{"complex":[1.0]}', '{"int":"g"}', '{"int":7}', "1" * 5000, "1 1", "\u00e9", '"a\nb"'],
)  # fmt: skip
def test_anything_else_on_the_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(line.encode())


@pytest.mark.parametrize("line", ['{"set":[[1]]}', '{"dict":[[[1],2]]}', '{"frozenset":[{"dict":[]}]}'])
def test_a_key_that_cannot_be_hashed_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not a plain value: TypeError"):
        loads(line.encode())
