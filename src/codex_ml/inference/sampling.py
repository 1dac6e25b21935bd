"""Choose the next token from logits: greedy, temperature, top-k, top-p, repetition penalty.

Each rule is the one of transformers (`transformers.generation.logits_process`), applied in the same order. A token is
drawn by an exponential race: token i gets the time -ln(u_i) / p_i, and the earliest one wins with probability p_i (the
Gumbel-max trick, without one of its logarithms). The uniform number u_i is a hash of the token's id and of a key, one
key per token of a text, which depends on the seed, the key of the prompt and the number of the sample only. So neither
the batch nor the order of the prompts changes a draw. The logits of a text depend on its batch in the last bits; a race
is changed by that only if two tokens finish together. Along one cumulative distribution, an error of one probability
moves all borders after it: of 4,096 tokens drawn so, one changed with the batch.

Used by: generation.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from codex_ml.core.errors import CheckFailed, UserError

if TYPE_CHECKING:
    from torch import Tensor

GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15
HEAD = 256  # the most probable tokens, in which top-p looks first
COOLEST = 1e-3  # the lowest temperature above 0: float32 holds logits divided by it, and by 1e-37 it does not
PENALTIES = (0.01, 100.0)  # beyond, a penalty alone chooses the token; divided by 1e-37, a logit leaves float32
SCALE = 2.0**40  # the integer weight of probability 1; a vocabulary of 2^22 tokens stays below 2^63


@dataclass(frozen=True)
class Sampling:
    """How text is generated.

    Attributes:
        max_tokens: the most new tokens of one text.
        temperature: 0 chooses the most probable token (greedy).
        top_k: only the k most probable tokens (and those equal to the last of them) are drawn; 0: all.
        top_p: only the smallest set of most probable tokens that reaches this probability (and those equal to the last
            of them) is drawn; 1: all.
        repetition_penalty: divides positive and multiplies negative logits of tokens that are already in the text
            (Keskar et al. 2019, arXiv:1909.05858); 1: none.
        stop: texts that end the text; the text is cut before the first of them.
        context: the most tokens that the model may see at once; None: as many as it has positions.

    Raises:
        UserError: for a value outside its range, naming it.
    """

    max_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    context: int | None = None

    def __post_init__(self) -> None:
        allowed = {
            "max_tokens": (self.max_tokens >= 1, "at least 1"),
            "temperature": (
                self.temperature == 0 or COOLEST <= self.temperature < math.inf,
                f"0 (greedy) or a finite number of at least {COOLEST}",
            ),
            "top_k": (self.top_k >= 0, "0 (all tokens) or a positive number"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "repetition_penalty": (
                PENALTIES[0] <= self.repetition_penalty <= PENALTIES[1],
                f"{PENALTIES[0]:g} to {PENALTIES[1]:g}; 1: none",
            ),
        }
        for name, (fits, expected) in allowed.items():
            if not fits:
                raise UserError(f"{name} is {getattr(self, name)}; allowed: {expected}")
        for text in self.stop:
            if not text or "\ufffd" in text:
                raise UserError(
                    f"the stop string {text!r} cannot be used: it must have a character, and none that stands for "
                    "bytes that are not text (U+FFFD)"
                )


def draw_keys(seed: int, key: str, sample: int, count: int) -> NDArray[np.int64]:
    """Return the keys that draw the tokens of one text: (count,) int64, one per token.

    They come from a counter-based generator (Philox, Salmon et al. 2011) whose key is a hash of the arguments. The
    first n keys do not depend on `count`.
    """
    digest = hashlib.sha256(f"{seed}\0{sample}\0{key}".encode("utf-8", "surrogatepass")).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    return generator.integers(0, 2**63, count)


def uniforms(keys: Tensor, ids: Tensor) -> Tensor:
    """Return a number in (0, 1) per text and token: (texts, n) float64, the mix of SplitMix64 (Steele et al. 2014).

    Args:
        keys: (texts,) int64.
        ids: (texts, n) int64.
    """
    mixed = keys[:, None] + ids * GOLDEN  # int64 arithmetic wraps around, as that of uint64
    mixed = (mixed ^ ((mixed >> 30) & (2**34 - 1))) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    mixed = (mixed ^ ((mixed >> 27) & (2**37 - 1))) * -7723592293110705685  # 0x94D049BB133111EB
    mixed = mixed ^ ((mixed >> 31) & (2**33 - 1))
    return ((mixed >> 11) & (2**53 - 1)).double() * 2.0**-53 + 2.0**-54


def next_tokens(logits: Tensor, sampling: Sampling, keys: Tensor, seen: Tensor | None) -> Tensor:
    """Return the next token of each text: (texts,) int64.

    Args:
        logits: (texts, vocab) float32.
        keys: (texts,) int64, from `draw_keys`.
        seen: (texts, vocab) bool, the tokens that are already in each text; None without a repetition penalty.

    Raises:
        CheckFailed: when the logits are not numbers.
    """
    import torch

    if not bool(torch.isfinite(logits.amax(-1)).all()):  # NaN is the maximum of a row that holds one
        raise CheckFailed("the model's logits are NaN or infinite, so it has no next token; train it again")
    logits = _penalised(logits, sampling.repetition_penalty, seen)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    found, ids = weights(logits, sampling)
    rates = found.double() / -uniforms(keys, ids).log()  # the reciprocal of the time
    return ids.gather(-1, rates.argmax(-1, keepdim=True))[:, 0]


def _penalised(logits: Tensor, penalty: float, seen: Tensor | None) -> Tensor:
    if seen is None:
        return logits
    return logits.where(~seen, (logits * penalty).where(logits < 0, logits / penalty))


def weights(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Return the tokens that may be drawn, in order of their ids, and weights proportional to their probabilities.

    A weight is a probability times 2^40, rounded down; it is 0 for a token that top-k or top-p excludes. With a limit
    the vocabulary is not sorted: the most probable tokens are looked at, and more of them until one is excluded.

    Returns:
        (weights, ids): (texts, n) int64 each.
    """
    import torch

    logits, vocabulary = logits / sampling.temperature, logits.shape[-1]
    limited = 0 < sampling.top_k < vocabulary
    if not limited and sampling.top_p == 1:
        return (logits.softmax(-1) * SCALE).long(), torch.arange(vocabulary, device=logits.device).expand_as(logits)
    size = sampling.top_k + 1 if limited else HEAD
    while True:
        values, ids = logits.topk(min(size, vocabulary))  # in descending order
        inside = values >= values[:, sampling.top_k - 1, None] if limited else torch.ones_like(values, dtype=torch.bool)
        whole = not (limited and bool(inside[:, -1].any()))
        base = values.masked_fill(~inside, -torch.inf) if limited else logits
        found = ((values - base.logsumexp(-1, keepdim=True)).exp() * SCALE).long().masked_fill(~inside, 0)
        if sampling.top_p < 1:
            first = inside & (found.cumsum(-1) - found < sampling.top_p * SCALE)
            inside &= values >= values.masked_fill(~first, torch.inf).amin(-1, keepdim=True)
            whole = whole and (limited or not bool(inside[:, -1].any()))
        if whole or values.shape[-1] == vocabulary:
            break
        size *= 4
    ids, order = ids.sort()
    return found.masked_fill(~inside, 0).gather(-1, order), ids
