"""Read a model folder that others made: only listed files and listed settings, nothing that can name code.

This is an allow-list, because scanners for bad content can be evaded (arXiv:2508.19774). A key that the architecture
does not declare never reaches transformers, whose configurations can name code to import (CVE-2026-4372,
CVE-2026-5241).

Used by: local_model, `codex-ml check`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError, one_line
from codex_ml.core.io import read_json
from codex_ml.core.tree import is_left_out, stands_for
from codex_ml.train.model.foreign_size import check_settings
from codex_ml.train.model.weights import TensorEntry, check_weights

if TYPE_CHECKING:
    from transformers import PretrainedConfig

log = logging.getLogger("codex_ml")

# Causal models that give packed documents the logits of documents alone; tests/train/model/test_probe.py checks each.
MODEL_TYPES = (
    "llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox", "gpt_bigcode", "starcoder2", "codegen", "phi", "phi3",
    "olmo2", "granite", "smollm3", "gemma",
)  # fmt: skip
LEAKING = {
    "bloom": "its attention uses distances along the whole row and takes no document mask",
    "opt": "it counts positions along the whole row, from the padding mask",
}
# Formats that can run or hide code when they are loaded. A folder with such a file is refused as a whole.
REFUSED = {
    ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".hdf5", ".npy", ".npz", ".joblib", ".msgpack", ".onnx",
    ".tflite", ".pb", ".py", ".pyc", ".so", ".dll", ".dylib", ".zip", ".tar", ".gz",
}  # fmt: skip
MAX_FILES = 10_000
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")

TEXT = re.compile(r"[A-Za-z0-9_.\-]{1,64}")  # a setting that is a name, such as silu; no path and no address
UNSAFE = re.compile(r"auto_map|attn_implementation|experts_implementation|remote_code|name_or_path|kernel", re.I)
COMMON = {"bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"}
OLD_NAMES = {"rope_theta", "rope_scaling", "rotary_pct", "rotary_emb_base", "partial_rotary_factor"}
ADDS_NOTHING = {"model_type", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
CONFIG_BYTES, INDEX_BYTES = 1 << 20, 16 << 20  # of a configuration, and of the index of a million tensors
LARGEST = 2**31  # limit of any number in a configuration


def check_folder(folder: Path, *, unpacked: bool = False, adapter: bool = False) -> None:
    """Refuse a folder with links or with files that can hold code, at any depth.

    Args:
        unpacked: whether we made the folder from a GGUF file. Then the record has the hash of that file, and the folder
            is in scratch, which DVC ignores.
        adapter: whether an adapter is expected; else a folder with one is refused.

    Raises:
        UserError: naming the first such file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is missing; model.path names a Hugging Face folder or a GGUF file")
    for number, path in enumerate(sorted(folder.rglob("*"))):
        if number >= MAX_FILES:
            raise UserError(f"{folder} holds more than {MAX_FILES:,} files; a model has a few")
        if stands_for(path).is_symlink():
            raise UserError(f"{path} is a symbolic link; copy the file it points to, for example with cp -rL")
        if not unpacked and path.suffix in (".json", ".safetensors") and is_left_out(path):
            raise UserError(f"{path} is in no hash: DVC leaves it out (.dvcignore); remove that pattern, or the file")
        if path.suffix.lower() in REFUSED:
            raise UserError(
                f"{path}: {path.suffix} files can run code when they are loaded, so a folder with one is refused; "
                "keep *.safetensors, config.json and the tokenizer's files"
            )
        if not (path.is_file() or path.is_dir()):
            raise UserError(f"{path} is neither a file nor a folder")
    if not adapter and (folder / "adapter_config.json").exists():
        raise UserError(
            f"{folder} holds an adapter (adapter_config.json); model.path names the model that it was trained on"
        )


def weight_files(folder: Path) -> dict[Path, dict[str, TensorEntry]]:
    """Return the safetensors files of a folder with their checked headers: model.safetensors, or the index's shards.

    Raises:
        UserError: when there is none, or the index and the shards disagree.
    """
    if not (folder / INDEX).is_file():
        if not (folder / SINGLE).is_file():
            raise UserError(f"{folder} has neither {SINGLE} nor {INDEX}; other formats are not read")
        return {folder / SINGLE: check_weights(folder / SINGLE)}
    if (folder / SINGLE).exists():
        raise UserError(f"{folder} has both {SINGLE} and {INDEX}; remove the one that is not the model")
    index = read_json(folder / INDEX, most=INDEX_BYTES)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise UserError(f"{folder / INDEX} has no weight_map")
    for name in places.values():
        if not isinstance(name, str) or not SHARD.fullmatch(name):
            raise UserError(
                f"{folder / INDEX}: {str(name)[:80]!r} is not the name of a shard, such as "
                "model-00001-of-00002.safetensors"
            )
    files = {}
    for name in sorted(set(places.values())):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; {INDEX} names it")
        files[folder / name] = check_weights(folder / name)
    held = [(name, file.name) for file, entries in files.items() for name in entries]
    if sorted(held) != sorted(places.items()):
        name = sorted(set(held) ^ set(places.items()))[0][0]
        raise UserError(f"{folder / INDEX} and its shards disagree about {name}")
    return files


def checked_config(folder: Path) -> dict[str, Any]:
    """Read config.json of a foreign model, unchanged; refuse an architecture that cannot be trained here.

    Raises:
        UserError: when it is missing or is not JSON, or the model is of another architecture or quantized.
    """
    file = folder / "config.json"
    raw = read_json(file, most=CONFIG_BYTES)
    kind = str(raw.get("model_type", "")) if isinstance(raw, dict) else ""
    if kind in LEAKING:
        raise UserError(f"{file}: {kind} leaks between the documents of a row: {LEAKING[kind]}; use another model")
    if kind not in MODEL_TYPES:
        raise UserError(f"{file}: model_type {kind[:40]!r} is not one of {', '.join(MODEL_TYPES)}")
    if "quantization_config" in raw:
        raise UserError(f"{file}: the weights are quantized (quantization_config); use the model in bf16 or fp32")
    return dict(raw)


def read_config(folder: Path, entries: Collection[TensorEntry]) -> PretrainedConfig:
    """Build the configuration of a foreign model from allowed keys only; log the names of the others.

    Args:
        entries: the tensors of the weights.

    Raises:
        UserError: when the architecture is not one of `MODEL_TYPES`, its configuration class refuses a value, or the
            weights are too small for it.
    """
    from transformers import AutoConfig

    file, raw = folder / "config.json", checked_config(folder)
    kind = raw["model_type"]
    empty = AutoConfig.for_model(kind)
    settings = clean_config(raw, known=set(type(empty).__annotations__) | set(empty.attribute_map), name=str(file))
    check_settings(settings, empty.attribute_map, entries, file)
    try:
        config = AutoConfig.for_model(kind, **settings)
    except Exception as error:  # transformers raises a dozen types for settings that do not fit
        raise UserError(f"{file}: {kind} does not accept these settings: {one_line(error)}") from None
    if not 0 < config.num_hidden_layers <= len(entries):
        raise UserError(f"{file}: {config.num_hidden_layers} layers, but the weights have {len(entries)} tensors")
    return config


def clean_config(raw: dict[str, Any], *, known: set[str], name: str) -> dict[str, Any]:
    """Return the settings that are `known` and plain data; log the names of the others.

    Raises:
        UserError: for a number whose magnitude exceeds `LARGEST`.
    """
    kept = {
        key: value
        for key, value in raw.items()
        if key in known | COMMON | OLD_NAMES and not UNSAFE.search(key) and _is_plain(value, name)
    }
    dropped = sorted(raw.keys() - kept.keys() - ADDS_NOTHING)
    if dropped:
        log.info("model: left out of %s: %s", name, ", ".join(repr(key)[1:-1][:60] for key in dropped))
    return kept


def _is_plain(value: Any, name: str) -> bool:
    """Whether a value holds only numbers, names and collections of them, and no key or text that could name code."""
    if isinstance(value, int | float) and abs(value) > LARGEST:
        raise UserError(f"{name}: {value} is too large for a model's configuration; at most {LARGEST} is allowed")
    if isinstance(value, str):
        return bool(TEXT.fullmatch(value))
    if isinstance(value, list):
        return all(_is_plain(item, name) for item in value)
    if isinstance(value, dict):
        return all(
            TEXT.fullmatch(key) and not UNSAFE.search(key) and _is_plain(item, name) for key, item in value.items()
        )
    return value is None or isinstance(value, bool | int | float)
