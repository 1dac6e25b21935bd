"""Kinds of files of a model: weights, index, configuration, GGUF. Used by: kinds."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from random import Random
from typing import Any

from .kind import Kind
from .mutations import changed_bytes, changed_json, json_bytes, one_of


def safetensors_kind(folder: Path) -> Kind:
    from codex_ml.train.model.weights import check_weights, read_tensors

    header = {
        "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        "h.0.attn.bias": {"dtype": "BOOL", "shape": [1, 1, 2, 2], "data_offsets": [32, 36]},
        "__metadata__": {"format": "pt"},
    }
    odd = ("F64", "F16", "I64", "F8_E4M3", [2, 3], [0, 24], 24, 32)

    def whole(text: bytes) -> bytes:
        return struct.pack("<Q", len(text)) + text + bytes(range(36))

    def read(file: Path) -> bool:
        return bool(dict(read_tensors(file, check_weights(file))))

    plain = whole(json.dumps(header).encode())
    return Kind(
        "model.safetensors",
        plain,
        one_of(
            [
                lambda rng: whole(json_bytes(changed_json(header, rng, odd=odd), rng)),
                lambda rng: changed_bytes(plain, rng),
            ]
        ),
        read,
    )


def _tiny_model(folder: Path, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Write a model with random weights to the folder; return its config.json."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))
    save_file({name: p.detach().contiguous() for name, p in model.named_parameters()}, folder / "model.safetensors")
    return {"model_type": kind, **settings}


def config_kind(folder: Path) -> Kind:
    from codex_ml.train.model.foreign import check_folder
    from codex_ml.train.model.local_model import load_local

    llama = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32,
        "num_key_value_heads": 1, "max_position_embeddings": 64, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "bos_token_id": 0, "eos_token_id": 1,
        "tie_word_embeddings": True, "attention_bias": False,
    }  # fmt: skip
    bigcode = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": 32, "n_inner": 24}
    seeds = {}
    for kind, settings in (("llama", llama), ("gpt_bigcode", bigcode)):
        (folder / kind).mkdir()
        seeds[kind] = _tiny_model(folder / kind, kind, settings)
    odd = ("llama", "gpt2", "gpt_bigcode", "gemma", "phi3", "linear", "yarn", "longrope", 40_000, 2**20)

    def read(file: Path) -> bool:
        base = file.parent / "base"
        base.mkdir(exist_ok=True)
        kind = "gpt_bigcode" if b"n_embd" in file.read_bytes() else "llama"
        shutil.copyfile(folder / kind / "model.safetensors", base / "model.safetensors")
        shutil.copyfile(file, base / "config.json")
        try:
            check_folder(base)
            return load_local(base, attention="eager", scratch=file.parent) is not None
        finally:
            shutil.rmtree(base)

    def make(rng: Random) -> bytes:
        return json_bytes(changed_json(seeds[rng.choice(list(seeds))], rng, odd=odd), rng)

    return Kind("config.json", json.dumps(seeds["llama"]).encode(), make, read)


def index_kind(folder: Path) -> Kind:
    from codex_ml.train.model.foreign import weight_files

    shard = "model-0000{}-of-00002.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    other = header.replace(b'"a"', b'"b"')
    seed = {"metadata": {"total_size": 8}, "weight_map": {"a": shard.format(1), "b": shard.format(2)}}

    def read(file: Path) -> bool:
        for number, text in ((1, header), (2, other)):
            (file.parent / shard.format(number)).write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
        try:
            return len(weight_files(file.parent)) == 2
        finally:
            for number in (1, 2):
                (file.parent / shard.format(number)).unlink()

    return Kind(
        "model.safetensors.index.json",
        json.dumps(seed).encode(),
        lambda rng: json_bytes(changed_json(seed, rng, odd=(shard.format(1), "/etc/passwd")), rng),
        read,
    )


def gguf_kind(folder: Path) -> Kind:
    from codex_ml.core.gguf_file import refuse_impossible

    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    keys = [
        text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama"),
        text(b"llama.block_count") + struct.pack("<II", 4, 2),
        text(b"llama.embedding_length") + struct.pack("<IQ", 10, 8),
        text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + text(b"a") + text(b"b") + text(b""),
        text(b"tokenizer.ggml.scores") + struct.pack("<IIQ3f", 9, 6, 3, 0.0, -1.0, -2.0),
        text(b"x.nested") + struct.pack("<IIQIQB", 9, 9, 1, 0, 1, 7),
    ]
    tensors = [
        text(b"blk.%d.w" % n) + struct.pack("<IQQIQ", 2, 8, 8, 0, n * 256) for n in range(2)
    ]  # fmt: skip

    def whole(version: int, chosen: list[bytes]) -> bytes:
        head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(chosen))
        return head + b"".join(chosen) + b"".join(tensors) + bytes(512)

    def make(rng: Random) -> bytes:
        return changed_bytes(whole(rng.choice((2, 3, 3, 1)), rng.choices(keys, k=rng.choice((1, 3, 6)))), rng)

    def read(file: Path) -> bool:
        refuse_impossible(file)
        return True

    return Kind("model.gguf", whole(3, keys), make, read)
