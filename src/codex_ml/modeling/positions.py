"""How many tokens a model can see at once, by its configuration.

Used by: train, and the safety audit, before either makes a row.
"""

from __future__ import annotations

from typing import Any

from codex_ml.core.errors import UserError

UNBOUNDED = 2**31  # of a model with relative positions


def reach(config: Any) -> int | None:
    """Positions that a model can use; None for relative positions, which have no last one.

    Scaled rotary positions reach further than max_position_embeddings where that is the length before scaling: by
    `factor` for linear and dynamic, to factor x original_max_position_embeddings for YaRN. The other types (longrope,
    llama3) raise max_position_embeddings itself. As in vLLM, `_get_and_verify_max_len`.
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
    """Tokens that a model can see at once, and the setting that says so: its positions, or a sliding window.

    The document mask takes the place of a model's own, so rows must fit the window.
    """
    positions = int(getattr(config, "max_position_embeddings", UNBOUNDED) or UNBOUNDED)
    window = getattr(config, "sliding_window", None)
    if window and getattr(config, "use_sliding_window", True) and int(window) < positions:
        return int(window), "sliding_window"
    return positions, "max_position_embeddings"


def check_length(config: Any, tokens: int, key: str) -> None:
    """Refuse sequences that a model cannot see whole.

    Args:
        key: the parameter that asks for so many tokens.
    """
    longest, setting = longest_sequence(config)
    if tokens > longest:
        raise UserError(f"{key} {tokens} is longer than the model's {setting} {longest}; lower it")
