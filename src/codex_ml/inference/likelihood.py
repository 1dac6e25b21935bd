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
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import UserError
from codex_ml.inference.scoring_memory import LOGITS
from codex_ml.inference.targets import Targets, target_columns, whole_columns
from codex_ml.modeling.encoder_decoder import is_encoder_decoder, logits_by_halves, middle_of
from codex_ml.modeling.rows import IGNORE

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from codex_ml.modeling.examples import Scorable

FILL = 0  # id of the padding after the end of a window; with causal attention it has no influence
BINS = 10  # of equal width, over the confidence from 0 to 1
SHORTEST = 16  # tokens, the narrowest bucket
AHEAD = 16  # forward passes whose windows are sorted together


@dataclass(frozen=True)
class Scoring:
    """How sequences are scored.

    Attributes:
        length: targets per window.
        stride: new targets of each window after the first; 0: `length`, disjoint windows.
        batch_size: windows of full length per forward pass; of shorter windows, as many as have the same number of
            tokens. It affects only the last bits of the results.
        precision: "bf16" multiplies in bfloat16 under autocast, as training does; the results are float32.
        compile: whether the forward pass of full windows is compiled, and with it the look at the logits; not for an
            encoder-decoder.
        spread: whether `Targets` have `mean` and `deviation`; not with `compile`.

    Raises:
        UserError: when the stride is longer than a window.
    """

    length: int
    stride: int = 0
    batch_size: int = 8
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    spread: bool = False

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
        with np.errstate(invalid="ignore"):  # a model may give NaN; the sum of nats then says so
            bins = np.ceil(np.nan_to_num(targets.confidence) * BINS).astype(np.int64).clip(1, BINS) - 1
        weights = (None, targets.confidence.astype(np.float64), targets.top1)
        self.calibration += np.stack([np.bincount(bins, weight, BINS) for weight in weights], axis=1)

    def score(self) -> Score:
        tokens, top1, top5 = map(int, self.counts)
        return Score(self.nll, tokens, top1, top5, self.calibration)


def score(model: PreTrainedModel, items: Iterable[Scorable], scoring: Scoring) -> Iterator[Score]:
    """Score sequences, in their order. Holds the windows of `AHEAD` forward passes and one sequence in memory.

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
    passes = _Passes(model, scoring)
    for held in _buffers(windows, AHEAD * passes.tokens):
        found: dict[int, Targets] = {}
        order = sorted(range(len(held)), key=lambda number: -len(held[number].tokens))
        while len(found) < len(held):
            longest = held[order[len(found)]]
            width = bucket(len(longest.tokens) - 1, scoring.length)
            numbers = order[len(found) : len(found) + passes.rows(width)]
            found.update(zip(numbers, passes.run([held[number] for number in numbers], width), strict=True))
        yield from (found[number] for number in range(len(held)))


def _buffers(windows: Iterable[Window], tokens: int) -> Iterator[list[Window]]:
    held, size = [], 0
    for window in windows:
        held.append(window)
        size += max(len(window.tokens) - 1, SHORTEST)
        if size >= tokens:
            yield held
            held, size = [], 0
    if held:
        yield held


def bucket(length: int, longest: int) -> int:
    """The least of 16, 24, 32, 48, 64, 96, 128, ... that holds `length` targets, at most `longest`.

    Two widths in a row are as 2 to 3 or 3 to 4, so a row of more than 16 targets is at most a third padding.
    """
    width = SHORTEST
    while width < length:
        width = width * 3 // 2 if width & (width - 1) == 0 else width * 4 // 3
    return min(width, longest)


class _Passes:
    """Forward passes of a model over batches of windows.

    Attributes:
        tokens: of one pass: `batch_size` windows of full length, but at most as many as have `LOGITS` logits.
    """

    def __init__(self, model: PreTrainedModel, scoring: Scoring) -> None:
        import torch

        self._model, self._scoring = model, scoring
        vocabulary = int(getattr(model.config, "vocab_size", 1))
        self.tokens = max(1, min(scoring.batch_size * scoring.length, LOGITS // vocabulary))
        self._halves = is_encoder_decoder(model)
        assert not (self._halves and scoring.compile), "the halves of rows have many shapes"
        assert not (scoring.spread and scoring.compile), "the graph of full windows has no spread"
        self._full = torch.compile(self._whole, dynamic=False) if scoring.compile else None

    def rows(self, width: int) -> int:
        """Windows of one pass whose rows have `width` targets."""
        return max(1, self.tokens // width)

    def run(self, batch: list[Window], width: int) -> Iterator[Targets]:
        """Score windows in rows of `width` targets."""
        import torch

        compiled = self._full is not None and width == self._scoring.length
        arrays = _rows(batch, self.rows(width) if compiled else len(batch), width)
        device, low = self._model.device, self._scoring.precision == "bf16"
        with torch.inference_mode(), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=low):
            inputs, labels, positions, middle = (torch.from_numpy(array).to(device) for array in arrays)
            if compiled and self._full:
                where = (labels != IGNORE).flatten()
                columns = [column[where] for column in self._full(inputs, labels)]
            elif self._halves:
                logits = logits_by_halves(self._model, inputs, labels, positions, middle=middle)
                columns = target_columns(logits, labels, spread=self._scoring.spread)
            else:
                logits = self._model(input_ids=inputs, use_cache=False).logits
                columns = target_columns(logits, labels, spread=self._scoring.spread)
            judged = [column.cpu().numpy() for column in columns]
        ends = np.cumsum([0, *(int(window.scored.sum()) for window in batch)])
        for begin, end in pairwise(ends):
            yield Targets(*(column[begin:end] for column in judged))

    def _whole(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Forward pass and columns of all positions, as one graph; where there is no target they mean nothing."""
        return whole_columns(self._model(input_ids=inputs, use_cache=False).logits, labels)


def _rows(windows: list[Window], rows: int, width: int) -> tuple[NDArray[np.int64], ...]:
    """Inputs, labels and positions (rows, width) int64, as in training, and the middles (rows,)."""
    inputs, labels, middle = np.full((rows, width), FILL), np.full((rows, width), IGNORE), np.zeros(rows, np.int64)
    positions = np.tile(np.arange(width), (rows, 1))
    for row, window in enumerate(windows):
        used = len(window.tokens) - 1
        inputs[row, :used] = window.tokens[:-1]
        labels[row, :used] = np.where(window.scored, window.tokens[1:], IGNORE)
        positions[row, used:] = np.arange(width - used)  # the padding is a segment of its own
        middle[row] = middle_of(window.scored) if window.middle is None else window.middle
    return inputs, labels, positions, middle
