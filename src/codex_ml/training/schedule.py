"""Learning rate by step."""

from __future__ import annotations

import math

from codex_ml.config import Train


def learning_rate(step: int, train: Train) -> float:
    """Linear warm-up to `lr`, then cosine to `min_lr_ratio * lr` at `max_steps` (Loshchilov and Hutter 2017, eq. 5).

    Args:
        step: optimizer step, from 0; the first one already moves.
    """
    if step < train.warmup_steps:
        return train.lr * (step + 1) / train.warmup_steps
    done = (step - train.warmup_steps) / max(1, train.max_steps - train.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return train.lr * (train.min_lr_ratio + (1 - train.min_lr_ratio) * cosine)
