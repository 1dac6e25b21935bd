"""The version of the form of params.yaml, and the changes that bring an older file to it.

A change replaces the characters of a key or a value and nothing else, so comments, order and style stay.

Used by: param_rules (refuses a newer file), `codex-ml params upgrade`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.cyaml import CBaseLoader

from codex_ml.core.contract import Contract
from codex_ml.core.errors import UserError
from codex_ml.core.yaml import parse_yaml

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
SPELLINGS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}  # of YAML 1.2
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
        UserError: when a file has both the former and the new name of a key, or is written in a way that is not
            rewritten, such as a value on a line of its own.

    >>> print(*upgraded("safety_audit: {enforce: true}  # strict", "params.yaml"), sep=" | ")
    version: 1
    safety_audit: {on_fail: stop}  # strict | ['safety_audit.enforce: true is now safety_audit.on_fail: stop']
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""  # the parser does not count it in columns
    document = yaml.compose(text, Loader=CBaseLoader)
    replacements: list[Replacement] = []
    said: list[str] = []
    for change in changes:
        for found, line in _replaced(document, change, name):
            replacements += found
            said.append(line)
    if not said:
        return text, []
    lines = text.removeprefix(mark).split("\n")
    replacements.insert(0, _of_version(lines, document, version))
    for number in {each.line for each in replacements}:
        lines[number] = _with(lines[number], [each for each in replacements if each.line == number])
    new = mark + "\n".join(lines)
    if not _says(new, _expected(text, changes, version)):
        raise UserError(f"{name} is written in a way that is not rewritten; change it by hand: {'; '.join(said)}")
    return new, said


def _says(text: str, values: Any) -> bool:
    try:
        return bool(parse_yaml(text, "") == values)
    except UserError:
        return False


def _expected(text: str, changes: Sequence[RenamedKey], version: int) -> Any:
    """The values of the rewritten file."""
    values = deepcopy(parse_yaml(text, ""))  # an alias and its anchor are one object; the copy keeps that
    for change in changes:
        *above, former = change.key.split(".")
        section = values
        for part in above:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and former in section:
            value = section.pop(former)
            known = str(value).lower() if isinstance(value, bool) else str(value)
            section[change.leaf] = (
                parse_yaml(f"x: {change.values[known]}", "")["x"] if known in change.values else value
            )
    return {**values, "version": version}


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
    new = change.values.get(SPELLINGS.get(value.value, value.value))
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


def _of_version(lines: list[str], document: yaml.Node | None, version: int) -> Replacement:
    """What writes the version: over the one there is, else before the first key."""
    entry = _entry(document, "version")
    if entry:
        return _replacement(entry[1], str(version))
    assert isinstance(document, yaml.MappingNode)  # it had a key that was replaced
    mark = document.value[0][0].start_mark
    line, column = mark.line, mark.column
    if document.flow_style:
        return Replacement(line, column, column, f"version: {version}, ")
    end = "\r\n" if lines[line].endswith("\r") else "\n"
    return Replacement(line, column, column, f"version: {version}{end}{' ' * column}")
