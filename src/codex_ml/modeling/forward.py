"""Run packed rows through a model: the call that the loss, the validation and the isolation probe share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codex_ml.modeling.encoder_decoder import is_encoder_decoder, logits_by_halves

if TYPE_CHECKING:
    from torch import Tensor, nn


def document_mask(position_ids: Tensor) -> Tensor:
    """Return a causal attention mask that does not cross documents.

    Args:
        position_ids: (batch, seq) int64, restarting at 0 with each document.

    Returns:
        (batch, 1, seq, seq) float32: 0 where a token may attend, the lowest float where it may not.
    """
    import torch

    segment = (position_ids == 0).cumsum(-1)
    same = segment[:, None, :, None] == segment[:, None, None, :]
    allowed = same & torch.ones(same.shape[-2:], dtype=torch.bool, device=same.device).tril()
    return torch.zeros(allowed.shape, device=same.device).masked_fill(~allowed, torch.finfo(torch.float32).min)


def row_logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return the logits of the targets of a batch, from a decoder-only model or an encoder-decoder.

    Args:
        batch: input_ids, labels, position_ids: (batch, seq) int64, from `codex_ml.modeling.rows.Rows.batch`.

    Returns:
        (batch, seq, vocab) in the model's dtype; meaningless where a label is IGNORE.
    """
    if is_encoder_decoder(model):
        return logits_by_halves(model, batch["input_ids"], batch["labels"], batch["position_ids"])
    return packed_logits(model, batch["input_ids"], batch["position_ids"])


def packed_logits(model: nn.Module, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    """Return next-token logits of rows that hold several documents each; no document sees another one.

    Args:
        input_ids: (batch, seq) int64.
        position_ids: (batch, seq) int64, restarting at 0 with each document.

    Returns:
        (batch, seq, vocab) in the model's dtype.
    """
    mask = document_mask(position_ids)
    logits: Tensor = model(input_ids=input_ids, attention_mask=mask, position_ids=position_ids, use_cache=False).logits
    return logits
