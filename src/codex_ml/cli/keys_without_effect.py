"""Keys of params.yaml that have no effect because of another key: a value other than the default is a mistake.

Used by: param_rules.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from typing import Any

from pydantic import BaseModel

from codex_ml.cli.all_but import AllBut
from codex_ml.ingest.config import FOR_FILES

COMPLETION_KEYS = ("split_at", "max_tokens", "temperature", "repetition_penalty", "stop")
CODE_KEYS = ("protocol", "samples", "k", "max_tokens", "temperature", "top_p", "cpu_seconds", "memory_mb", "sandbox")
CANARY_KEYS = ("design", "repetitions", "each", "controls")
# (key, other key, values): the key has no effect while the other key has one of these values.
WITHOUT_EFFECT = (
    ("split.fold", "split.folds", (0,)),
    ("split.contaminated", "split.benchmarks", ((),)),
    *((f"pack.canaries.{key}", "pack.canaries.plant", ("never",)) for key in CANARY_KEYS),
    ("model.lora.alpha", "model.lora.rank", (0,)),
    ("model.lora.dropout", "model.lora.rank", (0,)),
    ("model.lora.targets", "model.lora.rank", (0,)),
    ("model.lora.bias", "model.lora.rank", (0,)),
    ("model.lora.rslora", "model.lora.rank", (0,)),
    ("model.lora.dora", "model.lora.rank", (0,)),
    ("train.momentum", "train.optimizer", ("adamw",)),
    ("train.decay_steps", "train.schedule", ("cosine", "linear", "constant", "inverse_sqrt")),
    ("train.min_lr_ratio", "train.schedule", ("constant",)),
    ("train.early_stopping.min_delta", "train.early_stopping.patience", (None,)),
    *((f"evaluate.completions.{key}", "evaluate.completions.documents", (0,)) for key in COMPLETION_KEYS),
    ("evaluate.completions.top_k", "evaluate.completions.temperature", (0.0,)),
    ("evaluate.completions.top_p", "evaluate.completions.temperature", (0.0,)),
    *((f"evaluate.code.{key}", "evaluate.benchmarks", ((),)) for key in CODE_KEYS),
    ("evaluate.code.top_p", "evaluate.code.temperature", (0.0,)),
)
# The same for the keys of a source.
SOURCE_WITHOUT_EFFECT = (
    ("revision", "kind", AllBut("git")),
    ("gitignore", "kind", AllBut("files")),
    ("glob", "kind", AllBut(*FOR_FILES)),
    ("include", "kind", AllBut(*FOR_FILES)),
    ("exclude", "kind", AllBut(*FOR_FILES)),
    ("group", "kind", AllBut(*FOR_FILES)),
    ("fields", "kind", FOR_FILES),
    ("max_bad_records", "bad_records", ("fail",)),
)


def without_effect(section: BaseModel, table: tuple[tuple[str, str, Container[Any]], ...]) -> Iterator[str]:
    """One message for each key that has no effect although its value is not the default."""
    for key, other, off in table:
        value, default = value_and_default(section, key)
        switch, _ = value_and_default(section, other)
        if switch in off and value != default:
            written = "its default" if isinstance(default, BaseModel) else f"{_written(default)}, its default"
            yield f"{key} has no effect with {other} {_written(switch)}; remove it, or write {written}"


def value_and_default(section: BaseModel, key: str) -> tuple[Any, Any]:
    """A value and its default."""
    *above, leaf = key.split(".")
    for name in above:
        section = getattr(section, name)
    return getattr(section, leaf), type(section).model_fields[leaf].default


def _written(value: Any) -> str:
    """As YAML spells it."""
    return value if isinstance(value, str) and value else json.dumps(value)
