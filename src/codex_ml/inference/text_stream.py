"""Generate one text and give its characters as they are certain: the text of `generate` for the same arguments.

A token is not a text: a character can have bytes of several tokens, and a stop string can begin in one token and end
in another. `GrowingText` holds back what may still change; the pieces, joined, are the text of the `Generation`.

>>> stream = TextStream(model, tokenizer, Prompt((0, 17, 4), key="doc"), Sampling(64), seed=1)  # doctest: +SKIP
>>> for piece in stream: print(piece, end="", flush=True)  # doctest: +SKIP
>>> stream.generation.finished  # doctest: +SKIP
'length'

Used by: `codex-ml generate`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import CheckFailed
from codex_ml.inference.decoding import start_decoder
from codex_ml.inference.generation import (
    FittedPrompt,
    Generation,
    Prompt,
    TextInProgress,
    fit_prompt,
    prompt_room,
    seen_tokens,
)
from codex_ml.inference.sampling import Sampling, draw_keys, next_tokens
from codex_ml.inference.stop_strings import StopStrings, cut_at_stop
from codex_ml.tokens.borders import decode_after

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

REST = 64  # tokens after which the text before them is decoded no more, so that a token costs the same in a long text
_HALF = re.compile("\ufffd+\\Z")  # bytes that are not a character yet


class GrowingText:
    """The text of one prompt, to which a decoder adds tokens.

    Attributes:
        generation: the whole text, when it has ended; None before.

    Raises:
        UserError: when a stop string cannot be used.
    """

    def __init__(self, fitted: FittedPrompt, tokenizer: TextTokenizer, sampling: Sampling) -> None:
        self._fitted, self._tokenizer, self._most = fitted, tokenizer, sampling.max_tokens
        self._stops = StopStrings(tokenizer, sampling.stop)
        self._text = TextInProgress(fitted, tokenizer)
        self._bytes = _byte_tokens(tokenizer)
        self._settled, self._base = "", 0  # the text of the first tokens, and how many these are
        self._given = ""
        self.generation: Generation | None = None

    def add(self, token: int) -> str:
        """Add a token; return the characters that are certain now. The last token returns the rest.

        Raises:
            CheckFailed: when the tokenizer gives other characters for the whole text than for its beginning.
        """
        self.generation = self._text.add(token, self._stops, self._most)
        if self.generation is None:
            return self._give(self._certain())
        if not self.generation.text.startswith(self._given):
            raise CheckFailed("the tokenizer decodes the whole text to other characters than its beginning")
        return self._give(self.generation.text)

    def _give(self, text: str) -> str:
        if not text.startswith(self._given):  # more tokens will tell
            return ""
        new, self._given = text[len(self._given) :], text
        return new

    def _certain(self) -> str:
        """The beginning of the text that no further token changes."""
        shown = self._text.shown
        last = len(shown)
        while last > self._base and shown[last - 1] in self._bytes:
            last -= 1
        before = shown[self._base - REST : self._base] if self._base else self._fitted.ids
        text = self._settled + decode_after(self._tokenizer, before, shown[self._base : last])
        whole = _HALF.sub("", text)
        if whole == text and last - self._base >= REST and not self._has_special(shown[last - REST : last]):
            self._settled, self._base = text, last
        stopped = cut_at_stop(whole, self._stops.stops)
        return stopped if stopped is not None else whole[: len(whole) - self._begun(whole)]

    def _has_special(self, tokens: list[int]) -> bool:
        """Whether one is special: `decode_after` reads what follows it as a text of its own."""
        return not set(self._tokenizer.special.values()).isdisjoint(tokens)

    def _begun(self, text: str) -> int:
        """Number of characters at the end of a text that may be the beginning of a stop string."""
        return max(
            (n for stop in self._stops.stops for n in range(1, len(stop)) if text.endswith(stop[:n])),
            default=0,
        )


def _byte_tokens(tokenizer: TextTokenizer) -> frozenset[int]:
    """Ids of the tokens of single bytes. SentencePiece decodes a run of them as a whole, so the last one decides."""
    names = (tokenizer.backend.token_to_id(f"<0x{number:02X}>") for number in range(256))
    return frozenset(number for number in names if number is not None)


class TextStream:
    """Generates one text; iterating gives one piece per token, which may be "".

    Args:
        prompt, sampling, seed: as for `generate`, which gives the same text.

    Attributes:
        generation: the whole text, when it has ended; None before.
        cut_prompt: whether the prompt lost tokens on its left, because the model cannot see as many at once.

    Raises:
        UserError: when the model cannot see `max_tokens` tokens and a prompt at once.
        CheckFailed: while iterating, when the model's logits are not numbers.
    """

    def __init__(self, model: Any, tokenizer: TextTokenizer, prompt: Prompt, sampling: Sampling, *, seed: int) -> None:
        self._model, self._sampling, self._seed = model, sampling, seed
        self._fitted = fit_prompt(model, tokenizer, prompt, prompt_room(model, sampling))
        self._growing = GrowingText(self._fitted, tokenizer, sampling)
        self.cut_prompt = self._fitted.cut

    @property
    def generation(self) -> Generation | None:
        return self._growing.generation

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
            piece = self._growing.add(int(chosen))
            if self.generation is not None:
                yield piece
                return
            yield piece
            with torch.inference_mode():
                if seen is not None:
                    seen.scatter_(1, chosen[:, None], True)
                decoder.add(chosen)
