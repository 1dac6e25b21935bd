"""Build a model from scratch, with the shape in params.yaml."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError
from codex_ml.train.config import Model
from codex_ml.train.model.plugin_architecture import plugin_sizes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Names of the dropout settings in the configuration classes. model.dropout sets them, also for a model on disk.
DROPOUTS = (
    "attention_dropout",
    "hidden_dropout",
    "residual_dropout",
    "embedding_dropout",
    "attn_pdrop",
    "resid_pdrop",
    "embd_pdrop",
    "dropout_rate",
)
SHARES_HEADS = ("llama", "qwen2", "qwen3", "mistral")  # grouped-query attention (Ainslie et al. 2023)


def build_model(
    shape: Model,
    *,
    vocab_size: int,
    end: int,
    pad: int,
    seed: int,
    attention: str = "eager",
) -> PreTrainedModel:
    """Build a language model in float32 with random weights, which transformers draws as the architecture defines.

    Equal arguments give equal weights. llama, qwen2, qwen3, mistral, gpt2 and gpt_neox are decoders; t5 is an
    encoder-decoder with gated GELU (T5 1.1, Shazeer 2020, arXiv:2002.05202), whose decoder starts from `pad`.

    Args:
        end: id that ends documents; it becomes eos and bos of the model.
        attention: "eager" or "sdpa". Under torch.compile on a CPU eager is faster than fused SDPA, whose backward is
            slow.

    Raises:
        UserError: when `end` or `pad` is outside the vocabulary, or the architecture does not support the shape.
    """
    import torch
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours is the only one
    if not max(end, pad) < vocab_size:
        raise UserError(f"the tokenizer's special tokens {end} and {pad} lie outside its {vocab_size} tokens")
    _check_shape(shape)
    kind, own = shape.architecture, sizes(shape)
    if shape.plugins["architectures"]:
        kind, own = plugin_sizes(shape)
    config = AutoConfig.for_model(
        kind,
        **own,
        vocab_size=vocab_size,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=pad,
        tie_word_embeddings=shape.tie_embeddings,
        **({"decoder_start_token_id": pad} if shape.architecture == "t5" else {}),
    )
    set_dropout(config, shape.dropout)
    build: Any  # each import reads the modules of its models, which takes half a second
    if shape.architecture == "t5":
        from transformers import T5ForConditionalGeneration

        build = T5ForConditionalGeneration._from_config
    else:
        from transformers import AutoModelForCausalLM

        build = AutoModelForCausalLM.from_config
    torch.manual_seed(seed)
    model: PreTrainedModel = build(config, attn_implementation=attention, dtype=torch.float32)
    return model


def sizes(shape: Model) -> dict[str, Any]:
    """Return the sizes of `shape` under the names of its configuration class."""
    if shape.architecture == "gpt2":
        return {
            "n_embd": shape.hidden_size,
            "n_inner": shape.intermediate_size,
            "n_layer": shape.layers,
            "n_head": shape.heads,
            "n_positions": shape.max_positions,
        }
    if shape.architecture == "t5":  # relative positions: no longest sequence
        return {
            "d_model": shape.hidden_size,
            "d_kv": shape.hidden_size // shape.heads,
            "d_ff": shape.intermediate_size,
            "num_layers": shape.layers,
            "num_heads": shape.heads,
            "feed_forward_proj": "gated-gelu",
        }
    common = {
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": shape.max_positions,
    }
    if shape.architecture == "gpt_neox":
        return common
    common |= {"num_key_value_heads": shape.kv_heads or shape.heads, "head_dim": shape.hidden_size // shape.heads}
    if shape.architecture == "qwen2":
        del common["head_dim"]  # it has no such key: always hidden_size / heads
    if shape.architecture == "mistral":
        return {**common, "sliding_window": None}  # its default of 4,096 would limit max_positions
    return common


def _check_shape(shape: Model) -> None:
    """Refuse a shape that a configuration class would accept and then ignore."""
    name = shape.architecture
    if name not in SHARES_HEADS and shape.kv_heads not in (0, shape.heads):
        raise UserError(
            f"model.kv_heads: {name} cannot share heads of keys and values; use 0, or one of {', '.join(SHARES_HEADS)}"
        )
    if name == "gpt_neox" and (shape.hidden_size // shape.heads) % 8:
        raise UserError(
            f"model.hidden_size: gpt_neox rotates pairs in a quarter of each head, so hidden_size {shape.hidden_size} "
            f"/ heads {shape.heads} must be a multiple of 8"
        )
    if name == "t5" and not shape.tie_embeddings:
        raise UserError("model.tie_embeddings: t5 shares one matrix between embedding and output head; use true")


def set_dropout(config: Any, share: float) -> None:
    """Set every dropout that the architecture has: attention only in llama, qwen2, qwen3 and mistral."""
    for name in DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, share)


def parameter_count(model: PreTrainedModel) -> int:
    """Return the number of parameters; tied ones count once."""
    return sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
