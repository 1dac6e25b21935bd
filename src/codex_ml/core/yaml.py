"""Read YAML 1.2 with the values that DVC records in dvc.lock.

DVC reads YAML with ruamel.yaml, in Python. This module uses the parser of PyYAML, in C, which is about ten times faster
(dvc.lock: 12 ms, not 120 ms). PyYAML itself follows YAML 1.1, where `3e-4` is a string and `no` is false. A stage that
read params.yaml with these rules would train with values other than those in dvc.lock. So this module gives scalars
the rules of ruamel.yaml.

A document gets the value that DVC gives it, or it is refused. `read_yaml` refuses what DVC refuses, and also:

- nesting deeper than MAX_DEPTH (DVC stops at some hundred levels), and more than MAX_VALUES values, aliases expanded;
- an integer that Python does not print (more than 4,300 digits);
- tags other than those of null, bool, int, float, str, timestamp, seq and map, and a tag without a value;
- a mapping without braces in brackets (`[a: 1]`); a key that is empty or not a scalar; a key given twice beside `<<`;
- an anchor defined twice, or with a letter that is not ASCII; `::` in braces; what _NOT_READ lists.

Used by: every stage and command that reads params.yaml, dvc.yaml, dvc.lock, a pointer of DVC, or the policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from yaml import MappingNode, MarkedYAMLError, Node, ScalarNode, SequenceNode, YAMLError
from yaml.constructor import SafeConstructor
from yaml.cyaml import CBaseLoader

from codex_ml.core.conflicts import refuse_conflict
from codex_ml.core.errors import UserError, one_line

MAX_BYTES = 256 * 1024
MAX_DEPTH = 100
MAX_VALUES = 50_000  # dvc.lock has 3,000
# Text that YAML 1.1 and 1.2, or the two parsers, read differently. The message names the line of the last character.
_NOT_READ = (
    ("^%", "a line that begins with % is not read; delete it"),
    # A comment may hold tabs. What looks like a comment after a quote may be text.
    (r"^(?![^\t\"'\n]*(?<![^ \n])#)[^\t\n]*\t", r"a tab cannot indent YAML; use spaces, or \t in double quotes"),
    ("\r(?!\n)|[\x85\u2028\u2029]|(?<=[\\s\\S])\ufeff", "an invisible end of line or byte order mark; delete it"),
    (r"(?<![^\s,\[{])(?:[&*][\w-]+[:?]|[|>][-+1-9]*#)", "expected a space before the last character of {!r}"),
)
_TAG = "tag:yaml.org,2002:"


class _Composer(CBaseLoader):
    """The parser of PyYAML in C, with the scalar rules of ruamel.yaml for YAML 1.2."""


# From ruamel.yaml 0.19, resolver.py. `int` takes `_` and leading zeros, which the core schema of YAML 1.2 does not.
for _kind, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    (
        "float",
        r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("int", "[-+]?0b[0-1_]+|[-+]?0o?[0-7_]+|[-+]?[0-9_]+|[-+]?0x[0-9a-fA-F_]+", "-+0123456789"),
    ("merge", "<<", "<"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    (
        "timestamp",
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}"
        r"(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?",
        "0123456789",
    ),
    ("value", "=", "="),
):
    _Composer.add_implicit_resolver(_TAG + _kind, re.compile(f"(?:{_pattern})$"), list(_first))


def parse_yaml(text: str, name: str) -> Any:
    """Parse one YAML 1.2 document; an empty one is an empty mapping.

    >>> parse_yaml("lr: 3e-4\\ncountry: no", "params.yaml")
    {'lr': 0.0003, 'country': 'no'}

    Args:
        name: the file, for messages.

    Raises:
        UserError: for a syntax error, a tab, a key given twice, conflict markers of a merge, and the rest of the list
            in the module's docstring; the message starts with `name:line`.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise UserError(f"{name} is larger than {MAX_BYTES // 1024} KiB; parameters are not the place for data")
    refuse_conflict(text, name)  # first, because YAML reads markers between braces as values
    for pattern, problem in _NOT_READ:
        if odd := re.search(pattern, text, re.MULTILINE):
            line = text.count("\n", 0, odd.end() - 1) + 1
            raise UserError(f"{name}:{line}: {problem.format(odd[0])}")
    try:
        node = _compose(text)
        if isinstance(node, ScalarNode) and node.style in ("|", ">"):  # the parsers differ in where such a text ends
            raise _problem(node, "expected a mapping, found a string")
        return {} if node is None or node.tag == _TAG + "null" else _Reader().value(node)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = one_line(error.problem or "not YAML")
        if problem == "second occurrence":
            problem = "found duplicate anchor"
        raise UserError(f"{name}:{mark.line + 1}: {problem}") from None
    except (YAMLError, UnicodeEncodeError) as error:
        raise UserError(f"{name}: not YAML: {one_line(error)}") from None


def read_yaml(path: Path) -> Any:
    """Read a YAML 1.2 file.

    Raises:
        UserError: when the file is missing, is not a regular file, is not UTF-8, or is not YAML.
    """
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Read a UTF-8 file that a person edits.

    Raises:
        UserError: when it is missing, is not a regular file (reading a pipe would not end), or is not UTF-8.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a regular file; put the file of that name there")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `git checkout {path}` brings back the committed one") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None


def line_of(text: str, keys: tuple[str | int, ...]) -> int | None:
    """Line (from 1) of the node under `keys` in a text that `parse_yaml` accepts, or of its nearest parent.

    >>> line_of("train:\\n  lr: 1\\n", ("train", "lr"))
    2
    """
    node, line = _compose(text), None
    for key in keys:
        entry = dict(_entries(node)).get(str(key))
        if entry is None:
            break
        line, node = entry
    return line


def _compose(text: str) -> Node | None:
    composer = _Composer(text)
    try:
        return composer.get_single_node()
    finally:
        composer.dispose()


def _entries(node: Node | None) -> Iterator[tuple[str, tuple[int, Node]]]:
    """Each key or index of a node, as text, with its line and its value."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield str(key.value), (key.start_mark.line + 1, value)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield str(index), (item.start_mark.line + 1, item)


class _Reader:
    """Turns the nodes of one document into values and counts them; an alias counts as all values that it repeats."""

    def __init__(self) -> None:
        self.values = 0

    def value(self, node: Node, depth: int = 1) -> Any:
        self.values += 1
        if depth > MAX_DEPTH:
            raise _problem(node, f"nested deeper than {MAX_DEPTH} levels")
        if self.values > MAX_VALUES:
            raise _problem(node, f"more than {MAX_VALUES} values, with aliases expanded")
        if isinstance(node, ScalarNode):
            return _scalar(node)
        if node.tag == _TAG + "seq" and isinstance(node, SequenceNode):
            return [self.value(_with_braces(item), depth + 1) for item in node.value]
        if node.tag == _TAG + "map" and isinstance(node, MappingNode):
            return self.mapping(node, depth)
        raise _unknown_tag(node)

    def mapping(self, node: MappingNode, depth: int) -> dict[Any, Any]:
        """A mapping; its own keys win over those of `<<`, and the first of several merged mappings wins."""
        own: dict[Any, Any] = {}
        lines: dict[Any, int] = {}
        merged: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode) or (key_node.value == "" and _is_plain(key_node)):
                raise _problem(key_node, "a key must be a string or a number")
            is_merge = key_node.tag == _TAG + "merge"
            key = "<<" if is_merge else _scalar(key_node)
            if key in lines:
                raise _problem(key_node, f'found duplicate key "{key}", which line {lines[key]} has too')
            lines[key] = key_node.start_mark.line + 1
            if is_merge:
                for source in reversed(value_node.value if isinstance(value_node, SequenceNode) else [value_node]):
                    if not isinstance(source, MappingNode):
                        raise _problem(source, "expected a mapping, or a list of mappings, after <<")
                    merged.update(self.value(source, depth + 1))
            else:
                own[key] = self.value(value_node, depth + 1)
        return {**merged, **own}


def _with_braces(item: Node) -> Node:
    """Return an item of a list; refuse the `a: 1` of `[a: 1]`, which has no brace before its first key."""
    flow = isinstance(item, MappingNode) and item.flow_style and item.value
    if flow and item.value[0][0].start_mark.index == item.start_mark.index:
        raise _problem(item, "a mapping in brackets needs braces: [{key: value}]")
    return item


def _scalar(node: ScalarNode) -> Any:
    convert = _CONVERT.get(node.tag.removeprefix(_TAG))
    if convert is None:
        raise _unknown_tag(node)
    if node.value == "" and node.tag == _TAG + "str" and _is_plain(node):
        raise _problem(node, "a tag without a value; write '' for the empty string")
    try:
        return convert(node)
    except (ValueError, OverflowError, KeyError, IndexError, AttributeError):
        kind = node.tag.removeprefix(_TAG)
        raise _problem(node, f"{node.value[:50]!r} looks like a value of type {kind}, but is not valid") from None


def _is_plain(node: ScalarNode) -> bool:
    return node.style not in ("'", '"', "|", ">")


def _int(node: ScalarNode) -> int:
    digits = node.value.replace("_", "")
    sign = -1 if digits[0] == "-" else 1
    if digits[0] in "+-":
        digits = digits[1:]
    base = {"0b": 2, "0o": 8, "0x": 16}.get(digits[:2], 10)
    number = sign * int(digits if base == 10 else digits[2:], base)
    str(number)  # ValueError beyond 4,300 digits, which int() itself raises for base 10 only
    return number


def _float(node: ScalarNode) -> float:
    digits = node.value.replace("_", "").lower()
    sign = -1 if digits[0] == "-" else 1
    if digits[0] in "+-":
        digits = digits[1:]
    return sign * float(digits[1:] if digits in (".inf", ".nan") else digits)


def _timestamp(node: ScalarNode) -> Any:
    """A date or a time. PyYAML drops the seventh digit of a second; ruamel.yaml rounds it."""
    half = re.search(r"\.[0-9]{6}[5-9]", node.value)
    return SafeConstructor().construct_yaml_timestamp(node) + timedelta(microseconds=1 if half else 0)


_CONVERT = {
    "null": lambda node: None,
    "bool": lambda node: SafeConstructor.bool_values[node.value.lower()],  # `yes` and `no` only after the tag `!!bool`
    "int": _int,
    "float": _float,
    "str": lambda node: node.value,
    "timestamp": _timestamp,
}


def _problem(node: Node, problem: str) -> MarkedYAMLError:
    return MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _unknown_tag(node: Node) -> MarkedYAMLError:
    return _problem(node, f"could not determine a value for the tag {node.tag!r}")
