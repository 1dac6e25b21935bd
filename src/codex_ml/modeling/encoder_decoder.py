"""Run packed rows through an encoder-decoder: the encoder reads a prefix, the decoder predicts what follows it.

A row is one document or a piece of one: inputs x[0..n), targets y[i] = x[i + 1]. The decoder predicts it in two halves,

    p(y) = p(y[:k] | x[:1]) p(y[k:] | x[:k + 1])    with k = n // 2.

The part after `|` is what the encoder reads. The decoder also sees the targets before the current one in the same half.
So every target is predicted once, as by a decoder-only model, and the product is the likelihood of the whole row. For
the row a b c d e (n = 4, k = 2), with the decoder's start token S:

    half      encoder reads    decoder inputs    targets
    first     a                S b               b c
    second    a b c            S d               d e

If the first targets of a row have no loss, like the prompt of a record, k is the first target that has one, and the
first half is not predicted. This is prefix language modelling (Raffel et al. 2020, arXiv:1910.10683, section 3.2.3).
The row decides where the prefix ends, not chance, so a row means the same in every epoch and in evaluation.

Used by: forward, likelihood, generation, extraction, probe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.modeling.rows import IGNORE

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Halves:
    """The halves of a batch that have a target with a loss, one half per row of the tensors.

    Attributes:
        input_ids, attention_mask: (halves, read) int64, inputs of the encoder, and 1 for a token, 0 for padding.
        decoder_input_ids: (halves, predicted) int64, the start token and the targets, shifted right by one.
        place: (batch, seq) int64, index of each target's logits in the flattened (halves x predicted); 0 without any.
    """

    input_ids: Tensor
    attention_mask: Tensor
    decoder_input_ids: Tensor
    place: Tensor


def config_of(model: nn.Module) -> Any:
    """Return the configuration of a model, even if it is wrapped for several processes."""
    return getattr(model, "module", model).config


def is_encoder_decoder(model: nn.Module) -> bool:
    """Whether a model has an encoder and a decoder."""
    return bool(config_of(model).is_encoder_decoder)


def middle_of(trained: NDArray[np.bool_]) -> int:
    """Return the number of targets in the first half of a row.

    Args:
        trained: (n,) bool, whether each target has a loss.
    """
    return int(trained.argmax()) or len(trained) // 2


def logits_by_halves(
    model: nn.Module, input_ids: Tensor, labels: Tensor, position_ids: Tensor, *, middle: Tensor | None = None
) -> Tensor:
    """Return the logits of the targets of rows that hold one document each.

    Each row becomes up to two sequences of one batch, its halves, as the docstring of this module shows.

    Args:
        input_ids, labels, position_ids: (batch, seq) int64, from `codex_ml.modeling.rows.Rows.batch`.
        middle: (batch,) int64, number of targets in the first half of each row; None: as `middle_of` computes it.

    Returns:
        (batch, seq, vocab) in the model's dtype; meaningless where a target has no loss.
    """
    halves = split_rows(input_ids, labels, position_ids, middle, start=config_of(model).decoder_start_token_id)
    logits: Tensor = model(
        input_ids=halves.input_ids,
        attention_mask=halves.attention_mask,
        decoder_input_ids=halves.decoder_input_ids,
        use_cache=False,
    ).logits.flatten(0, 1)
    return logits.index_select(0, halves.place.flatten()).unflatten(0, halves.place.shape)


def split_rows(
    input_ids: Tensor, labels: Tensor, position_ids: Tensor, middle: Tensor | None = None, *, start: int
) -> Halves:
    """Split rows into the inputs of the encoder and of the decoder; see `logits_by_halves`.

    Args:
        start: id of the decoder's first input, which is also the padding.
    """
    import torch

    # b rows of s positions; h halves with a target that has a loss; in each the encoder reads at most r positions and
    # the decoder predicts at most p
    at = torch.arange(input_ids.shape[1], device=input_ids.device)  # (s,)
    trained = labels != IGNORE  # (b, s)
    length = ((position_ids == 0).cumsum(-1) == 1).sum(-1)  # (b,); the filler is a segment of its own
    assert not bool((trained & (at >= length[:, None])).any()), "rows of several documents"
    if middle is None:
        first = trained.int().argmax(-1)  # (b,)
        middle = torch.where(first > 0, first, length // 2)

    # (2, b): the first and the second half of each row
    begin, end = torch.stack([torch.zeros_like(middle), middle]), torch.stack([middle, length])
    kept = (trained & (at >= begin[..., None]) & (at < end[..., None])).any(-1)
    # (h,): the row, the first target and the number of targets of each kept half
    row = torch.arange(len(input_ids), device=input_ids.device).expand_as(kept)[kept]
    begins, counts = begin[kept], (end - begin)[kept]
    reads, predicts = at[: int(begins.max()) + 1], at[: int(counts.max())]  # (r,), (p,)

    read = reads <= begins[:, None]  # (h, r)
    inputs = input_ids[row][:, : len(reads)].masked_fill(~read, start)  # (h, r)
    shifted = input_ids[row].gather(1, (begins[:, None] + predicts).clamp(max=len(at) - 1))  # (h, p)
    shifted = shifted.masked_fill((predicts == 0) | (predicts >= counts[:, None]), start)

    second = (at >= middle[:, None]).long()  # (b, s): 1 where a target is in the second half
    number = (kept.flatten().cumsum(0) - 1).view_as(kept)  # (2, b): of each kept half, in 0..h
    place = number.T.gather(1, second) * len(predicts) + at - begin.T.gather(1, second)  # (b, s), in 0..h * p
    there = kept.T.gather(1, second) & (at < length[:, None])  # (b, s)
    return Halves(inputs, read.long(), shifted, place.masked_fill(~there, 0))
