"""Compute from a model's configuration how many tokens it can see at once.

Used by: train and safety_audit.
"""

from __future__ import annotations

from typing import Any

from codex_ml.core.errors import UserError

UNBOUNDED = 2**31  # positions of a model with relative positions


def reach(config: Any) -> int | None:
    """Return the number of positions that a model can use; None for relative positions, which have no limit.

    For some types of scaled rotary positions, max_position_embeddings is the length before scaling. The result is then
    `factor` times that length for linear and dynamic, and factor x original_max_position_embeddings for YaRN. The other
    types (longrope, llama3) raise max_position_embeddings itself. As in vLLM, `_get_and_verify_max_len`.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if not positions:
        return None
    rope = getattr(config, "rope_parameters", None) or {}
    kind, factor = rope.get("rope_type"), rope.get("factor") or 1
    if kind == "yarn":
        positions = max(positions, factor * (rope.get("original_max_position_embeddings") or positions))
    elif kind in ("linear", "dynamic"):
        positions = factor * positions
    return int(positions)


def longest_sequence(config: Any) -> tuple[int, str]:
    """Return how many tokens a model can see at once, and the name of the setting that limits it.

    The document mask replaces the model's own mask, so rows must fit into a sliding window.
    """
    positions = int(getattr(config, "max_position_embeddings", UNBOUNDED) or UNBOUNDED)
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True) and int(window) < positions:
        return int(window), "sliding_window"
    return positions, "max_position_embeddings"


def check_length(config: Any, tokens: int, key: str) -> None:
    """Refuse sequences that are longer than a model can see at once.

    Args:
        key: the key of params.yaml that sets this number of tokens.

    Raises:
        UserError: naming the key and the setting of the model.
    """
    longest, setting = longest_sequence(config)
    if tokens > longest:
        raise UserError(f"{key} {tokens} is longer than the model's {setting} {longest}; lower it")
