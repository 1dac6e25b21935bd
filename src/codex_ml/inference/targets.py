"""What is kept of the logits of each target: its cost, its rank, and how sure the model was.

No array of the size of the logits is made beside them: they are looked at in pieces that fit in the cache, or in the
graph that computes them. With 2,048 x 4,096 logits on one core, pieces of 1 MiB take 24 ms and all at once 80.

Used by: inference.likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from codex_ml.modeling.rows import IGNORE

if TYPE_CHECKING:
    from torch import Tensor

TOP = 5
PIECE = 1 << 18  # logits per piece: 1 MiB in float32
IMPOSSIBLE = -1e4  # ln p; e to this power is 0


@dataclass(frozen=True)
class Targets:
    """Result for each scored target of one window, in order.

    Attributes:
        nll: (n,) float32, -ln p, nats.
        top1, top5: (n,) bool, whether the target was the most probable token, and one of the five. Of tokens with equal
            logits, which are common in bfloat16, the one with the lower id comes first, as in greedy decoding.
        confidence: (n,) float32, probability of the most probable token.
        mean, deviation: (n,) float32, mean and standard deviation of ln p of a token that is drawn from the prediction;
            None unless they were asked for: they add two thirds to the time that the other columns take.
    """

    nll: NDArray[np.float32]
    top1: NDArray[np.bool_]
    top5: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    mean: NDArray[np.float32] | None = None
    deviation: NDArray[np.float32] | None = None


def target_columns(logits: Tensor, labels: Tensor, *, spread: bool = False) -> list[Tensor]:
    """The columns of `Targets` for each label that is not IGNORE: (n,) each.

    Args:
        logits: (rows, width, vocab).
        labels: (rows, width) int64.
        spread: whether `mean` and `deviation` are among them.
    """
    import torch

    logits, labels = logits.flatten(0, 1), labels.flatten()
    where = (labels != IGNORE).nonzero().squeeze(-1)
    parts = (
        (*_columns(logits[part], labels[part]), *(_spread(logits[part]) if spread else ()))
        for part in where.split(max(1, PIECE // logits.shape[-1]))
    )
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def whole_columns(logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """The columns for all labels, (rows * width,) each, without meaning where a label is IGNORE; for one graph."""
    return _columns(logits.flatten(0, 1), labels.flatten().clamp(min=0))


def _columns(logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    import torch

    logits, targets = logits.float(), targets[:, None]
    ids = torch.arange(logits.shape[-1], device=logits.device)
    total, own = logits.logsumexp(-1), logits.gather(-1, targets)
    before = ((logits > own) | ((logits == own) & (ids < targets))).sum(-1)
    return total - own.squeeze(-1), before == 0, before < TOP, (logits.amax(-1) - total).exp()


def _spread(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of ln p under p: (n,) each. A token of probability 0 adds nothing."""
    log_p = logits.float().log_softmax(-1).clamp(min=IMPOSSIBLE)  # 0 times infinity is no number
    p = log_p.exp()
    mean = (p * log_p).sum(-1)
    centred = log_p - mean[:, None]
    return mean, (p * centred * centred).sum(-1).sqrt()
