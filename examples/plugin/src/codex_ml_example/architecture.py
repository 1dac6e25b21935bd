"""An architecture: OLMo 2 (arXiv:2501.00656), a causal model that transformers has."""

from __future__ import annotations

from typing import Any


def olmo2(
    hidden_size: int, intermediate_size: int, layers: int, heads: int, kv_heads: int, max_positions: int
) -> dict[str, Any]:
    """Return the settings of the model's configuration class for the sizes in params.yaml, and its `model_type`."""
    return {
        "model_type": "olmo2",
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads or heads,
        "max_position_embeddings": max_positions,
    }
