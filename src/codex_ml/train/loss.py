"""The summed loss of one batch; accumulation divides by the number of targets of all batches of the step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codex_ml.modeling.forward import row_logits
from codex_ml.modeling.rows import IGNORE
from codex_ml.train.config import Train

if TYPE_CHECKING:
    from torch import Tensor, nn


def training_loss(model: nn.Module, batch: dict[str, Tensor], train: Train) -> Tensor:
    """What training minimises: `summed_loss` with the smoothing and the z-loss of the recipe; scalar float32.

    Smoothing spreads its share evenly over the vocabulary (Szegedy et al. 2016, section 7). The z-loss adds
    z_loss * ln(Z)^2 per target, Z the sum of exp(logits) (Chowdhery et al. 2022, section 5).
    """
    logits, labels = _logits(model, batch), batch["labels"].flatten()
    loss = _cross_entropy(logits, labels, smoothing=train.label_smoothing)
    if train.z_loss:
        loss = loss + train.z_loss * logits.logsumexp(-1)[labels != IGNORE].square().sum()
    return loss


def summed_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Sum of -ln p(label) over the targets of a packed batch: scalar float32, nats.

    Args:
        batch: input_ids, labels (shifted, IGNORE without target), position_ids: (batch, seq) int64.
    """
    return _cross_entropy(_logits(model, batch), batch["labels"].flatten())


def _logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return row_logits(model, batch).float().flatten(0, 1)


def _cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)
