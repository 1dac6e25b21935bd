"""What differs in the inputs of two results: params, data, code and environment, from the records of their stages.

Used by: evaluate.comparison, `codex-ml compare`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from codex_ml.core.record import CODE
from codex_ml.inference.comparison_files import InputDifference, InputKind

Flat = dict[tuple[InputKind, str], str]
KINDS: tuple[InputKind, ...] = get_args(InputKind)
Records = Mapping[str, Mapping[str, Any]]  # stage -> its record


def input_differences(a: Records, b: Records) -> list[InputDifference]:
    """The inputs that differ, params first, then data, code and environment, each by name.

    A stage whose record one side lacks is left out: an input that was not recorded is not a difference. Nor is a Python
    file in which only comments, docstrings or layout differ.

    Args:
        a, b: stage -> its record, as `core.record.parse_record` returns it.
    """
    shared = sorted(a.keys() & b.keys())
    same = _programs(a, shared) & _programs(b, shared)
    names = {name for name, _ in same}
    return [found for found in differences(_flat(a, shared), _flat(b, shared)) if found.name not in names]


def _programs(records: Records, stages: list[str]) -> set[tuple[str, str]]:
    """(path, digest of the syntax tree) of each Python file of the code of the stages."""
    return {
        (f"{path}/{name}" if dep.get("files") else path, digest)
        for stage in stages
        for path, dep in records[stage]["deps"].items()
        for name, digest in dep.get("syntax", {}).items()
    }


def differences(a: Flat, b: Flat) -> list[InputDifference]:
    """What differs between two flat mappings, by kind and name."""
    found = []
    for kind, name in sorted(a.keys() | b.keys(), key=lambda key: (KINDS.index(key[0]), key[1])):
        sides = {side: flat[kind, name] for side, flat in (("a", a), ("b", b)) if (kind, name) in flat}
        if len(set(sides.values())) > 1 or len(sides) == 1:
            found.append(InputDifference(kind=kind, name=name).model_copy(update=sides))
    return found


def _flat(records: Records, stages: list[str]) -> Flat:
    """(kind, name) -> value as text."""
    flat: Flat = {}
    for stage in stages:
        record = records[stage]
        flat |= {("params", name): value for name, value in _dotted(record["params"])}
        for path, dep in record["deps"].items():
            if not path.startswith(CODE):
                flat["data", path] = dep["sha256"]
            elif files := dep.get("files"):
                flat |= {("code", f"{path}/{name}"): md5 for name, md5 in files.items()}
            else:
                flat["code", path] = dep["md5"]
        environment = record.get("environment")
        flat |= {("environment", name): value for name, value in _environment(environment) if value}
    return flat


def _dotted(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, value as JSON) of each leaf of nested mappings; an empty mapping is a leaf."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _dotted(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, json.dumps(value, ensure_ascii=False, sort_keys=True)


def _environment(value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        if name == "packages" and isinstance(inner, dict):
            yield from ((str(package), str(version)) for package, version in inner.items() if version)
        elif name == "package_files" and isinstance(inner, dict):
            yield from ((f"files of {package}", str(digest)) for package, digest in inner.items())
        elif isinstance(inner, dict):  # start_code and variables
            yield from ((str(key), str(found)) for key, found in inner.items())
        else:
            yield str(name), str(inner)
