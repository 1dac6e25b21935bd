"""`codex-ml schema --of COMMAND`: every command with --json has a schema, and no schema leaves a key open."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from codex_ml.cli.json_outputs import FORMS, OUTPUTS, output_schema
from codex_ml.cli.main import whole_app

from ..json_schema_checker import problems


def commands() -> Iterator[tuple[str, Any]]:
    """(words after codex-ml, command) of every command and subcommand."""
    for name, command in typer.main.get_command(whole_app()).commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", below) for inner, below in command.commands.items())
        else:
            yield name, command


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every part of a schema that describes an object by its keys."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and "type" in schema:
            yield schema
        for inner in schema.values():
            yield from objects(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from objects(inner)


def test_every_command_with_json_has_a_schema_and_no_other_has():
    with_json = {
        name for name, command in commands() if any("--json" in parameter.opts for parameter in command.params)
    }
    assert with_json == {name.split(" --")[0] for name in OUTPUTS}
    assert len(with_json) >= 25


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_schema_is_closed_and_says_what_it_describes(name):
    schema = output_schema(name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == f"codex-ml {name} --json"
    assert schema["description"].startswith(FORMS[OUTPUTS[name].form])
    described = list(objects(schema))
    assert described
    assert [part for part in described if part.get("additionalProperties") is not False] == []


def test_the_command_prints_the_schema_and_refuses_other_names():
    done = CliRunner().invoke(whole_app(), ["schema", "--of", "codex-ml  params upgrade"])
    assert json.loads(done.stdout) == output_schema("params upgrade")
    done = CliRunner().invoke(whole_app(), ["schema", "--of", "serve"])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: --of serve: no such command prints JSON; these do: audit, compare, doctor, ")


def test_the_schema_of_a_small_output_by_hand():
    schema = output_schema("ledger forget")
    counts = {"train": 1, "val": 0, "test": 0, "pool": 0, "duplicates": 2}
    good = {"forgotten": {"abc": "train"}, "before": counts, "after": counts, "dry_run": True}
    assert problems(good, schema) == []
    assert problems({**good, "more": 1}, schema) == ["$: more is not a key of the schema"]
    assert problems({**good, "dry_run": 1}, schema) == ["$.dry_run: expected boolean, found 1"]
    assert problems({**good, "before": {**counts, "val": "0"}}, schema) == ["$.before.val: expected integer, found '0'"]
    assert problems({key: good[key] for key in ("forgotten", "before", "after")}, schema) == ["$: dry_run is missing"]


@pytest.mark.parametrize(
    ("value", "schema", "wrong"),
    [
        (True, {"type": "integer"}, 1),
        (1, {"type": "number"}, 0),
        (None, {"anyOf": [{"type": "string"}, {"type": "null"}]}, 0),
        (1, {"anyOf": [{"type": "string"}, {"type": "null"}]}, 1),
        ([1, "a"], {"type": "array", "items": {"type": "integer"}}, 1),
        ([1, "a"], {"prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2}, 0),
        ([1], {"prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2}, 1),
        ("b", {"enum": ["a"]}, 1),
        ("b", {"const": "b"}, 0),
        (0, {"type": "integer", "minimum": 1}, 1),
        (1.5, {"minimum": 1, "maximum": 1.25}, 1),
        (None, {"minimum": 1}, 0),
        ("x1", {"pattern": "^[a-z]+$"}, 1),
        ({"a": 1}, {"$ref": "#/$defs/A", "$defs": {"A": {"additionalProperties": {"type": "string"}}}}, 1),
    ],
)
def test_the_checker_finds_what_is_wrong(value, schema, wrong):
    assert len(problems(value, schema)) == wrong


def test_the_checker_refuses_a_keyword_that_it_does_not_know():
    with pytest.raises(NotImplementedError, match="uniqueItems"):
        problems([], {"uniqueItems": True})
