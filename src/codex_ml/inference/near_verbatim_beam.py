"""Bound from below the probability that a model writes a text nearly verbatim.

The near-verbatim mass of a suffix z of m tokens, after a prefix, is the sum of Pr(y | prefix) over all y of m tokens
that differ from z at no more than d places (Hamming distance; Cooper, Lemley, De Sa et al. 2026, arXiv:2603.24917).
There are sum over k <= d of C(m, k) (V - 1)^k such y, and sampling needs about 100,000 texts to see a mass of 0.001.
A beam search that keeps only hypotheses with at most d mismatches finds the most probable ones. They are distinct
sequences, so the sum of their probabilities is a lower bound of the mass. Sampling is at temperature 1 from the whole
vocabulary; a token that ends a text is no mismatch, because the text would have fewer tokens.

The hypotheses of a window have slots. Slot 0 is the verbatim path, so the bound is at least p_z. Slot b takes the most
probable hypothesis that extends one of the slots 0 to b and that no slot before it has taken. So what slot b holds does
not depend on the slots after it, and a wider beam holds all hypotheses of a narrower one: the bound does not fall with
the width. A beam that keeps the best of all extensions lacks this property, because the extensions of a further
hypothesis can displace those of another one. The last step takes all extensions at once and needs no slots.

Used by: the part near_verbatim of safety_audit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codex_ml.inference.decoding import start_decoder

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 256  # hypotheses per forward pass


@dataclass(frozen=True)
class BeamSearch:
    """How near-verbatim mass is searched.

    Attributes:
        prefix: tokens of each window that the model gets.
        mismatches: d, the places at which a sequence may differ from the suffix.
        width: slots per window.
        negligible: a hypothesis of less probability is dropped, the verbatim one too; its mass is lost to the bound.
        ends: ids that end a text.
    """

    prefix: int
    mismatches: int = 5
    width: int = 16
    negligible: float = 1e-6
    ends: tuple[int, ...] = ()


def near_verbatim_masses(model: Any, windows: Sequence[NDArray[np.int64]], search: BeamSearch) -> Iterator[float]:
    """Yield a lower bound of the near-verbatim mass of the suffix of each window, in order.

    Args:
        model: a decoder-only model.
        windows: token ids, all of one length, which is above `search.prefix`.

    Raises:
        ValueError: if the lengths differ, or a window has no suffix.
    """
    import torch

    if len({len(window) for window in windows}) > 1 or any(len(window) <= search.prefix for window in windows):
        raise ValueError(f"expected windows of one length above the prefix of {search.prefix} tokens")
    together = max(1, ROWS // search.width)
    for begin in range(0, len(windows), together):
        with torch.inference_mode():
            yield from _Beams(model, np.stack(windows[begin : begin + together]), search).run().tolist()


class _Beams:
    """The beams of some windows, extended together.

    Attributes:
        log_p: (windows, width) float64, log probability of the hypothesis in each slot; -inf where there is none.
        misses: (windows, width) int64, its mismatches so far.
    """

    def __init__(self, model: Any, tokens: NDArray[np.int64], search: BeamSearch) -> None:
        import torch

        self.search, self.suffixes = search, torch.from_numpy(tokens[:, search.prefix :])
        prefixes = tokens[:, : search.prefix].tolist()
        self.decoder = start_decoder(model, prefixes, [search.prefix] * len(tokens))
        self.least = math.log(search.negligible) if search.negligible else -math.inf
        self.log_p = torch.full((len(tokens), search.width), -math.inf, dtype=torch.float64)
        self.log_p[:, 0] = 0
        self.misses = torch.zeros((len(tokens), search.width), dtype=torch.int64)

    def run(self) -> NDArray[np.float64]:
        """Return the bounds: (windows,) float64."""
        import torch

        length = self.suffixes.shape[1]
        for place in range(length - 1):
            if not self._extend(place):
                return np.zeros(len(self.suffixes))
        window, slot = self._living()
        right, wrong = self._next(length - 1, window)
        log_p, may_differ = self.log_p[window, slot], self.misses[window, slot] < self.search.mismatches
        differing = wrong.exp().sum(-1).double().cpu()
        gained = log_p.exp() * (right.double().cpu().exp() + torch.where(may_differ, differing, 0.0))
        return torch.zeros(len(self.suffixes), dtype=torch.float64).index_add_(0, window, gained).numpy()

    def _living(self) -> tuple[Tensor, Tensor]:
        """Window and slot of each hypothesis, in the order of the rows of the decoder: (rows,) each."""
        import torch

        window, slot = torch.nonzero(self.log_p > -math.inf, as_tuple=True)
        return window, slot

    def _next(self, place: int, window: Tensor) -> tuple[Tensor, Tensor]:
        """Log probabilities of the next tokens of each row.

        Returns:
            right (rows,), of the token of the suffix; wrong (rows, vocab), of the others, -inf where the text would
            end; float32, on the device of the model.
        """
        found = self.decoder.logits.log_softmax(-1)
        truth = self.suffixes[window, place][:, None].to(found.device)
        right = found.gather(1, truth).squeeze(1)
        found.scatter_(1, truth, -math.inf)
        found[:, list(self.search.ends)] = -math.inf
        return right, found

    def _extend(self, place: int) -> bool:
        """Extend the hypotheses by the token at `place` of the suffix; return whether there are any left."""
        import torch

        window, slot = self._living()
        right, wrong = self._next(place, window)
        # No slot can need more mismatches of one hypothesis than there are slots after slot 0.
        best, ids = wrong.topk(min(self.search.width - 1, wrong.shape[1]), dim=1)
        gains = torch.cat([right[:, None], best], dim=1).double().cpu() + self.log_p[window, slot][:, None]
        gains[self.misses[window, slot] >= self.search.mismatches, 1:] = -math.inf
        tokens = torch.cat([self.suffixes[window, place][:, None], ids.cpu()], dim=1)

        # (windows, slots, extensions): what each slot can be extended to, and the row of the decoder that holds it
        shape = (*self.log_p.shape, gains.shape[1])
        values, choices = torch.full(shape, -math.inf, dtype=torch.float64), torch.zeros(shape, dtype=torch.int64)
        values[window, slot], choices[window, slot] = gains, tokens
        rows = torch.zeros(shape[:2], dtype=torch.int64)
        rows[window, slot] = torch.arange(len(window))
        values[values < self.least] = -math.inf

        parent, extension = self._take(values)
        chosen = parent * shape[2] + extension
        kept = (self.log_p > -math.inf).nonzero(as_tuple=True)
        self.misses = self.misses.gather(1, parent) + (extension > 0)
        if not len(kept[0]):
            return False
        self.decoder.keep(rows.gather(1, parent)[kept].to(self.decoder.logits.device))
        self.decoder.add(choices.flatten(1).gather(1, chosen)[kept].to(self.decoder.logits.device))
        return True

    def _take(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the slots anew, see the docstring of this module, and set `log_p`.

        Args:
            values: (windows, slots, extensions), extension 0 is the token of the suffix.

        Returns:
            parent and extension of each slot: (windows, slots) int64 each.
        """
        import torch

        extensions, taken = values.shape[2], values.flatten(1).clone()
        chosen = torch.zeros(values.shape[:2], dtype=torch.int64)
        self.log_p = torch.full(values.shape[:2], -math.inf, dtype=torch.float64)
        self.log_p[:, 0] = taken[:, 0]
        taken[:, 0] = -math.inf
        for slot in range(1, values.shape[1]):
            self.log_p[:, slot], chosen[:, slot] = taken[:, : (slot + 1) * extensions].max(dim=1)
            taken.scatter_(1, chosen[:, slot, None], -math.inf)
        return chosen // extensions, chosen % extensions
