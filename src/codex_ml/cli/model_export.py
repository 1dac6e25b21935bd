"""Copies of a trained model for other tools: the merged model, or its adapter.

Used by: `codex-ml export merged`, `codex-ml export adapter`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from codex_ml.core.contract import Contract
from codex_ml.core.errors import UserError
from codex_ml.core.io import atomic_folder
from codex_ml.core.pipeline import remedy
from codex_ml.core.tree import stands_for
from codex_ml.train.model.weights import check_weights


class ExportedFolder(Contract):
    """What `codex-ml export merged|adapter|tokenizer --json` prints: the new folder and the names in it, sorted."""

    folder: str
    files: list[str]


class ExportedFile(Contract):
    """What `codex-ml export gguf --json` prints.

    Attributes:
        architecture: the name that GGUF has for it.
        tensors, tokens: their numbers; no tokens without a tokenizer.
    """

    file: str
    architecture: str
    tensors: int
    tokens: int


WEIGHTS = ("config.json", "generation_config.json", "model.safetensors")
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.model")
TEMPLATES = "additional_chat_templates"


def export_merged(model: Path, out: Path) -> list[str]:
    """Copy weights, settings and tokenizer of a model to the new folder `out`; return the names, sorted.

    Raises:
        UserError: when `out` exists, or `model` is not the folder of a model.
    """
    return _copy(model, {name: model / name for name in WEIGHTS}, out, needed=WEIGHTS[::2])


def export_adapter(model: Path, out: Path) -> list[str]:
    """Copy the adapter of a model, and its tokenizer, to the new folder `out`; return the names, sorted.

    Raises:
        UserError: when `out` exists, or `model` was trained without an adapter.
    """
    if model.is_dir() and not (model / "adapter").is_dir():
        raise UserError(
            f"{model} has no folder adapter: all its weights were trained (model.lora.rank 0); "
            "`codex-ml export merged` writes them"
        )
    return _copy(model, {name: model / "adapter" / name for name in ADAPTER}, out, needed=ADAPTER)


def refuse_export_target(out: Path, source: Path) -> None:
    """Refuse a target that exists, that lies in the folder that is exported, or that can have no folder around it.

    Raises:
        UserError: naming what is in the way.
    """
    if os.path.lexists(out):
        raise UserError(f"{out} already exists; give a new name")
    if source.resolve() in out.resolve().parents:
        raise UserError(f"{out} lies in {source}, which an export leaves as it is; give a name outside")
    above = next(place for place in out.absolute().parents if os.path.lexists(place))
    if not above.is_dir():
        raise UserError(f"{above} is not a folder, so {out} cannot be in it; give another name")


def _copy(model: Path, files: dict[str, Path], out: Path, *, needed: tuple[str, ...]) -> list[str]:
    refuse_export_target(out, model)
    for name in needed:
        if not files[name].is_file():
            raise UserError(f"{files[name]} is missing; {remedy(model, 'name the folder of a model')}")
    files = {**files, **{name: model / name for name in (*TOKENIZER, *_templates(model))}}
    kept = {name: file for name, file in files.items() if file.is_file()}
    for file in kept.values():
        if link := next((place for place in (file, file.parent) if stands_for(place).is_symlink()), None):
            raise UserError(f"{link} is a symbolic link; copy what it points to, for example with cp -rL")
        if file.suffix == ".safetensors":
            check_weights(file)
    with atomic_folder(out) as new:
        for name, file in kept.items():
            (new / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, new / name)
    return sorted(kept)


def _templates(model: Path) -> Iterator[str]:
    return (f"{TEMPLATES}/{file.name}" for file in sorted((model / TEMPLATES).glob("*.jinja")))
