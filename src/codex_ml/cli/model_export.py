"""Copies of a trained model for other tools: the merged model, or its adapter.

Used by: `codex-ml export merged`, `codex-ml export adapter`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from codex_ml.core.contract import Contract
from codex_ml.core.errors import UserError
from codex_ml.core.io import atomic_folder
from codex_ml.core.pipeline import remedy


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


def _copy(model: Path, files: dict[str, Path], out: Path, *, needed: tuple[str, ...]) -> list[str]:
    if out.exists():
        raise UserError(f"{out} already exists; give a new folder")
    for name in needed:
        if not files[name].is_file():
            raise UserError(f"{files[name]} is missing; {remedy(model, 'name the folder of a model')}")
    files = {**files, **{name: model / name for name in (*TOKENIZER, *_templates(model))}}
    kept = {name: file for name, file in files.items() if file.is_file()}
    if link := next((file for file in kept.values() if file.is_symlink()), None):
        raise UserError(f"{link} is a symbolic link; copy the file it points to, for example with cp -L")
    with atomic_folder(out) as new:
        for name, file in kept.items():
            (new / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, new / name)
    return sorted(kept)


def _templates(model: Path) -> Iterator[str]:
    return (f"{TEMPLATES}/{file.name}" for file in sorted((model / TEMPLATES).glob("*.jinja")))
