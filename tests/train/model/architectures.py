"""A tiny model of every architecture that may be trained."""

from __future__ import annotations

import torch

COMMON = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
SHARED = {**COMMON, "num_key_value_heads": 1, "max_position_embeddings": 64}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
SIZES = {
    "llama": SHARED, "qwen2": SHARED, "qwen3": {**SHARED, "head_dim": 16}, "mistral": SHARED,
    "gpt2": GPT, "gpt_bigcode": GPT, "gpt_neox": COMMON, "codegen": {**GPT, "n_head": 4, "rotary_dim": 4},
    "starcoder2": SHARED, "phi": COMMON, "phi3": SHARED, "olmo2": COMMON, "granite": COMMON, "smollm3": SHARED,
    "gemma": {**SHARED, "head_dim": 16},
}  # fmt: skip


def make(kind, attention="eager", **sizes):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, vocab_size=64, bos_token_id=0, eos_token_id=0, pad_token_id=1, **sizes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)  # attention far from uniform, so that a leak is large
    return model
