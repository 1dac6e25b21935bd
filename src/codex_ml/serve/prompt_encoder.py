"""From the texts of a request to the texts that the engine shall write: prompts as ids, sampling, limits.

Used by: own_model.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codex_ml.core.errors import UserError
from codex_ml.inference.generation import REQUEST_KEY
from codex_ml.inference.sampling import Sampling
from codex_ml.modeling.encoder_decoder import is_encoder_decoder
from codex_ml.modeling.positions import reach
from codex_ml.serve.api_errors import ApiError, unknown_model
from codex_ml.serve.api_requests import COMPLETION_TOKENS, MOST_CHOICES, AskedText, ChatRequest, CompletionRequest
from codex_ml.serve.engine_rows import Wanted

if TYPE_CHECKING:
    from codex_ml.tokens.text_tokenizer import TextTokenizer

UNBOUNDED = 1 << 15  # tokens of a prompt with its answer, where the model has relative positions


@dataclass(frozen=True)
class Served:
    """A loaded model.

    Attributes:
        digest: SHA-256 of its folder, its name for clients.
        turn_ends: ids that end an answer of a chat, in addition to END.
        context: positions that the model saw in training; None where only its config limits them.
    """

    model: Any
    tokenizer: TextTokenizer
    digest: str
    turn_ends: Sequence[int] = ()
    context: int | None = None


class PromptEncoder:
    """Encodes requests for one model; safe for several threads."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._lock = threading.Lock()  # to encode a chat switches the handling of special tokens for a moment
        limits = (reach(served.model.config), served.context)
        self._room = min((limit for limit in limits if limit), default=UNBOUNDED)
        self._pair = is_encoder_decoder(served.model)

    def check_model(self, name: str | None) -> None:
        """Refuse a model that is not the one there is.

        Raises:
            ApiError: 404.
        """
        if name not in (None, self._served.digest):
            raise unknown_model(self._served.digest)

    def wanted(self, request: AskedText, texts: Sequence[str], seed: int) -> list[Wanted]:
        """The texts to write: `n` per prompt, those of one prompt together.

        Args:
            texts: of the prompts or of the messages, as the filter lets them pass.

        Raises:
            ApiError: 400 for a prompt that cannot be encoded or leaves no room for its answer.
        """
        chat = isinstance(request, ChatRequest)
        if len(texts) * request.n > MOST_CHOICES and not chat:
            message = f"n times the number of prompts is {len(texts) * request.n}; allowed: {MOST_CHOICES}"
            raise ApiError(400, message, "n", "invalid_value")
        with self._lock:
            prompts = [self._chat(request, texts)] if isinstance(request, ChatRequest) else list(map(self._text, texts))
        ends = frozenset({self._served.tokenizer.end, *(self._served.turn_ends if chat else ())})
        made: list[Wanted] = []
        for ids in prompts:
            sampling = _sampling(request, self._new_tokens(request, len(ids)))
            for _ in range(request.n):
                sample = len(made)
                made.append(Wanted(ids, sampling, REQUEST_KEY, sample, seed, ends, _top(request), request.stream))
        return made

    def _text(self, text: str) -> list[int]:
        return [self._served.tokenizer.begin, *self._served.tokenizer.encode(text).tolist()]

    def _chat(self, request: ChatRequest, texts: Sequence[str]) -> list[int]:
        from codex_ml.tokens.chat import encode_prompt

        messages = [{"role": one.role, "content": text} for one, text in zip(request.messages, texts, strict=True)]
        try:
            return [int(number) for number in encode_prompt(self._served.tokenizer, messages)]
        except UserError as error:
            if self._served.tokenizer.chat_template is None:
                message = "the tokenizer of this model has no chat template; use /v1/completions"
                raise ApiError(400, message, "messages", "no_chat_template") from None
            raise ApiError(400, f"messages: {error}", "messages", "invalid_value") from None

    def _new_tokens(self, request: AskedText, prompt: int) -> int:
        """The most tokens of an answer. The last token is never read, so it needs no position."""
        chat = isinstance(request, ChatRequest)
        given = (request.max_completion_tokens if isinstance(request, ChatRequest) else None) or request.max_tokens
        left = self._room if self._pair else self._room - prompt + 1
        most = given or (left if chat else COMPLETION_TOKENS)
        if prompt > self._room or most > left or left < 1:
            message = (
                f"the prompt has {prompt} tokens and max_tokens is {most}; the model sees {self._room} tokens at once"
            )
            raise ApiError(400, message, "messages" if chat else "prompt", "context_length_exceeded")
        return most


def _sampling(request: AskedText, most: int) -> Sampling:
    try:
        return Sampling(most, temperature=request.temperature, top_p=request.top_p, stop=request.stops)
    except UserError as error:
        field = str(error).split()[0] if str(error).startswith(("temperature", "top_p")) else "stop"
        raise ApiError(400, str(error), field, "invalid_value") from None


def _top(request: AskedText) -> int | None:
    """How many of the most probable tokens are reported with each token; None: no scores."""
    if isinstance(request, ChatRequest):
        return (request.top_logprobs or 0) if request.logprobs else None
    return request.logprobs if isinstance(request, CompletionRequest) else None
