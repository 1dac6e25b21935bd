"""Load a model and a LoRA adapter for it from disk, merged; the folder of the adapter may be hostile.

The adapter is merged here, line by line, and not by peft: adapter_config.json can hold regular expressions, names of
modules of Python and other methods than LoRA, and nothing of it reaches a library. What is not plain LoRA is refused.

Used by: cli.model_and_data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError
from codex_ml.core.io import read_json
from codex_ml.train.model.adapters import untie_targets
from codex_ml.train.model.foreign import CONFIG_BYTES, check_folder
from codex_ml.train.model.local_model import load_local
from codex_ml.train.model.weights import check_weights, read_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # peft's wrappers, before each name of the model
LOW_RANK = {".lora_A.weight": 0, ".lora_B.weight": 1}
# Keys that do not change what a trained adapter is: where it goes and how large it is, its tensors say.
WITHOUT_EFFECT = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out", "bias", "use_rslora",
    "layers_to_transform", "layers_pattern", "rank_pattern", "megatron_config", "megatron_core", "ensure_weight_tying",
    "runtime_config", "qalora_group_size",
}  # fmt: skip
PLAIN_STARTS = (True, False, "gaussian", "orthogonal")  # others start from a changed base model
MERGED = "name the folder of the merged model instead"


def base_of(folder: Path) -> str:
    """Where adapter_config.json says that the base model is.

    Raises:
        UserError: when the folder has no such file, or the file does not say it.
    """
    name = _config(folder).get("base_model_name_or_path")
    if not isinstance(name, str) or not name or "\0" in name:
        raise UserError(f"{folder / CONFIG} does not name its base model; name it with --base")
    return name


def load_adapted(folder: Path, base: Path, *, attention: str, scratch: Path) -> PreTrainedModel:
    """Load the model `base`, a folder or a GGUF file, and add the adapter in `folder` to its weights, in float32.

    W + (alpha / r) B A for each adapted matrix W (Hu et al. 2021, arXiv:2106.09685); alpha / sqrt(r) with rsLoRA. A
    bias of the adapter replaces that of the model.

    Raises:
        UserError: when one of them cannot be used, they do not fit, or the adapter is not plain LoRA.
    """
    check_folder(folder, adapter=True)
    config = _config(folder)
    alpha = _plain_alpha(config, folder / CONFIG)
    file = folder / WEIGHTS
    if not file.is_file():
        raise UserError(f"{file} is missing; an adapter is {CONFIG} and {WEIGHTS}")
    tensors = dict(read_tensors(file, check_weights(file)))
    model = load_local(base, attention=attention, scratch=scratch)
    modules = dict(model.named_modules())
    pairs = dict(_pairs(tensors, modules, file))
    untie_targets(model, {name: modules[name] for name in pairs})
    for name, (down, up) in pairs.items():
        rank = len(down)
        _add(modules[name], up @ down * (alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)), name, file)
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        if not name.endswith(tuple(LOW_RANK)):
            _replace_bias(parameters, name.removeprefix(PREFIX).replace(".base_layer.", "."), tensor, file)
    return model


def _config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / CONFIG, most=CONFIG_BYTES)
    if not isinstance(config, dict):
        raise UserError(f"{folder / CONFIG} is not an object of JSON")
    return config


def _plain_alpha(config: dict[str, Any], file: Path) -> float:
    """The scale alpha of a plain adapter.

    Raises:
        UserError: naming the first setting that makes it something else.
    """
    if config.get("peft_type") != "LORA":
        raise UserError(f"{file}: peft_type is {str(config.get('peft_type'))[:40]!r}; only LORA is read; {MERGED}")
    start = config.get("init_lora_weights", True)
    if start not in PLAIN_STARTS:
        raise UserError(f"{file}: init_lora_weights {str(start)[:40]!r} changes the base model; {MERGED}")
    for key in sorted(config.keys() - WITHOUT_EFFECT - {"init_lora_weights"}):
        if config[key]:
            raise UserError(f"{file}: {key[:40]!r} is set, and this is not plain LoRA; {MERGED}")
    alpha: Any = config.get("lora_alpha")
    if type(alpha) not in (int, float) or not 0 < alpha <= 1e6:
        raise UserError(f"{file}: lora_alpha is {str(alpha)[:40]!r}; expected a number above 0 and at most 1,000,000")
    return float(alpha)


def _pairs(
    tensors: dict[str, Tensor], modules: dict[str, nn.Module], file: Path
) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Name of each adapted module with its matrices A (r, in) and B (out, r), in float32."""
    found: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        ending = next((ending for ending in LOW_RANK if name.endswith(ending)), None)
        if ending is None and name.endswith(".bias"):
            continue
        module = name.removeprefix(PREFIX).removesuffix(ending or "")
        if ending is None or not name.startswith(PREFIX) or tensor.ndim != 2:
            raise UserError(f"{file}: the tensor {name[:80]} is not of plain LoRA; {MERGED}")
        if module not in modules:
            raise UserError(f"{file}: the base model has no module {module[:80]}; they do not belong together")
        found.setdefault(module, {})[LOW_RANK[ending]] = tensor.float()
    if not found:
        raise UserError(f"{file} holds no matrices of LoRA")
    for module, pair in found.items():
        if len(pair) < 2 or len(pair[0]) != pair[1].shape[1]:
            raise UserError(f"{file}: the matrices A and B of {module[:80]} are not a pair")
        yield module, (pair[0], pair[1])


def _add(module: nn.Module, change: Tensor, name: str, file: Path) -> None:
    """Add the (out, in) change to the weight of a linear layer; GPT-2's Conv1D holds its weight transposed."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if not isinstance(module, nn.Linear | Conv1D):
        raise UserError(f"{file}: the module {name} is a {type(module).__name__}, not a linear layer; {MERGED}")
    change = change.T if isinstance(module, Conv1D) else change
    if change.shape != module.weight.shape:
        raise UserError(
            f"{file}: the adapter of {name} is for a weight of {tuple(change.shape)}, and the base model has "
            f"{tuple(module.weight.shape)}; they do not belong together"
        )
    module.weight.data += change


def _replace_bias(parameters: dict[str, nn.Parameter], name: str, tensor: Tensor, file: Path) -> None:
    if name not in parameters or parameters[name].shape != tensor.shape:
        raise UserError(f"{file}: the base model has no bias {name[:80]} of this shape; they do not belong together")
    parameters[name].data.copy_(tensor)
