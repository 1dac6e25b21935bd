"""Change single keys of a section of params.yaml with `-S KEY=VALUE`.

Used by: `codex-ml evaluate`, `codex-ml compare`, `codex-ml audit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codex_ml.core.errors import UserError
from codex_ml.core.yaml import parse_yaml


@dataclass(frozen=True)
class Changeable:
    """A section whose keys the command line may change.

    Attributes:
        section: its name.
        example: a change, for messages.
        instead: keys that `-S` does not change, and what to do instead.
    """

    section: str
    example: str
    instead: Mapping[str, str]


def with_changes(values: dict[str, Any], changes: Sequence[str] | None, allowed: Changeable) -> dict[str, Any]:
    """The values of a section with changes of single keys; the values of `values` are changed in place.

    Args:
        changes: `key=value` with dotted keys, with or without the name of the section; the value is YAML.

    Raises:
        UserError: for a change of another form, an unknown key, or a key that `-S` does not change.
    """
    for change in changes or ():
        key, equals, value = change.partition("=")
        key = key.removeprefix(f"{allowed.section}.")
        if key in allowed.instead:
            raise UserError(f"-S {change}: {allowed.instead[key]}")
        *folders, leaf = key.split(".")
        place: Any = values
        for folder in folders:
            place = place.get(folder) if isinstance(place, dict) else None
        if not equals or not isinstance(place, dict) or leaf not in place:
            raise UserError(
                f"-S {change}: expected KEY=VALUE with a key of {allowed.section}, such as {allowed.example}"
            )
        place[leaf] = parse_yaml(value, f"-S {change}") if value else ""
    return values
