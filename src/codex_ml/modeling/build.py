"""Build the Llama-shaped model of params.yaml from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codex_ml.config import Model
from codex_ml.errors import UserError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


def build_model(shape: Model, *, vocab_size: int, end: int, pad: int, seed: int) -> LlamaForCausalLM:
    """A `LlamaForCausalLM` in float32 with tied embeddings (Touvron et al. 2023; weights N(0, 0.02^2)).

    Equal arguments give equal weights.

    Raises:
        UserError: when `end` or `pad` is no token of the vocabulary.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours is the only one
    if not max(end, pad) < vocab_size:
        raise UserError(f"the tokenizer's special tokens {end} and {pad} lie outside its {vocab_size} tokens")
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=pad,
        attention_dropout=0.0,
    )
    torch.manual_seed(seed)
    # eager: under torch.compile on a CPU it is faster than fused SDPA, whose backward is slow (DESIGN.md, choices)
    return LlamaForCausalLM._from_config(config, attn_implementation="eager", dtype=torch.float32)


def parameter_count(model: LlamaForCausalLM) -> int:
    """Parameters, tied ones once."""
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
