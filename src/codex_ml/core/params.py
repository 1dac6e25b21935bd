"""Reading params.yaml: validation against the schema of `codex_ml.cli.params`, and one line for the first mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from codex_ml.cli.params import Params, Source
from codex_ml.core.errors import UserError
from codex_ml.core.yaml import line_of, parse_yaml, read_text

PARAMS = Path("params.yaml")
PRESETS = Path("models/presets.yaml")
# What a preset may name; null for these in params.yaml stands for the preset's.
SHAPE = ("architecture", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "max_positions",
         "tie_embeddings")  # fmt: skip

# What people type who come from other trainers; only used to say the right name.
SYNONYMS = {
    "learning_rate": "lr",
    "batch_size": "micro_batch_size",
    "per_device_train_batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "accumulation",
    "grad_accum": "accumulation",
    "steps": "max_steps",
    "iterations": "max_steps",
    "warmup": "warmup_steps",
    "grad_clip": "clip_norm",
    "block_size": "seq_len",
    "context_length": "seq_len",
    "n_layer": "layers",
    "num_hidden_layers": "layers",
    "n_head": "heads",
    "num_attention_heads": "heads",
    "n_embd": "hidden_size",
    "d_model": "hidden_size",
    "validation": "val",
    "license": "licence",
    "licenses": "licences",
    "max_grad_norm": "clip_norm",
    "random_seed": "seed",
}


def load_params(path: Path = PARAMS) -> Params:
    """Read and validate a params file.

    Raises:
        UserError: the first problem, as one line: file, line, key, what was found, what is allowed.
    """
    text = read_text(path)
    return validate_params(parse_yaml(text, str(path)), text=text, name=str(path))


def validate_params(value: Any, *, text: str = "", name: str = str(PARAMS)) -> Params:
    """Validate parsed parameters; see `load_params`."""
    if not isinstance(value, dict):
        raise UserError(f"{name}: a mapping of sections is wanted, found {type(value).__name__}")
    value = _with_preset(value, name)
    try:
        return Params.model_validate(value)
    except ValidationError as error:
        details = _independent([dict(problem) for problem in error.errors(include_url=False)])
        # a misspelt key explains the others, so it is told first
        first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
        message = _explain(first)
        line = line_of(text, _keys_to_show(first["loc"], message)) if text else None
        where = f"{name}:{line}" if line else name
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise UserError(f"{where}: {message}{more}") from None


def _with_preset(value: dict[str, Any], name: str) -> dict[str, Any]:
    """The same parameters, with the shape that `model.preset` names where `model` has null."""
    model = value.get("model")
    if not isinstance(model, dict):
        return value
    if model.get("path") and (sizes := [key for key in SHAPE if model.get(key) is not None]):
        raise UserError(f"{name}: model.{sizes[0]} has no effect with model.path, whose model has its own; write null")
    given = {key: item for key, item in model.items() if item is not None or key not in SHAPE}
    preset = given.get("preset")
    if not preset or not isinstance(preset, str):
        return {**value, "model": given}
    catalogue = parse_yaml(PRESETS.read_text(encoding="utf-8"), str(PRESETS)) if PRESETS.is_file() else {}
    if not isinstance(catalogue, dict) or not all(isinstance(shape, dict) for shape in catalogue.values()):
        raise UserError(f"{PRESETS}: a mapping of names to shapes is wanted")
    if preset not in catalogue:
        near = difflib.get_close_matches(preset, list(catalogue), n=1)
        known = f"did you mean {near[0]}?" if near else f"it has {', '.join(catalogue) or 'none'}"
        raise UserError(f"{name}: model.preset: {PRESETS} has no {preset}; {known}")
    shape = catalogue[preset]
    if other := [key for key in shape if key not in SHAPE]:
        raise UserError(f"{PRESETS}: {preset}: {other[0]} is no part of a shape; it has {', '.join(SHAPE)}")
    return {**value, "model": {**shape, **given}}


def _independent(problems: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out that a list became too short because one of its items is wrong."""
    places = [problem["loc"] for problem in problems]

    def has_inner(place: tuple[int | str, ...]) -> bool:
        return any(len(other) > len(place) and other[: len(place)] == place for other in places)

    return [problem for problem in problems if problem["type"] != "too_short" or not has_inner(problem["loc"])]


def _keys_to_show(place: tuple[int | str, ...], message: str) -> tuple[int | str, ...]:
    """Where to point at: the place of the problem, or the first key that a message about two sections names."""
    if place:
        return place
    named = next((word for word in message.replace(",", " ").split() if word in set(known_keys())), "")
    return tuple(named.split("."))


def _explain(problem: dict[str, Any]) -> str:
    dotted = ".".join(str(key) for key in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = nearest_key(dotted)
        return f"{dotted} is not a parameter" + (f"; did you mean {near}?" if near else "")
    message = str(problem["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    message = message.replace("a valid dictionary or instance of", "a mapping with the keys of").replace(
        "tuple", "list"
    )
    found = "" if problem["type"] == "value_error" else f"; found {problem['input']!r}"
    return f"{dotted}: {message}{found}" if dotted else message


def known_keys(model: type[BaseModel] = Params, prefix: str = "") -> Iterator[str]:
    """Dotted names of every parameter, in the order of the schema."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from known_keys(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def nearest_key(dotted: str) -> str | None:
    """The known parameter that a misspelt one most likely means, or None.

    Looked for in this order: the usual name of it in other trainers, the same name in another section, a similar name
    in this section, a similar dotted name anywhere.
    """
    section, _, leaf = dotted.rpartition(".")
    keys = list(known_keys())
    if section.startswith("ingest.sources."):
        keys += [f"{section}.{name}" for name in Source.model_fields]
    usual = difflib.get_close_matches(leaf, list(SYNONYMS), n=1, cutoff=0.85)
    leaf = SYNONYMS[usual[0]] if usual else leaf
    wanted = f"{section}.{leaf}" if section else leaf
    if wanted in keys:
        return wanted
    here = {key.rpartition(".")[2]: key for key in keys if key.rpartition(".")[0] == section}
    same = [key for key in keys if key.rpartition(".")[2] == leaf]
    similar = difflib.get_close_matches(leaf, list(here), n=1, cutoff=0.6)
    anywhere = difflib.get_close_matches(dotted, [*keys, *Params.model_fields], n=1, cutoff=0.75)
    return next(iter([*same, *(here[name] for name in similar), *anywhere]), None)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of params.yaml, for editors."""
    schema = Params.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "params.yaml of codex-ml"
    sizes = schema["$defs"]["Model"]["properties"]
    for key in SHAPE:
        sizes[key] = {"anyOf": [sizes[key], {"type": "null"}], "description": "null: the preset's, or the default"}
    return schema
