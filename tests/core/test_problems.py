"""What pydantic finds becomes one line: the problem that explains the others, what is allowed, what was found."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from codex_ml.core.problems import Problem, first_problem


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    size: int = 1


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    inner: Inner = Inner()
    names: Annotated[list[str], Field(min_length=2)] = ["a", "b"]
    pair: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Outer:
        if self.inner.size == 7:
            raise ValueError("Seven does not fit")
        return self


def problem(value: Any, *, show: bool = True) -> Problem:
    with pytest.raises(ValidationError) as error:
        Outer.model_validate(value)
    return first_problem(error.value, show=show)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"inner": {"size": "3"}}, "inner.size: input should be a valid integer; found '3'"),
        ({"inner": 3}, "inner: input should be a mapping with the keys of Inner; found 3"),
        ({"pair": 3}, "pair: input should be a valid list; found 3"),
        ({"inner": {"size": 7}}, "seven does not fit"),
        ({"inner": {"size": "x" * 100}}, f"inner.size: input should be a valid integer; found '{'x' * 79}..."),
        ([], "input should be a mapping with the keys of Outer; found []"),
    ],
)
def test_a_problem_is_one_line_with_its_place(value, line):
    assert problem(value).line == line
    assert problem(value).more == ""


def test_a_private_value_is_not_shown():
    assert problem({"inner": {"size": "secret"}}, show=False).line == "inner.size: input should be a valid integer"


def test_a_misspelt_key_explains_the_others():
    found = problem({"names": [1, "b"], "pair": 1, "inner": {"sise": 3}})
    assert (found.place, found.kind, found.more) == (("inner", "sise"), "extra_forbidden", " (and 2 more)")


def test_a_list_is_not_also_too_short_because_an_item_is_wrong():
    found = problem({"names": [1]})
    assert (found.place, found.kind, found.more) == (("names", 0), "string_type", "")
    assert (
        problem({"names": ["a"]}).line
        == "names: list should have at least 2 items after validation, not 1; found ['a']"
    )
