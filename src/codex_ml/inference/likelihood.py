"""Compute the teacher-forced likelihood of documents under a language model.

Used by: evaluate, safety_audit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from codex_ml.modeling.encoder_decoder import is_encoder_decoder, logits_by_halves
from codex_ml.modeling.rows import IGNORE

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel

Numbers = TypeVar("Numbers", float, "pd.Series[float]")
FILL = 0  # id of the padding after the end of a window; with causal attention it has no influence


@dataclass(frozen=True)
class Score:
    """The likelihood of one document. Its final END is scored too, as a token of zero bytes.

    Attributes:
        nll: sum of -ln p over `tokens` targets, nats.
        correct: targets that were the most probable token.
    """

    nll: float
    tokens: int
    correct: int


@dataclass(frozen=True)
class Window:
    """A sequence of tokens that is scored in one row.

    Attributes:
        tokens: (n,) int64; all but the first are targets.
        middle: number of targets in the first half of this window's row (encoder-decoder only).
    """

    tokens: NDArray[np.int64]
    middle: int


@dataclass(frozen=True)
class Targets:
    """Result for each target of one window, in order.

    Attributes:
        logprobs: (n_tokens,) float32, nats.
        is_argmax: (n_tokens,) bool.
    """

    logprobs: NDArray[np.float32]
    is_argmax: NDArray[np.bool_]


def score_windows(
    model: PreTrainedModel, windows: Iterable[Window], *, length: int, batch_size: int
) -> Iterator[Targets]:
    """Score windows of at most `length` + 1 tokens. All tokens of a window except the first are targets.

    A decoder-only model predicts a target from the tokens before it. An encoder-decoder predicts a window in two
    halves; see `codex_ml.modeling.encoder_decoder`. `batch_size` affects only the last bits of the results.
    """
    import torch

    iterator = iter(windows)
    while batch := list(islice(iterator, batch_size)):
        rows = _rows(batch, (batch_size, length))
        inputs, labels, positions, middle = (torch.from_numpy(array).to(model.device) for array in rows)
        with torch.inference_mode():
            if is_encoder_decoder(model):
                logits = logits_by_halves(model, inputs, labels, positions, middle=middle).float()
            else:
                logits = model(input_ids=inputs, use_cache=False).logits.float()
            targets = labels.clamp(min=0)[..., None]
            logprobs = (logits.gather(-1, targets).squeeze(-1) - logits.logsumexp(-1)).cpu().numpy()
            is_argmax = (logits.argmax(-1) == targets.squeeze(-1)).cpu().numpy()
        for row, window in enumerate(batch):
            targets_there = len(window.tokens) - 1
            yield Targets(logprobs[row, :targets_there], is_argmax[row, :targets_there])


def _rows(windows: list[Window], shape: tuple[int, int]) -> tuple[NDArray[np.int64], ...]:
    """Inputs, labels and positions: int64, as in training, in the same shape for all batches; and the middles."""
    inputs, labels, middle = np.full(shape, FILL), np.full(shape, IGNORE), np.zeros(shape[0], dtype=np.int64)
    positions = np.tile(np.arange(shape[1]), (shape[0], 1))
    for row, window in enumerate(windows):
        used = len(window.tokens) - 1
        inputs[row, :used], labels[row, :used] = window.tokens[:-1], window.tokens[1:]
        positions[row, used:] = np.arange(shape[1] - used)  # the padding is a segment of its own
        middle[row] = window.middle
    return inputs, labels, positions, middle


def score_documents(
    model: PreTrainedModel,
    documents: Iterable[NDArray[np.uint32]],
    *,
    end: int,
    begin: int | None = None,
    length: int,
    batch_size: int,
) -> Iterator[Score]:
    """Score whole documents in disjoint windows.

    The first window begins with `begin`, each later one with the last token of the previous window. The rows of
    training look the same, so this is the loss that training minimises. The first tokens of a window have little
    context, so the result is a little worse than with a sliding window. With an encoder-decoder that holds for the
    first tokens of both halves. Every token is scored once.

    Args:
        documents: token ids without special tokens.
        end: id that ends every document.
        begin: id that begins every document; None: `end`.
        length: targets per window.
    """
    counts: list[int] = []
    first = end if begin is None else begin

    def windows() -> Iterator[Window]:
        for ids in documents:
            stream = np.concatenate([[first], ids.astype(np.int64), [end]])
            counts.append(-(-(len(stream) - 1) // length))
            for begin in range(0, len(stream) - 1, length):
                tokens = stream[begin : begin + length + 1]
                yield Window(tokens, middle=(len(tokens) - 1) // 2)

    results = score_windows(model, windows(), length=length, batch_size=batch_size)
    done = 0
    pending: list[Targets] = []
    for result in results:
        pending.append(result)
        if len(pending) == counts[done]:
            yield Score(
                nll=-math.fsum(float(r.logprobs.astype(np.float64).sum()) for r in pending),
                tokens=sum(len(r.logprobs) for r in pending),
                correct=sum(int(r.is_argmax.sum()) for r in pending),
            )
            pending, done = [], done + 1


def bits_per_byte(nll: Numbers, size: Numbers | int) -> Numbers:
    """Return bits per byte of UTF-8, of one text or a column: nll / ln 2 / bytes (as in lm-evaluation-harness)."""
    return nll / math.log(2) / size


def perplexity(nll: float, tokens: int) -> float | None:
    """Return exp(nll / tokens), or None if that is not a finite double (a mean above 709 nats)."""
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        return None
