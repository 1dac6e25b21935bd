"""Generate one text and give its characters as they are certain: the text of `generate` for the same arguments.

>>> stream = TextStream(model, tokenizer, Prompt((0, 17, 4), key="doc"), Sampling(64), seed=1)  # doctest: +SKIP
>>> for piece in stream: print(piece, end="", flush=True)  # doctest: +SKIP
>>> stream.generation.finished  # doctest: +SKIP
'length'

Used by: `codex-ml generate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from codex_ml.inference.decoding import start_decoder
from codex_ml.inference.generation import (
    Generation,
    Prompt,
    ended_text,
    fit_prompt,
    prompt_room,
    seen_tokens,
    start_text,
)
from codex_ml.inference.sampling import Sampling, draw_keys, next_tokens

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer


class TextStream:
    """Generates one text; iterating gives one piece per token, which may be "".

    Args:
        prompt, sampling, seed: as for `generate`, which gives the same text.

    Attributes:
        generation: the whole text, when it has ended; None before.
        cut_prompt: whether the prompt lost tokens on its left, because the model cannot see as many at once.

    Raises:
        UserError: when the model cannot see `max_tokens` tokens and a prompt at once.
        CheckFailed: while iterating, when the model's logits are not numbers, or the tokenizer decodes the whole text
            to other characters than its beginning.
    """

    def __init__(self, model: Any, tokenizer: TextTokenizer, prompt: Prompt, sampling: Sampling, *, seed: int) -> None:
        self._model, self._sampling, self._seed = model, sampling, seed
        self._fitted = fit_prompt(model, tokenizer, prompt, prompt_room(model, sampling))
        self._text = start_text(self._fitted, tokenizer, sampling)
        self.cut_prompt = self._fitted.cut

    @property
    def generation(self) -> Generation | None:
        return ended_text(self._fitted, self._text)

    def __iter__(self) -> Iterator[str]:
        import torch

        fitted, prompt, most = self._fitted, self._fitted.prompt, self._sampling.max_tokens
        with torch.inference_mode():
            keys = torch.from_numpy(draw_keys(self._seed, prompt.key, prompt.sample, most)).to(self._model.device)
            decoder = start_decoder(self._model, [fitted.ids], [fitted.read])
            penalised = self._sampling.repetition_penalty != 1
            seen = seen_tokens(self._model, [fitted], decoder.logits) if penalised else None
        for step in range(most):
            with torch.inference_mode():  # not around the yield: the caller's code runs there
                chosen = next_tokens(decoder.logits, self._sampling, keys[step : step + 1], seen)
            self._text.add(int(chosen))
            yield self._text.take()
            if self._text.finished is not None:
                return
            with torch.inference_mode():
                if seen is not None:
                    seen.scatter_(1, chosen[:, None], True)
                decoder.add(chosen)
