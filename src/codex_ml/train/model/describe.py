"""Describe a trained model for training.json, from the model, its files and its tokenizer, not from params.yaml.

Used by: train. The report and the model card show the description.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from codex_ml.core.hashing import hash_path
from codex_ml.core.io import read_json
from codex_ml.modeling.pack_files import PLAIN
from codex_ml.modeling.positions import reach
from codex_ml.modeling.train_files import (
    AdapterShape,
    BaseModelFiles,
    TrainedModel,
    Training,
    UsedHardware,
    UsedOptimizer,
)
from codex_ml.train.config import Model
from codex_ml.train.model.adapters import is_adapted, rows_that_train, trainable_parameters
from codex_ml.train.recipe import Recipe, TrainingResult


def describe_model(ready: Any, model: Model) -> TrainedModel:
    """Return the shape and the origin of a model.

    Args:
        ready: what `make_trainable` returned for `model`, before it is merged.
    """
    config = ready.config
    return TrainedModel(
        architecture=config.model_type,
        encoder_decoder=bool(config.is_encoder_decoder),
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        heads=config.num_attention_heads,
        positions=reach(config),
        base=BaseModelFiles(path=model.path, sha256=hash_path(Path(model.path)).sha256) if model.path else None,
        lora=_lora(ready) if is_adapted(ready) else None,
        quantization=model.quantization,
    )


def describe_run(recipe: Recipe, result: TrainingResult, *, model: TrainedModel, tokenizer: Path) -> Training:
    """Return what was trained, on which rows, with which hardware, and how the run ended.

    Args:
        tokenizer: folder of the tokenizer.
    """
    rare: dict[str, Any] = {} if recipe.rows.template == PLAIN else {"template": recipe.rows.template}
    return Training(
        seed=recipe.seed,
        rows_a_step=recipe.train.micro_batch_size * recipe.train.accumulation,
        seq_len=recipe.rows.seq_len,
        global_step=result.best["step"],
        **result.details,
        model=model,
        tokenizer=tokenizer_kind(tokenizer),
        optimizer=UsedOptimizer(**asdict(recipe.optimizer)),
        hardware=UsedHardware(
            device=recipe.hardware.device,
            precision=recipe.hardware.precision,
            compile=recipe.hardware.compile,
            threads=recipe.train.threads,
        ),
        loss_on=recipe.rows.loss_on,
        **rare,
    )


def _lora(adapted: Any) -> AdapterShape:
    from peft.tuners.lora import LoraLayer

    settings = adapted.peft_config["default"]
    return AdapterShape(
        rank=settings.r,
        alpha=float(settings.lora_alpha),
        modules=sum(isinstance(module, LoraLayer) for module in adapted.modules()),
        trained=sum(parameter.numel() for parameter in trainable_parameters(adapted).values()),
        **({"added_pieces": len(rows)} if (rows := rows_that_train(adapted)) else {}),
    )


def tokenizer_kind(folder: Path) -> str:
    """Return the kind of a tokenizer, from its tokenizer.json, such as "byte-level BPE" or "WordPiece"."""
    description = read_json(folder / "tokenizer.json")
    model = description["model"]
    name = {"WordLevel": "word-level vocabulary"}.get(model["type"], model["type"])
    if "ByteLevel" in _types(description.get("decoder")):
        return f"byte-level {name}"
    return f"{name} with byte fallback" if model.get("byte_fallback") else str(name)


def _types(part: Any) -> set[str]:
    """Types of a part of tokenizer.json and of the steps in it."""
    if not isinstance(part, dict):
        return set()
    return {part.get("type", ""), *(t for step in part.get("decoders") or () for t in _types(step))}
