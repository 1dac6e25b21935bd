"""Turn the errors that pydantic finds in a user's value into one line.

Used by: sections, contract, policy.rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

SHOWN = 80  # characters of the value that was found


@dataclass(frozen=True)
class Problem:
    """The problem of a value that a message reports.

    Attributes:
        place: keys and positions of the wrong part, outermost first; empty where the whole value is wrong.
        kind: pydantic's name of the problem, such as "extra_forbidden" for an unknown key.
        message: what is allowed, and mostly what was found.
        more: " (and 2 more)" where there are others, else "".
    """

    place: tuple[int | str, ...]
    kind: str
    message: str
    more: str

    @property
    def line(self) -> str:
        """The dotted place and the message."""
        return f"{dotted(self.place)}: {self.message}" if self.place else self.message


def dotted(place: tuple[int | str, ...]) -> str:
    """The place with dots, as a message shows it.

    >>> dotted(("rules", 0, "id"))
    'rules.0.id'
    """
    return ".".join(map(str, place))


def first_problem(error: ValidationError, *, show: bool = True) -> Problem:
    """The problem to report: a misspelt key if there is one, because it explains the others; else the first.

    Args:
        show: whether the message shows the value that was found; False where it may be private.
    """
    problems = _independent([dict(problem) for problem in error.errors(include_url=False)])
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Problem(first["loc"], first["type"], _message(first, show=show), more)


def _independent(problems: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop the error that a list is too short where one of its items is wrong: pydantic counts valid items only."""
    places = [problem["loc"] for problem in problems]

    def has_inner(place: tuple[int | str, ...]) -> bool:
        return any(len(other) > len(place) and other[: len(place)] == place for other in places)

    return [problem for problem in problems if problem["type"] != "too_short" or not has_inner(problem["loc"])]


def _message(problem: dict[str, Any], *, show: bool) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    message = (message[:1].lower() + message[1:]).replace("tuple", "list")
    message = message.replace("a valid dictionary or instance of", "a mapping with the keys of")
    return f"{message}; found {_shown(problem['input'])}" if show and problem["type"] != "value_error" else message


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
