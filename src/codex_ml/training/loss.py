"""The loss of one batch, summed, so that accumulation can divide by the number of targets of the whole window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codex_ml.data.pack import IGNORE
from codex_ml.modeling.forward import packed_logits

if TYPE_CHECKING:
    from torch import Tensor, nn


def summed_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Sum of -ln p(label) over the targets of a packed batch: scalar float32, nats.

    Args:
        batch: input_ids, labels (shifted, IGNORE without target), position_ids: (batch, seq) int64.
    """
    from torch.nn.functional import cross_entropy

    logits = packed_logits(model, batch["input_ids"], batch["position_ids"]).float().flatten(0, 1)
    return cross_entropy(logits, batch["labels"].flatten(), ignore_index=IGNORE, reduction="sum")
