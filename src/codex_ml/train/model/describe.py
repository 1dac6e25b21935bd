"""What training.json says of a model, read from the model, the files it came from and its tokenizer, not from params.

Used by: train; the report and the model card show it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codex_ml.core.hashing import hash_path
from codex_ml.core.io import read_json
from codex_ml.modeling.positions import reach
from codex_ml.train.config import Model
from codex_ml.train.model.adapters import is_adapted, trainable_parameters
from codex_ml.train.recipe import Recipe, TrainingResult


def describe_model(ready: Any, model: Model) -> dict[str, Any]:
    """Shape and origin.

    Args:
        ready: what `make_trainable` returned for `model`, before it is merged.

    Returns:
        architecture (model_type), encoder_decoder, layers (of the encoder, and as many of the decoder, where there are
        two), hidden_size, heads; positions, None where they are relative; base {path, sha256} of the model it started
        from, None from scratch; lora {rank, alpha, modules, trained}, None where all weights are trained; quantization
        of the weights under the adapters.
    """
    config = ready.config
    return {
        "architecture": config.model_type,
        "encoder_decoder": bool(config.is_encoder_decoder),
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "heads": config.num_attention_heads,
        "positions": reach(config),
        "base": {"path": model.path, "sha256": hash_path(Path(model.path)).sha256} if model.path else None,
        "lora": _lora(ready) if is_adapted(ready) else None,
        "quantization": model.quantization,
    }


def describe_run(recipe: Recipe, result: TrainingResult) -> dict[str, Any]:
    """What was trained on, with which hardware, and how it ended.

    Returns:
        seed, rows_a_step, seq_len, global_step of the weights that were kept, the details of the result, and hardware
        {device, precision, compile, threads}; threads is train.threads, 0 for all cores.
    """
    hardware = recipe.hardware
    return {
        "seed": recipe.seed,
        "rows_a_step": recipe.train.micro_batch_size * recipe.train.accumulation,
        "seq_len": recipe.rows.seq_len,
        "global_step": result.best["step"],
        **result.details,
        "hardware": {
            "device": hardware.device,
            "precision": hardware.precision,
            "compile": hardware.compile,
            "threads": recipe.train.threads,
        },
    }


def _lora(adapted: Any) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    settings = adapted.peft_config["default"]
    return {
        "rank": settings.r,
        "alpha": float(settings.lora_alpha),
        "modules": sum(isinstance(module, LoraLayer) for module in adapted.modules()),
        "trained": sum(parameter.numel() for parameter in trainable_parameters(adapted).values()),
    }


def tokenizer_kind(folder: Path) -> str:
    """What a tokenizer is, by its own tokenizer.json, such as "byte-level BPE" or "WordPiece"."""
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
