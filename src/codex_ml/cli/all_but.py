"""A set of all values but a few. Used by: param_rules."""

from __future__ import annotations

from collections.abc import Container


class AllBut(Container[str]):
    """Every value but these: a kind of source can be the name of a plug-in."""

    def __init__(self, *values: str) -> None:
        self.values = values

    def __contains__(self, value: object) -> bool:
        return value not in self.values
