"""Measure verbatim memorisation: whether the model reproduces its training text, token by token.

A suffix is extractable with k tokens of context if greedy decoding of the k-token prefix gives it exactly (Carlini et
al. 2023, "Quantifying Memorization Across Neural Language Models", definition 3.1). Greedy decoding leaves the true
path only at the first token that is not the most probable one, so one teacher-forced pass over the true text decides.
An encoder-decoder is tested as it was trained, in the two halves of the row that begins with the window: greedy
decoding up to the middle, which the encoder then reads. A T5 that had memorised 64 rows gave all 64 suffixes this way,
and none when its encoder read the prefix instead.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from codex_ml.inference.generation import Prompt, generate
from codex_ml.inference.likelihood import Scoring, Window, score_windows
from codex_ml.inference.sampling import Sampling
from codex_ml.modeling.encoder_decoder import middle_of
from codex_ml.modeling.rows import Rows, rows_of_step
from codex_ml.modeling.train_files import Training

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from codex_ml.tokens.text_tokenizer import TextTokenizer

TRIVIAL_ZLIB_RATIO = 0.25  # text that compresses below this is a table or a licence header, which is easy to complete


@dataclass(frozen=True)
class Extraction:
    """Result over a set of windows.

    Attributes:
        windows: number of windows that were tried.
        extracted: number of suffixes of which the model reproduced every token.
        token_share: share of the suffix tokens that were the most probable one.
        trivial: windows left out as trivial.
    """

    windows: int
    extracted: int
    token_share: float
    trivial: int


class ExtractionResults(TypedDict):
    """Extraction of train text, of held-out text, and of the model's own greedy text."""

    members: Extraction
    held_out: Extraction
    control: Extraction


@dataclass(frozen=True)
class Candidates:
    """Rows from which windows may be drawn.

    Attributes:
        numbers: (n,) int64, sorted: the numbers of these rows in `rows`.
    """

    rows: Rows
    numbers: NDArray[np.int64]

    @classmethod
    def seen(cls, rows: Rows, training: Training) -> Candidates:
        """Return the rows of the train stream that the model saw."""
        return cls(rows, seen_rows(training, len(rows)))

    @classmethod
    def all_of(cls, rows: Rows) -> Candidates:
        """Return all rows of a stream."""
        return cls(rows, np.arange(len(rows)))


def seen_rows(training: Training, total: int) -> NDArray[np.int64]:
    """Return the numbers of the train rows that the kept weights have seen: (n,) int64, sorted.

    Args:
        training: training.json of the model.
        total: number of rows of the train stream.
    """
    steps, batch = training.global_step, training.rows_a_step
    if steps * batch >= total:
        return np.arange(total)
    rows = [rows_of_step(total, step=s, batch_rows=batch, seed=training.seed) for s in range(steps)]
    return np.unique(np.concatenate(rows))


def choose_windows(
    candidates: Candidates, tokenizer: TextTokenizer, *, prefix: int, length: int, count: int, seed: int
) -> tuple[list[Window], int]:
    """Choose up to `count` windows of `length` tokens as the model saw them: the start of a piece of one document.

    Three kinds of pieces are left out: pieces that are too short; canaries, which are not text of the corpus; and
    pieces in which a token of the window after the first `prefix` was not trained.

    Returns:
        (windows, number left out as trivial)
    """
    order = np.random.Generator(np.random.PCG64([seed, len(candidates.numbers)])).permutation(candidates.numbers)
    chosen: list[Window] = []
    trivial = 0
    for number in order:
        for window in _row_windows(candidates.rows, int(number), prefix=prefix, length=length):
            if len(chosen) == count:
                return chosen, trivial
            if _is_trivial(tokenizer.decode(window.tokens)):
                trivial += 1
            else:
                chosen.append(window)
    return chosen, trivial


def _row_windows(rows: Rows, number: int, *, prefix: int, length: int) -> Iterator[Window]:
    for document, (start, targets) in zip(rows.documents(number), rows.row_pieces(number), strict=True):
        mask = np.ones(targets, dtype=bool) if rows.mask is None else rows.mask[start + 1 : start + targets + 1] == 1
        if targets >= length and document not in rows.canaries and mask[prefix - 1 : length - 1].all():
            tokens = rows.tokens[start : start + length].astype(np.int64)
            yield Window(tokens, np.ones(length - 1, dtype=bool), middle=min(middle_of(mask), length - 1))


def _is_trivial(text: str) -> bool:
    data = text.encode("utf-8")
    return len(zlib.compress(data, 9)) < TRIVIAL_ZLIB_RATIO * len(data)


def extract(
    model: PreTrainedModel, windows: Sequence[Window], *, prefix: int, trivial: int = 0, batch_size: int
) -> Extraction:
    """Try to extract the suffix after the first `prefix` tokens of each window."""
    length = max((len(window.tokens) for window in windows), default=2) - 1
    scoring = Scoring(length, batch_size=batch_size)
    suffixes = (replace(window, scored=np.arange(1, len(window.tokens)) >= prefix) for window in windows)
    matches = [targets.top1 for targets in score_windows(model, suffixes, scoring)]
    hits = sum(bool(match.all()) for match in matches)
    share = float(np.mean([match.mean() for match in matches])) if matches else 0.0
    return Extraction(len(matches), hits, share, trivial)


def greedy_windows(
    model: Any, tokenizer: TextTokenizer, windows: Sequence[Window], *, prefix: int, count: int
) -> list[Window]:
    """Return windows whose suffix is the model's own greedy continuation: a control that must be extracted.

    A continuation that ends is left out. Its window would be shorter, and with END forbidden it would not be greedy.
    """
    if not windows:
        return []
    length, end = len(windows[0].tokens), model.config.eos_token_id
    ends = tuple(end) if isinstance(end, list) else (end,)  # a list if turns have their own end
    prompts = [
        Prompt(window.tokens[:prefix], key="", sample=number, ends=ends, read=1)
        for number, window in enumerate(windows[:count])
    ]
    texts = generate(model, tokenizer, prompts, Sampling(length - prefix), seed=0, batch_size=count)
    return [
        Window(np.concatenate([prompt.ids, text.tokens]), np.ones(length - 1, dtype=bool), middle=length - 1)
        for prompt, text in zip(prompts, texts, strict=True)
        if text.finished == "length"
    ]
