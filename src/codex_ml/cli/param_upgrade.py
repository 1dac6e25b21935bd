"""The version of the form of params.yaml, and the changes that bring an older file to it.

A change replaces the characters of a key or a value and nothing else, so comments, order and style stay.

Used by: param_rules (refuses a newer file), `codex-ml params upgrade`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import yaml
from yaml.cyaml import CBaseLoader

from codex_ml.core.contract import Contract
from codex_ml.core.errors import UserError

VERSION = 1  # of the form of params.yaml; a file without `version` has the form of version 1


@dataclass(frozen=True)
class RenamedKey:
    """A key that has another name in the form of this version.

    Attributes:
        key: its former dotted name.
        leaf: its name in the same section.
        values: former text of a value -> text; other values stay.
    """

    key: str
    leaf: str
    values: Mapping[str, str] = field(default_factory=dict)


class ParamUpgrade(Contract):
    """What `codex-ml params upgrade --json` prints: the version of this checkout, one line per change."""

    version: int
    changes: list[str]
    written: bool


# In the order of the versions. A key that is not in the file is skipped.
CHANGES = (RenamedKey("safety_audit.enforce", "on_fail", {"false": "warn", "true": "stop"}),)


@dataclass(frozen=True)
class Replacement:
    """Characters of one line that get another text, None for their own; `line` and the columns count from 0."""

    line: int
    start: int
    end: int
    text: str | None


def refuse_newer(params: object, name: str) -> None:
    """Refuse a parsed file of a newer form, before its unknown keys are reported one by one.

    Raises:
        UserError: for a version above VERSION.
    """
    version = params.get("version") if isinstance(params, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise UserError(
            f"{name}: version {version} is newer than the form that this checkout reads, version {VERSION}; use the "
            "checkout that the file is from, or a newer one"
        )


@contextmanager
def of_this_version(params: object, text: str, name: str) -> Iterator[None]:
    """Validate in this block: a newer file is refused before it, and a mistake in an older file names the upgrade.

    Args:
        params: the parsed file.
        text: of the file; "" where `params` come from elsewhere.

    Raises:
        UserError: for a newer file.
    """
    refuse_newer(params, name)
    try:
        yield
    except UserError as error:
        if text and upgraded(text, name)[1]:
            raise UserError(f"{error}; the file has an older form, which `codex-ml params upgrade` rewrites") from None
        raise


def upgraded(
    text: str, name: str, changes: Sequence[RenamedKey] = CHANGES, version: int = VERSION
) -> tuple[str, list[str]]:
    """The text of a params file in the form of `version`, and one line per change.

    A file that needs no change stays as it is, also without a `version`.

    Args:
        text: which `parse_yaml` accepts.
        name: of the file, for messages.

    Raises:
        UserError: when a file has both the former and the new name of a key.

    >>> print(*upgraded("safety_audit: {enforce: true}  # strict", "params.yaml"), sep=" | ")
    version: 1
    safety_audit: {on_fail: stop}  # strict | ['safety_audit.enforce: true is now safety_audit.on_fail: stop']
    """
    document = yaml.compose(text, Loader=CBaseLoader)
    replacements: list[Replacement] = []
    said: list[str] = []
    for change in changes:
        for found, line in _replaced(document, change, name):
            replacements += found
            said.append(line)
    if not said:
        return text, []
    lines = text.split("\n")
    for number in {each.line for each in replacements}:
        lines[number] = _with(lines[number], [each for each in replacements if each.line == number])
    return "\n".join(_with_version(lines, document, version)), said


def _entry(node: yaml.Node | None, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next(((own, value) for own, value in pairs if own.value == key), None)


def _replaced(document: yaml.Node | None, change: RenamedKey, name: str) -> Iterator[tuple[list[Replacement], str]]:
    *above, former = change.key.split(".")
    section = document
    for part in above:
        entry = _entry(section, part)
        section = entry[1] if entry else None
    entry = _entry(section, former)
    if entry is None:
        return
    key, value = entry
    where = ".".join([*above, change.leaf])
    if _entry(section, change.leaf):
        raise UserError(f"{name}:{key.start_mark.line + 1}: both {change.key} and {where} are given; delete the former")
    replacements = [_replacement(key, change.leaf)]
    if not isinstance(value, yaml.ScalarNode):
        yield replacements, f"{change.key} is now {where}"
        return
    new = change.values.get(value.value)
    if value.start_mark.line == value.end_mark.line:
        replacements.append(_replacement(value, new))
    yield replacements, f"{change.key}: {value.value} is now {where}: {value.value if new is None else new}"


def _replacement(node: yaml.Node, text: str | None) -> Replacement:
    return Replacement(node.start_mark.line, node.start_mark.column, node.end_mark.column, text)


def _with(line: str, replacements: Sequence[Replacement]) -> str:
    """The line with its replacements; a comment after the last one keeps its column where there is room."""
    ordered = sorted(replacements, key=lambda each: each.start)
    rest = line[ordered[-1].end :]
    new, end = "", 0
    for each in ordered:
        new += line[end : each.start] + (line[each.start : each.end] if each.text is None else each.text)
        end = each.end
    spaces = len(rest) - len(rest.lstrip(" "))
    if spaces > 1 and rest.lstrip(" ").startswith("#"):
        return new.ljust(ordered[-1].end + spaces - 2) + "  " + rest.lstrip(" ")
    return new + rest


def _with_version(lines: list[str], document: yaml.Node | None, version: int) -> list[str]:
    entry = _entry(document, "version")
    if entry:
        each = _replacement(entry[1], str(version))
        return [*lines[: each.line], _with(lines[each.line], [each]), *lines[each.line + 1 :]]
    assert isinstance(document, yaml.MappingNode)  # it had a key that was replaced
    first = document.value[0][0].start_mark.line
    return [*lines[:first], f"version: {version}", *lines[first:]]
