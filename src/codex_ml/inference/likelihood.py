"""Compute the teacher-forced likelihood of sequences under a language model.

A sequence longer than `Scoring.length` targets is scored in windows. Without a stride the windows are disjoint: each
begins with the last target of the one before it, as the rows of training do, so this is the loss that training
minimises. With a stride s, each window after the first begins s tokens after the one before it and only its targets
that are new count: up to s, each with at least `length` - s tokens of context before it in the window.

Windows of similar length share a forward pass: a bounded buffer of windows is sorted by length, and each batch is as
wide as the bucket of its longest window. What a sequence gets depends on its batch in the last bits only.

Used by: evaluate, safety_audit.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError
from codex_ml.modeling.encoder_decoder import is_encoder_decoder, logits_by_halves, middle_of
from codex_ml.modeling.rows import IGNORE

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor
    from transformers import PreTrainedModel

    from codex_ml.modeling.examples import Scorable

Numbers = TypeVar("Numbers", float, "pd.Series[float]")
FILL = 0  # id of the padding after the end of a window; with causal attention it has no influence
TOP = 5
BINS = 10  # of equal width, over the confidence from 0 to 1
SHORTEST = 16  # tokens, the narrowest bucket
BUFFER = 1 << 17  # tokens of the windows that are sorted together: 1 MiB
LOGITS = 1 << 26  # numbers of the logits of one forward pass: 256 MiB in float32
CHUNK = 1 << 20  # logits that are looked at together: 4 MiB in float32, so that they stay in the cache


@dataclass(frozen=True)
class Scoring:
    """How sequences are scored.

    Attributes:
        length: targets per window.
        stride: new targets of each window after the first; 0: `length`, disjoint windows.
        batch_size: windows of full length per forward pass; of shorter windows, as many as have the same number of
            tokens. It affects only the last bits of the results.
        precision: "bf16" multiplies in bfloat16 under autocast, as training does; the results are float32.
        compile: whether the forward pass is compiled.

    Raises:
        UserError: when the stride is longer than a window.
    """

    length: int
    stride: int = 0
    batch_size: int = 8
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.stride <= self.length:
            raise UserError(
                f"evaluate.stride {self.stride} is not within a window of {self.length} tokens; use 1 to "
                f"{self.length}, or 0 for disjoint windows"
            )


@dataclass(frozen=True)
class Score:
    """The likelihood of one sequence.

    Attributes:
        nll: sum of -ln p over `tokens` targets, nats.
        top1: targets that were the most probable token.
        top5: targets with fewer than five tokens above them.
        calibration: (BINS, 3) float64, by confidence (the largest probability of a prediction): predictions, the sum of
            their confidence, and how many of them were right. Bin i holds confidences in (i / BINS, (i + 1) / BINS].
    """

    nll: float
    tokens: int
    top1: int
    top5: int
    calibration: NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """A sequence of tokens that is scored in one row.

    Attributes:
        tokens: (n,) int64; all but the first can be targets.
        scored: (n - 1,) bool, which of them are.
        middle: number of targets in the first half of this window's row (encoder-decoder only); None: as in training.
    """

    tokens: NDArray[np.int64]
    scored: NDArray[np.bool_]
    middle: int | None = None


@dataclass(frozen=True)
class Targets:
    """Result for each scored target of one window, in order.

    Attributes:
        nll: (n,) float32, -ln p, nats.
        top1, top5: (n,) bool, whether the target was the most probable token, and one of the five.
        confidence: (n,) float32, probability of the most probable token.
    """

    nll: NDArray[np.float32]
    top1: NDArray[np.bool_]
    top5: NDArray[np.bool_]
    confidence: NDArray[np.float32]


@dataclass
class _TargetSums:
    """Sums over the targets of one sequence so far; `left` of its windows are still to come."""

    left: int
    nll: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, dtype=np.int64))
    calibration: NDArray[np.float64] = field(default_factory=lambda: np.zeros((BINS, 3)))

    def add(self, targets: Targets) -> None:
        self.left -= 1
        self.nll += math.fsum(targets.nll.tolist())
        self.counts += [len(targets.nll), targets.top1.sum(), targets.top5.sum()]
        bins = np.clip(np.ceil(targets.confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        weights = (None, targets.confidence.astype(np.float64), targets.top1)
        self.calibration += np.stack([np.bincount(bins, weight, BINS) for weight in weights], axis=1)

    def score(self) -> Score:
        tokens, top1, top5 = map(int, self.counts)
        return Score(self.nll, tokens, top1, top5, self.calibration)


def score(model: PreTrainedModel, items: Iterable[Scorable], scoring: Scoring) -> Iterator[Score]:
    """Score sequences, in their order. Holds `BUFFER` tokens and one sequence in memory.

    Args:
        items: see `codex_ml.modeling.examples.scorables`.

    >>> list(score(model, items, Scoring(length=256)))  # doctest: +SKIP
    """
    waiting: deque[_TargetSums] = deque()

    def windows() -> Iterator[Window]:
        for item in items:
            cut = list(windows_of(item.tokens, item.scored, scoring))
            waiting.append(_TargetSums(len(cut)))
            yield from cut

    for targets in score_windows(model, windows(), scoring):
        while not waiting[0].left:  # nothing of it is scored
            yield waiting.popleft().score()
        waiting[0].add(targets)
        if not waiting[0].left:
            yield waiting.popleft().score()
    yield from (sums.score() for sums in waiting)


def windows_of(tokens: NDArray[np.int64], scored: NDArray[np.bool_], scoring: Scoring) -> Iterator[Window]:
    """Cut a sequence into windows, so that each scored token is a target once. Windows without one are left out.

    Args:
        tokens, scored: (n,), as in `Scorable`.

    >>> [w.tokens.tolist() for w in windows_of(np.arange(8), np.arange(8) > 0, Scoring(4, 2))]
    [[0, 1, 2, 3, 4], [2, 3, 4, 5, 6], [4, 5, 6, 7]]
    """
    begin = done = 0  # the first input of this window, and the last target of all before it
    while done < len(tokens) - 1:
        end = min(begin + scoring.length, len(tokens) - 1)
        new = scored[begin + 1 : end + 1] & (np.arange(begin, end) >= done)
        if new.any():
            yield Window(tokens[begin : end + 1], new)
        done, begin = end, begin + (scoring.stride or scoring.length)


def score_windows(model: PreTrainedModel, windows: Iterable[Window], scoring: Scoring) -> Iterator[Targets]:
    """Score windows of at most `scoring.length` + 1 tokens, in their order.

    A decoder-only model predicts a target from the tokens before it. An encoder-decoder predicts a window in two
    halves; see `codex_ml.modeling.encoder_decoder`.
    """
    for held in _buffers(windows):
        found: dict[int, Targets] = {}
        for width, numbers in _batches([len(window.tokens) - 1 for window in held], model, scoring):
            batch = [held[number] for number in numbers]
            found.update(zip(numbers, _forward(model, batch, width, scoring), strict=True))
        yield from (found[number] for number in range(len(held)))


def _buffers(windows: Iterable[Window]) -> Iterator[list[Window]]:
    held, size = [], 0
    for window in windows:
        held.append(window)
        size += len(window.tokens) + 64  # so that very short windows do not fill memory with objects
        if size >= BUFFER:
            yield held
            held, size = [], 0
    if held:
        yield held


def _batches(lengths: list[int], model: Any, scoring: Scoring) -> Iterator[tuple[int, list[int]]]:
    """(tokens per row, numbers of the windows in the batch) for windows of these lengths, the longest first."""
    most = min(scoring.batch_size * scoring.length, max(1, LOGITS // _vocabulary(model)))
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    begin = 0
    while begin < len(order):
        width = bucket(lengths[order[begin]], scoring.length)
        batch = order[begin : begin + max(1, most // width)]
        yield width, batch
        begin += len(batch)


def bucket(length: int, longest: int) -> int:
    """The least of 16, 24, 32, 48, 64, 96, 128, ... that holds `length` targets, at most `longest`.

    Three of two widths in a row are as 2 to 3 or 3 to 4, so a row is at most a third padding.
    """
    width = SHORTEST
    while width < length:
        width = width * 3 // 2 if width & (width - 1) == 0 else width * 4 // 3
    return min(width, longest)


def _vocabulary(model: Any) -> int:
    return int(getattr(model.config, "vocab_size", 1))


def _forward(model: PreTrainedModel, batch: list[Window], width: int, scoring: Scoring) -> Iterator[Targets]:
    """Run one batch of windows in rows of `width` targets; (targets of each window)."""
    import torch

    arrays = _rows(batch, width)
    inputs, labels, positions, middle = (torch.from_numpy(array).to(model.device) for array in arrays)
    low = scoring.precision == "bf16"
    with torch.inference_mode(), torch.autocast(torch.device(model.device).type, torch.bfloat16, enabled=low):
        if is_encoder_decoder(model):
            logits = logits_by_halves(model, inputs, labels, positions, middle=middle)
        else:
            logits = model(input_ids=inputs, use_cache=False).logits
        where = (labels != IGNORE).flatten().nonzero().squeeze(-1)
        logits, wanted = logits.flatten(0, 1), labels.flatten()
        parts = [_judged(logits[part], wanted[part]) for part in where.split(max(1, CHUNK // logits.shape[-1]))]
        columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    ends = np.cumsum([0, *(int(window.scored.sum()) for window in batch)])
    for begin, end in pairwise(ends):
        yield Targets(*(column[begin:end] for column in columns))


def _judged(logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """The columns of `Targets` for (n, vocab) logits and (n,) int64 targets."""
    logits = logits.float()
    peak, best = logits.max(-1)
    total = logits.logsumexp(-1)
    own = logits.gather(-1, targets[:, None])
    above = (logits > own).sum(-1)
    return total - own.squeeze(-1), best == targets, above < TOP, (peak - total).exp()


def _rows(windows: list[Window], width: int) -> tuple[NDArray[np.int64], ...]:
    """Inputs, labels and positions: int64, as in training; and the middles."""
    shape = (len(windows), width)
    inputs, labels, middle = np.full(shape, FILL), np.full(shape, IGNORE), np.zeros(shape[0], dtype=np.int64)
    positions = np.tile(np.arange(width), (shape[0], 1))
    for row, window in enumerate(windows):
        used = len(window.tokens) - 1
        inputs[row, :used] = window.tokens[:-1]
        labels[row, :used] = np.where(window.scored, window.tokens[1:], IGNORE)
        positions[row, used:] = np.arange(width - used)  # the padding is a segment of its own
        middle[row] = middle_of(window.scored) if window.middle is None else window.middle
    return inputs, labels, positions, middle


def bits_per_byte(nll: Numbers, size: Numbers | int) -> Numbers:
    """Return bits per byte of UTF-8, of one text or a column: nll / ln 2 / bytes (as in lm-evaluation-harness)."""
    return nll / math.log(2) / size


def perplexity(nll: float, tokens: int) -> float | None:
    """Return exp(nll / tokens), or None if that is not a finite double (a mean above 709 nats)."""
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        return None
