"""Every whole number that a user can give has an upper bound; the walk finds a new one that has none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from codex_ml.cli.main import whole_app
from codex_ml.cli.param_rules import Params, validate_params
from codex_ml.core.errors import UserError
from codex_ml.serve.api_requests import ChatRequest, CompletionRequest

BOUNDS = ("maximum", "exclusiveMaximum", "const", "enum")


@pytest.fixture(autouse=True)
def _in_a_project(project, monkeypatch):
    """models/presets.yaml is read from the current folder."""
    monkeypatch.chdir(project)


def unbounded(schema: Any, place: str = "", *, bounded: bool = False) -> Iterator[str]:
    """Places of a JSON schema at which a number may be as large as it likes."""
    if isinstance(schema, list):
        for number, part in enumerate(schema):
            yield from unbounded(part, f"{place}.{number}", bounded=bounded)
    if isinstance(schema, dict):
        bounded = bounded or any(key in schema for key in BOUNDS)
        if schema.get("type") == "integer" and not bounded:
            yield place
        for key, part in schema.items():
            yield from unbounded(part, f"{place}.{key}", bounded=bounded)


@pytest.mark.parametrize("model", [Params, ChatRequest, CompletionRequest])
def test_every_whole_number_has_an_upper_bound(model: type[Params]) -> None:
    assert list(unbounded(model.model_json_schema())) == []


def test_the_walk_sees_a_number_without_a_bound() -> None:
    schema = {
        "properties": {"a": {"type": "integer", "minimum": 0}, "b": {"anyOf": [{"type": "integer"}], "maximum": 9}}
    }
    assert list(unbounded(schema)) == [".properties.a"]


def options(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Name and object of each option and argument of all commands."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from options(inner, (*path, name))
    for option in command.params:
        yield f"{' '.join(path)} {option.opts[0]}", option


def test_every_whole_number_of_a_command_has_an_upper_bound() -> None:
    whole = {
        name: option
        for name, option in options(typer.main.get_command(whole_app()))
        if option.type_descriptor.annotation is int
    }
    assert {"serve --max-batch", "folds count", "generate --max-tokens", "sweep --trials"} <= set(whole)
    assert [name for name, option in whole.items() if option.max is None] == []


@pytest.mark.parametrize(
    ("params", "key"),
    [
        ({"pack": {"seq_len": 2**31}}, "pack.seq_len"),
        ({"pack": {"canaries": {"controls": 10**9}}}, "pack.canaries.controls"),
        ({"pack": {"canaries": {"each": [10**9, 1, 1]}}}, "pack.canaries.each.0"),
        ({"safety_audit": {"samples": 10**9}}, "safety_audit.samples"),
        ({"model": {"layers": 10**6}}, "model.layers"),
        ({"model": {"hidden_size": 2**20}}, "model.hidden_size"),
        ({"train": {"micro_batch_size": 10**9}}, "train.micro_batch_size"),
        ({"train": {"threads": 10**12}}, "train.threads"),
        ({"runtime": {"processes": 10**6}}, "runtime.processes"),
        ({"tokenizer": {"vocab_size": 10**9}}, "tokenizer.vocab_size"),
    ],
)
def test_a_number_that_no_machine_can_serve_is_refused_with_its_key(params: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"^params.yaml: {key}: input should be less than or equal to \d+; found \d+$"):
        validate_params(params)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"train": {"micro_batch_size": 65_536, "accumulation": 1024}},
            "train: micro_batch_size x accumulation is 67108864 rows per step, at most 1048576 are allowed",
        ),
        (
            {"pack": {"canaries": {"repetitions": [10_000], "each": [10_000]}}},
            "pack.canaries plants 100000000 copies (repetitions x each), at most 1000000 are allowed",
        ),
        ({"train": {"warmup_steps": 10**12, "max_steps": 10**9}}, "expected at most 1000000000 steps"),
    ],
)
def test_a_product_of_numbers_is_bounded(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        validate_params(params)
    assert message in str(refused.value)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -float("inf")])
def test_every_real_number_is_finite(value: float) -> None:
    asked = []
    for place, model in sections(Params):
        for name, field in model.model_fields.items():
            if "float" in str(field.annotation):
                asked.append(f"{place}{name}")
                with pytest.raises(ValueError, match=r".+"):
                    model.model_validate({name: value})
    assert {"split.val", "train.lr", "train.warmup_steps", "runtime.monitor_seconds"} <= set(asked)


def sections(model: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The sections of params.yaml and the sections in them, with the dotted name of each."""
    yield place, model
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
            yield from sections(field.annotation, f"{place}{name}.")
