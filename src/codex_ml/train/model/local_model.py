"""Load a model from disk, offline: a Hugging Face folder or a GGUF file, which may be hostile."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError
from codex_ml.core.packages import install_extra
from codex_ml.core.tree import stands_for
from codex_ml.modeling.trained_model import load_fitting
from codex_ml.train.model.build import set_dropout
from codex_ml.train.model.foreign import check_folder, read_config, weight_files
from codex_ml.train.model.foreign_size import check_need
from codex_ml.train.model.gguf_weights import unpack_weights
from codex_ml.train.model.weights import read_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_local(
    path: Path, *, attention: str, scratch: Path, dropout: float = 0.0, quantization: str = "none"
) -> PreTrainedModel:
    """Load a causal language model in float32, from a folder or a GGUF file that may be hostile.

    Weights come from checked safetensors, and settings from an allow-list of the keys of config.json. Nothing else is
    read, no code of the folder is imported and no socket is opened. transformers gets tensors and settings, never the
    folder.

    Args:
        attention: "eager" or "sdpa"; the folder's own setting is ignored.
        scratch: folder in which a GGUF file is unpacked; the unpacked files are then removed.
        dropout: every dropout of the architecture, in training; the folder's own setting is ignored.
        quantization: "none"; or "8bit" or "4bit", in which bitsandbytes holds the weights instead of float32.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    if stands_for(path).is_symlink():
        raise UserError(f"{path} is a symbolic link; replace it with a copy of what it points to")
    if not path.is_file():
        check_folder(path)
        return _load_folder(path, attention=attention, dropout=dropout, quantization=quantization)
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="gguf-") as folder:
        unpack_weights(path, Path(folder) / "model")
        check_folder(Path(folder) / "model", unpacked=True)
        return _load_folder(Path(folder) / "model", attention=attention, dropout=dropout, quantization=quantization)


def _load_folder(folder: Path, *, attention: str, dropout: float, quantization: str) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    files = weight_files(folder)
    held = [entry for entries in files.values() for entry in entries.values()]
    config = read_config(folder, held)
    check_need(config, held, folder / "config.json")
    set_dropout(config, dropout)
    options = quantized(quantization)
    tensors = {name: tensor for file, entries in files.items() for name, tensor in read_tensors(file, entries)}
    model_class: Any = AutoModelForCausalLM._model_mapping[type(config)]
    given = {"config": config, "state_dict": tensors, "attn_implementation": attention}
    return load_fitting(model_class, None, folder, **given, **options)


def quantized(kind: str) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for weights in 8 or 4 bits (NF4, Dettmers et al. 2023).

    Raises:
        UserError: when bitsandbytes is not installed.
    """
    if kind == "none":
        return {}
    if find_spec("bitsandbytes") is None:
        raise UserError(f"model.quantization: {kind} needs the package bitsandbytes; {install_extra('quantization')}")
    import torch
    from transformers import BitsAndBytesConfig

    if kind == "8bit":
        # by default one large activation changes the rounding of all rows of the batch, so documents affect each other
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)}
    settings = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    return {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, **settings)}
