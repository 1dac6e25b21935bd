"""Refuse a foreign model whose settings ask for more than its weights hold, before any of it is built.

A config.json of a few bytes can ask for a million layers, and gpt_bigcode with 40,000 positions makes masks of 5 GB
beside weights of 325 kB: they grow with the square of the positions.

Used by: foreign, local_model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError, one_line
from codex_ml.train.model.weights import TensorEntry

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Settings that are sides of tensors, under the names that all architectures share.
SIDES = (
    "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size",
    "rotary_dim",
)  # fmt: skip
LAYERS = "num_hidden_layers"
BUFFERS = 256 << 20  # bytes of masks and tables that any model may have; StarCoder's mask has 64 MiB


def check_settings(
    settings: Mapping[str, Any], names: Mapping[str, str], entries: Iterable[TensorEntry], file: Path
) -> None:
    """Refuse a size that no tensor of the weights has.

    Args:
        settings: of config.json.
        names: shared name -> the architecture's own name, `attribute_map` of its configuration class.
        entries: the tensors of the weights.
        file: config.json, for messages.

    Raises:
        UserError: naming the setting.
    """
    shapes = [entry.shape for entry in entries]
    longest = max((side for shape in shapes for side in shape), default=0)
    limits = {
        **dict.fromkeys(SIDES, (longest, "the longest side of its tensors")),
        LAYERS: (len(shapes), "its number of tensors"),
    }
    for name, (most, what) in limits.items():
        for key in {name, names.get(name, name)}:
            if isinstance(value := settings.get(key), int | float) and value > most:
                raise UserError(f"{file}: {key} is {value:,}, but the weights do not fit: {what} is {most:,}")


def check_need(config: PretrainedConfig, entries: Iterable[TensorEntry], file: Path) -> None:
    """Build the model without memory, and compare it with the weights.

    Args:
        config: made of settings that `check_settings` has checked.
        entries: the tensors of the weights.
        file: config.json, for messages.

    Raises:
        UserError: when the architecture cannot have these settings, or the parameters or the buffers (masks, tables of
            positions) are much larger than the weights.
    """
    import torch
    from transformers import AutoModelForCausalLM

    held = sum(prod(entry.shape) for entry in entries)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # transformers and torch raise a dozen types for settings that do not fit
        raise UserError(f"{file}: {config.model_type} cannot be built with these settings: {one_line(error)}") from None
    parameters = sum(tensor.numel() for tensor in {id(p): p for p in model.parameters()}.values())
    if parameters > 2 * held:  # twice: a file may hold one matrix for embedding and head, which count as two here
        raise UserError(
            f"{file} describes a model of {parameters:,} parameters, but the weights hold {held:,} numbers; they do "
            "not belong together"
        )
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    if buffers > max(BUFFERS, 4 * held):
        positions = getattr(config, "max_position_embeddings", 0)
        raise UserError(
            f"{file}: {config.model_type} makes masks and tables of {buffers >> 20:,} MiB for {positions:,} positions; "
            f"{BUFFERS >> 20} MiB are allowed, or as much as the weights need in float32; use a model with fewer "
            "positions"
        )
