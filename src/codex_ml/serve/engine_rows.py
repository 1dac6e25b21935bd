"""What the engine takes and reports: a wanted text, its row in the batch, and what is new of it.

Used by: batch_engine, arrivals, own_model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from codex_ml.inference.growing_text import Finished, GrowingText
from codex_ml.inference.sampling import Sampling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenScore:
    """Logarithm of the probability of a written token, before temperature and top-p.

    Attributes:
        start, end: offsets of its characters in the text; equal for a token that completes no character.
        top: the most probable tokens and their logarithms, the best first.
    """

    token: int
    logprob: float
    start: int
    end: int
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Progress:
    """What is new of a text since the last report.

    Attributes:
        text: characters that will not change.
        tokens: number of new ids so far, in all.
        scores: of the new tokens, if they were asked for.
        finished: what ended the text; "error" if the model failed, None while it goes on.
    """

    text: str
    tokens: int
    scores: tuple[TokenScore, ...] = ()
    finished: Finished | Literal["error"] | None = None


@dataclass(frozen=True)
class Wanted:
    """A text that a client asks for.

    Attributes:
        ids: the prompt with its begin token.
        key, sample, seed: decide the random keys, as in `codex_ml.inference.generation`.
        ends: ids that end the text, END among them.
        top: how many of the most probable tokens are reported with each token; None: no scores.
        streamed: whether each step is reported, or the end only.
    """

    ids: Sequence[int]
    sampling: Sampling
    key: str
    sample: int
    seed: int
    ends: frozenset[int]
    top: int | None = None
    streamed: bool = False


@dataclass(eq=False)
class EngineRow:
    """A text in the engine; `cancel` frees its place at the next step.

    Attributes:
        draws: what decides how a token is drawn; rows with equal values are drawn together.
        keys: (max_tokens,) int64, the random key of each token.
        step: number of tokens so far, END included.
    """

    wanted: Wanted
    draws: Sampling
    text: GrowingText
    keys: NDArray[np.int64]
    report: Callable[[Progress], None]
    step: int = 0
    scores: list[TokenScore] = field(default_factory=list)
    cancelled: bool = False

    def cancel(self) -> None:
        """May be called from any thread."""
        self.cancelled = True


Reports = list[tuple[EngineRow, Progress]]


@dataclass
class EngineCounts:
    """What the engine has done and is doing; read without a lock."""

    waiting: int = 0
    running: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
