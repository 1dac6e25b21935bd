"""Learning rate by step."""

from __future__ import annotations

import math

from codex_ml.train.config import Train


def learning_rate(step: int, peak: float, train: Train) -> float:
    """Return the learning rate of a step: linear warm-up to `peak`, then the schedule.

    cosine: decays to `min_lr_ratio * peak` at `max_steps` (Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5).
    linear: decays linearly to the same value. wsd: constant, then linear decay to it over the last `decay_steps` (Hu et
    al. 2024, arXiv:2404.06395, section 4). inverse_sqrt: peak * sqrt(warm-up / step), at least
    `min_lr_ratio * peak` (Vaswani et al. 2017, section 5.3). constant: `peak`.

    Args:
        step: optimizer step, from 0; its rate is above 0 from the first step.
    """
    warmup = train.steps_of(train.warmup_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * _after_warmup(step - warmup, train.max_steps - warmup, warmup, train)


def _after_warmup(step: int, steps: int, warmup: int, train: Train) -> float:
    """Share of the peak at `step` of the `steps` after the warm-up."""
    lowest = train.min_lr_ratio
    if train.schedule == "constant":
        return 1.0
    if train.schedule == "inverse_sqrt":
        return max(lowest, math.sqrt(max(1, warmup) / (max(1, warmup) + step)))
    if train.schedule == "wsd":
        decay = train.steps_of(train.decay_steps)
        step, steps = step - (steps - decay), decay
    done = min(1.0, max(0.0, step / max(1, steps)))
    left = 0.5 * (1 + math.cos(math.pi * done)) if train.schedule == "cosine" else 1 - done
    return lowest + (1 - lowest) * left
