"""`model.preset`: values for keys of `model` by name, in models/presets.yaml or from another package.

A package offers one under the entry point `codex_ml.presets`: a mapping, or a function without arguments that returns
one. A name in models/presets.yaml wins over a package's.
Used by: train.config.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codex_ml.core.errors import UserError, one_line
from codex_ml.core.plugin_lock import load_locked
from codex_ml.core.plugins import UnusablePlugin, installed
from codex_ml.core.yaml import parse_yaml

PRESETS = Path("models/presets.yaml")
SHAPE = ("architecture", "hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "max_positions",
         "tie_embeddings")  # fmt: skip
# Keys that a preset may set, beside those of `lora`. For these, null in params.yaml means the preset's value.
FROM_PRESET = (*SHAPE, "path", "quantization")


def with_preset(model: dict[str, Any]) -> dict[str, Any]:
    """Return the section `model` of params.yaml with what is null filled from `model.preset`.

    Raises:
        UserError: when no preset has this name, the preset has other keys, or a size is given together with a path.
    """
    given = {key: item for key, item in model.items() if item is not None or key not in FROM_PRESET}
    if isinstance(lora := given.get("lora"), dict):
        given["lora"] = {key: item for key, item in lora.items() if item is not None}
    name = given.get("preset")
    values = _named(name) if isinstance(name, str) and name else {}
    if given.get("path", values.get("path")) and (sizes := [key for key in SHAPE if key in given]):
        raise UserError(
            f"params.yaml: model.{sizes[0]} has no effect with model.path, because that model has its own; write null"
        )
    merged = {**values, **given}
    if isinstance(values.get("lora"), dict) and isinstance(given.get("lora", {}), dict):
        merged["lora"] = {**values["lora"], **given.get("lora", {})}
    return merged


def is_plugin(name: str) -> bool:
    """Whether a preset comes from another package."""
    return bool(name) and name not in catalogue()


def catalogue() -> dict[str, Any]:
    """The presets of models/presets.yaml by name."""
    found = parse_yaml(PRESETS.read_text(encoding="utf-8"), str(PRESETS)) if PRESETS.is_file() else {}
    if not isinstance(found, dict) or not all(isinstance(values, dict) for values in found.values()):
        raise UserError(f"{PRESETS}: expected a mapping of names to keys of `model`")
    return found


def _named(name: str) -> dict[str, Any]:
    """The values of a preset."""
    ours = catalogue()
    if name in ours:
        return _checked(ours[name], f"{PRESETS}: {name}")
    offered = [plugin.name for plugin in installed("presets")]
    if name not in offered:
        known = [*ours, *offered]
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}"
        raise UserError(f"params.yaml: model.preset: {PRESETS} has no {name}; {advice}")
    found = load_locked("presets", name)
    try:
        values = found() if callable(found) else found
    except Exception as error:
        raise UnusablePlugin("presets", name, f"failed: {type(error).__name__}: {one_line(error)}") from None
    if not isinstance(values, Mapping):
        raise UnusablePlugin("presets", name, f"must be a mapping, found {type(values).__name__}")
    return _checked(dict(values), f"preset {name!r} of a package")


def _checked(values: dict[str, Any], where: str) -> dict[str, Any]:
    allowed = (*FROM_PRESET, "lora")
    if other := [key for key in values if key not in allowed]:
        raise UserError(f"{where}: {other[0]} is not a key of a preset; allowed: {', '.join(allowed)}")
    if values.get("path") and (sizes := [key for key in SHAPE if key in values]):
        raise UserError(f"{where}: {sizes[0]} has no effect with path, because that model has its own; remove one")
    return values
