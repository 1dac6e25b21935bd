"""The loss of one batch, summed, so that accumulation can divide by the number of targets of the whole window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codex_ml.config import Train
from codex_ml.data.pack import IGNORE

if TYPE_CHECKING:
    from torch import Tensor, nn


def document_mask(position_ids: Tensor) -> Tensor:
    """Causal attention that does not cross documents.

    Args:
        position_ids: (batch, seq) int64, restarting at 0 with each document.

    Returns:
        (batch, 1, seq, seq) float32: 0 where a token may look, the lowest float where it may not.
    """
    import torch

    segment = (position_ids == 0).cumsum(-1)
    same = segment[:, None, :, None] == segment[:, None, None, :]
    allowed = same & torch.ones(same.shape[-2:], dtype=torch.bool, device=same.device).tril()
    return torch.zeros(allowed.shape, device=same.device).masked_fill(~allowed, torch.finfo(torch.float32).min)


def training_loss(model: nn.Module, batch: dict[str, Tensor], train: Train) -> Tensor:
    """What training minimises: `summed_loss` with the smoothing and the z-loss of the recipe; scalar float32.

    Smoothing spreads its share evenly over the vocabulary (Szegedy et al. 2016, section 7). The z-loss adds
    z_loss * ln(Z)^2 a target, Z the sum of exp(logits) (Chowdhery et al. 2022, section 5).
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
    positions = batch["position_ids"]
    output = model(
        input_ids=batch["input_ids"], attention_mask=document_mask(positions), position_ids=positions, use_cache=False
    )
    return output.logits.float().flatten(0, 1)


def _cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)
