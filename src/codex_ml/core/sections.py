"""Read sections of params.yaml, validate them, and report the first mistake on one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from codex_ml.core.config import Section
from codex_ml.core.errors import UserError
from codex_ml.core.problems import Problem, dotted, first_problem
from codex_ml.core.yaml import line_of, parse_yaml, read_text

PARAMS = Path("params.yaml")
Sections = TypeVar("Sections", bound=Section)

# Names of other trainers; used only to suggest the name that is right here.
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


def read_sections(schema: type[Sections], path: Path = PARAMS) -> Sections:
    """Read the sections of a params file that `schema` names; other sections of the file are not checked.

    Raises:
        UserError: the first problem, as one line: file, line, key, what was found, what is allowed.
    """
    text = read_text(path)
    value = _mapping(parse_yaml(text, str(path)), str(path))
    own = {name: section for name, section in value.items() if name in schema.model_fields}
    return validate(schema, own, text=text, name=str(path))


def validate(schema: type[Sections], value: Any, *, text: str = "", name: str = str(PARAMS)) -> Sections:
    """Validate parsed parameters; `schema` must know every key.

    Args:
        text: what `value` was parsed from, for the number of the line in a message.
        name: the file, for messages.

    Raises:
        UserError: see `read_sections`.
    """
    try:
        return schema.model_validate(_mapping(value, name))
    except ValidationError as error:
        problem = first_problem(error)
        message = _explain(problem, schema)
        line = line_of(text, _keys_to_show(problem.place, message, schema)) if text else None
        where = f"{name}:{line}" if line else name
        raise UserError(f"{where}: {message}{problem.more}") from None


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{name}: expected a mapping of sections, found {type(value).__name__}")
    return value


def _keys_to_show(place: tuple[int | str, ...], message: str, schema: type[BaseModel]) -> tuple[int | str, ...]:
    """The keys that a message points at: the place of the problem, or the first key named in a message about two."""
    if place:
        return place
    known = set(known_keys(schema))
    named = next((word for word in message.replace(",", " ").split() if word in known), "")
    return tuple(named.split("."))


def _explain(problem: Problem, schema: type[BaseModel]) -> str:
    if problem.kind != "extra_forbidden":
        return problem.line
    key = dotted(problem.place)
    near = nearest_key(key, schema)
    return f"{key} is not a parameter" + (f"; did you mean {near}?" if near else "")


def known_keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all parameters, in the order of the schema, without the keys of list items."""
    for name, field in schema.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from known_keys(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def nearest_key(key: str, schema: type[BaseModel]) -> str | None:
    """The known parameter that a misspelt one most likely means, or None.

    It tries, in this order: the name of a parameter in other trainers, the same name in another section, a similar name
    in this section, a similar dotted name anywhere.
    """
    section, _, leaf = key.rpartition(".")
    keys = [*known_keys(schema), *_keys_of_item(section, schema)]
    usual = difflib.get_close_matches(leaf, list(SYNONYMS), n=1, cutoff=0.85)
    leaf = SYNONYMS[usual[0]] if usual else leaf
    wanted = f"{section}.{leaf}" if section else leaf
    if wanted in keys:
        return wanted
    here = {known.rpartition(".")[2]: known for known in keys if known.rpartition(".")[0] == section}
    same = [known for known in keys if known.rpartition(".")[2] == leaf]
    similar = difflib.get_close_matches(leaf, list(here), n=1, cutoff=0.6)
    anywhere = difflib.get_close_matches(key, [*keys, *schema.model_fields], n=1, cutoff=0.75)
    return next(iter([*same, *(here[name] for name in similar), *anywhere]), None)


def _keys_of_item(section: str, schema: type[BaseModel]) -> list[str]:
    """Dotted keys of a list item, for a section such as "ingest.sources.0"; none for any other section."""
    inner: Any = schema
    for name in section.split("."):
        if name.isdigit():
            inner = next(iter(get_args(inner)), None)
        else:
            fields = inner.model_fields if isinstance(inner, type) and issubclass(inner, BaseModel) else {}
            inner = fields[name].annotation if name in fields else None
    is_item = any(name.isdigit() for name in section.split("."))
    return [f"{section}.{key}" for key in known_keys(inner)] if is_item and isinstance(inner, type) else []
