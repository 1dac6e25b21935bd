"""How probable a model finds each canary, and when it last saw it in training. Used by: safety_audit.exposure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from codex_ml.inference.generation import Prompt, generate
from codex_ml.inference.likelihood import Scoring, Window, score_windows
from codex_ml.inference.sampling import Sampling
from codex_ml.modeling.canary_files import Canary
from codex_ml.modeling.rows import Rows, row_order
from codex_ml.modeling.train_files import Training

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

DECIMALS = 6  # of a score in bits; batches differ beyond them, and ties must be ties in every batch


@dataclass(frozen=True)
class SecretScore:
    """How well a model knows one secret.

    Attributes:
        bits: sum of -log2 p over the tokens of the secret, each given the name of the canary and all tokens before it.
        extracted: whether greedy decoding after the name gives the whole secret.
    """

    bits: float
    extracted: bool


def secret_window(tokenizer: TextTokenizer, canary: Canary, secret_tokens: int) -> Window:
    """The window of a canary as the rows of training hold it: a whole document, of which only the secret is scored."""
    tokens = np.array([tokenizer.begin, *canary.ids, tokenizer.end], dtype=np.int64)
    scored = np.zeros(len(tokens) - 1, dtype=bool)
    scored[canary.begin : canary.begin + secret_tokens] = True  # target 0 is the first token after `begin`
    return Window(tokens, scored, middle=len(scored) // 2)  # as encoder_decoder.middle_of gives it for the document


def own_secret(model: Any, tokenizer: TextTokenizer, canary: Canary, secret_tokens: int) -> Window:
    """What the model itself writes greedily where a secret would begin: a window that must count as extracted."""
    prompt = Prompt([tokenizer.begin, *canary.ids[: canary.begin]], key="", read=1)
    (text,) = generate(model, tokenizer, [prompt], Sampling(secret_tokens), seed=0, batch_size=1)
    secret = list(text.tokens) or [tokenizer.end]
    tokens = np.array([*prompt.ids, *secret], dtype=np.int64)
    scored = np.arange(1, len(tokens)) >= len(prompt.ids)
    return Window(tokens, scored, middle=len(scored))


def score_secrets(model: Any, windows: Iterable[Window], *, length: int, batch_size: int) -> Iterator[SecretScore]:
    """Score windows in batches of many.

    Args:
        length: targets per row; of shorter windows a forward pass takes as many as have the same number of tokens.
        batch_size: rows of `length` targets per forward pass.
    """
    for targets in score_windows(model, windows, Scoring(length, batch_size=batch_size)):
        bits = math.fsum(targets.nll.tolist()) / math.log(2)
        yield SecretScore(round(bits, DECIMALS), bool(targets.top1.all()))


def rows_of_documents(rows: Rows, documents: Sequence[int]) -> dict[int, int]:
    """The row of each document that has one piece, as canaries have.

    Args:
        documents: their numbers in the stream.
    """
    starts = rows.starts[np.array(documents, dtype=np.int64)]
    # A piece begins at the END before its document, or one later if the tokenizer has its own BOS.
    pieces = np.flatnonzero(np.isin(rows.pieces[:, 0], np.concatenate([starts, starts + np.uint64(1)])))
    numbers = rows.document_of(rows.pieces[pieces, 0].astype(np.int64))
    places = np.searchsorted(rows.first, pieces.astype(np.uint64), side="right") - 1
    return dict(zip(numbers.tolist(), places.tolist(), strict=True))


def steps_of_rows(numbers: Iterable[int], total: int, training: Training) -> dict[int, list[int]]:
    """The optimizer steps (from 0) in which the kept weights saw each row, ascending; none for a row never seen.

    Args:
        numbers: rows of the train stream.
        total: number of rows of the train stream.
    """
    seen: dict[int, list[int]] = {number: [] for number in numbers}
    wanted = np.array(sorted(seen), dtype=np.int64)
    end = training.global_step * training.rows_a_step  # rows that training has read, epochs without a gap
    for epoch in range(math.ceil(end / total)):
        order = row_order(total, seed=training.seed, epoch=epoch)
        places = np.flatnonzero(np.isin(order, wanted))
        for place in places[epoch * total + places < end].tolist():
            seen[int(order[place])].append((epoch * total + place) // training.rows_a_step)
    return seen
