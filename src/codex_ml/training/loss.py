"""The loss of one batch, summed, so that accumulation can divide by the number of targets of the whole window."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def summed_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Sum of -ln p(label) over the targets of a packed batch: scalar float32, nats.

    Args:
        batch: input_ids, labels (shifted, IGNORE without target), position_ids: (batch, seq) int64.
    """
    from torch.nn.functional import cross_entropy

    positions = batch["position_ids"]
    output = model(
        input_ids=batch["input_ids"], attention_mask=document_mask(positions), position_ids=positions, use_cache=False
    )
    logits = output.logits.float().flatten(0, 1)
    return cross_entropy(logits, batch["labels"].flatten(), ignore_index=IGNORE, reduction="sum")
