"""The identity of a run, which its checkpoints record, and how it differs from that of a run that continues it.

`train.resume_from` continues from a checkpoint of another run. Each part of the identity is in one of three groups:

    fixed     decides which rows were seen, or what the weights mean. A different value is an error, which names it.
    measured  decides what a validation loss means. With a different value the kept weights are validated again, early
              stopping restarts, and the curves lose the earlier validation losses.
    settings  the rest of `train`, and the peak rates that follow from it (optimizer.lr, optimizer.embedding_lr). A
              different value applies from the next step; training.json lists it.

The identity is read from the model and the rows themselves, not from the parameters that made them. So equal models and
equal rows are the same, whatever their origin.

Used by: run (computes it), resume (compares it).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.modeling.rows import Rows
from codex_ml.train.config import Train
from codex_ml.train.model.adapters import is_adapted
from codex_ml.train.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

Identity = dict[str, dict[str, Any]]
CHUNK = 1 << 22  # numbers of a stream that are hashed at once
# Keys of a model's config that do not change what the weights mean: names, versions, ways of computing.
NOT_THE_MODEL = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "_attn_implementation")
LORA = {"r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout", "target_modules": "targets",
        "use_rslora": "rslora", "use_dora": "dora", "bias": "bias"}  # fmt: skip
NO_SETTINGS = {"resume_from", "optimizer", "eval_rows", "precision"}  # the last three are in the other groups


def identity_of(model: nn.Module, recipe: Recipe) -> Identity:
    """Return the identity of a run, as a JSON value.

    Args:
        model: what `make_trainable` returned, before it is moved to a device or sharded.
    """
    train, rows = recipe.train, recipe.rows
    flat = {f"train.{name}": value for name, value in train.model_dump(mode="json", exclude=NO_SETTINGS).items()}
    return {
        "fixed": {
            "seed": recipe.seed,
            "train.optimizer": recipe.optimizer.name,
            "train.micro_batch_size x train.accumulation": train.micro_batch_size * train.accumulation,
            "pack.seq_len": rows.seq_len,
            "tokenizer (tokenizer.json)": recipe.tokenizer,
            **_model(model),
            "train rows (data/packed)": digest_of(rows),
        },
        "measured": {
            "val rows (data/packed)": digest_of(recipe.val_rows),
            "train.eval_rows": train.eval_rows,
            "train.precision": recipe.hardware.precision,
        },
        "settings": {
            **flat,
            "optimizer.lr": recipe.optimizer.lr,
            "optimizer.embedding_lr": recipe.optimizer.embedding_lr,
            "runtime.device": recipe.hardware.device,
        },
    }


def differences(before: Identity, now: Identity, group: str) -> dict[str, dict[str, Any]]:
    """Return the parts of a group that differ: name -> {"before": value, "now": value}; None for a missing part."""
    old, new = {**_unsaid(before)[group], **before[group]}, now[group]
    names = [*new, *(name for name in old if name not in new)]
    pairs = {name: {"before": old.get(name), "now": new.get(name)} for name in names}
    return {name: pair for name, pair in pairs.items() if pair["before"] != pair["now"]}


def _unsaid(identity: Identity) -> Identity:
    """What an identity of an earlier version does not say: AdamW had one rate for all weights, adapters no bias."""
    settings = {
        "train.momentum": Train.model_fields["momentum"].default,
        "optimizer.lr": identity["settings"]["train.lr"],
        "optimizer.embedding_lr": None,
    }
    fixed = {"train.optimizer": "adamw"}
    if "model.lora.rank" in identity["fixed"]:
        fixed["model.lora.bias"] = "none"
    return {"fixed": fixed, "measured": {}, "settings": settings}


def shown(changed: dict[str, dict[str, Any]]) -> str:
    """Format differences for a message, at most three: "seed is 2 and was 1, pack.seq_len is 128 and was 256"."""
    parts = [f"{name} is {_short(pair['now'])} and was {_short(pair['before'])}" for name, pair in changed.items()]
    more = f", and {len(parts) - 3} more" if len(parts) > 3 else ""
    return ", ".join(parts[:3]) + more


def digest_of(rows: Rows) -> str:
    """SHA-256 of packed rows: ids, offsets of the pieces, rows, mask. It does not depend on `pack.dtype`."""
    sha256 = hashlib.sha256()
    for name, numbers in (
        ("tokens", rows.tokens), ("pieces", rows.pieces.reshape(-1)), ("first", rows.first), ("mask", rows.mask)
    ):  # fmt: skip
        sha256.update(f"{name} {None if numbers is None else len(numbers)}\n".encode())
        if numbers is not None:
            _update(sha256, numbers)
    return sha256.hexdigest()


def _update(sha256: Any, numbers: NDArray[Any]) -> None:
    width = "<u8" if numbers.dtype.itemsize == 8 else "<u4"  # uint16 ids hash as uint32 ones do
    for start in range(0, len(numbers), CHUNK):
        sha256.update(np.ascontiguousarray(numbers[start : start + CHUNK].astype(width)))


def _model(model: Any) -> dict[str, Any]:
    """The architecture, the adapter's settings and a hash of the frozen weights; a checkpoint has the trained ones."""
    config = json.loads(model.config.to_json_string(use_diff=False), parse_constant=str)  # Infinity is not JSON
    parts = {f"model.{name}": value for name, value in config.items() if name not in NOT_THE_MODEL}
    if is_adapted(model):
        adapter = model.peft_config["default"].to_dict()
        for name, key in LORA.items():
            value = adapter[name]
            parts[f"model.lora.{key}"] = sorted(value) if isinstance(value, set) else value
        parts["weights of the base model"] = _frozen(model)
    return parts


def _frozen(model: nn.Module) -> str:
    import torch

    sha256 = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if not parameter.requires_grad:
            sha256.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
            data = parameter.detach().cpu().contiguous().reshape(-1)
            sha256.update(data.view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def _short(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value)
    if len(text) == 64 and not set(text) - set("0123456789abcdef"):
        return f"SHA-256 {text[:12]}"
    return text if len(text) <= 60 else f"{text[:57]}..."
