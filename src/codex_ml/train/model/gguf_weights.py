"""Convert a GGUF file to a Hugging Face folder, which is then read like any foreign folder.

Used by: train.model.local_model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from codex_ml.core.gguf_file import load_reader, unpack
from codex_ml.core.io import write_json


def unpack_weights(path: Path, folder: Path) -> None:
    """Write model.safetensors (float32) and config.json of a GGUF file; see `gguf_file.unpack`."""
    unpack(path, folder, weights_writer)


def weights_writer() -> Callable[[dict[str, Any]], None]:
    """Import in the child what `write_weights` needs, and return `write_weights`."""
    from transformers import AutoModelForCausalLM  # noqa: F401

    load_reader()
    return write_weights


def write_weights(request: dict[str, Any]) -> None:
    """Write the weights and settings of `file` to the folder `to`."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    source, target = Path(request["file"]), Path(request["to"])
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, local_files_only=True, attn_implementation="eager", dtype=torch.float32
    )
    tensors = {name: p.detach().contiguous() for name, p in model.named_parameters()}  # tied ones once
    if packed := [name for name, tensor in tensors.items() if tensor.dtype != torch.float32]:
        raise ValueError(f"{packed[0]} was not unpacked to float32")
    save_file(tensors, target / "model.safetensors")
    config = model.config.to_diff_dict()
    config.pop("quantization_config", None)
    write_json(target / "config.json", {**config, "dtype": "float32"})
