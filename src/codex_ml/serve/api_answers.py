"""Answers of the endpoint as JSON objects in OpenAI's format, whole and as chunks of a stream.

Used by: serve.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from codex_ml.serve.engine_rows import TokenScore

if TYPE_CHECKING:
    from codex_ml.policy.filter_rules import Decision
    from codex_ml.tokens.text_tokenizer import TextTokenizer

REASONS = {"end": "stop", "stop": "stop", "length": "length"}
FILTERED = "content_filter"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class WholeAnswer:
    """A JSON object and its headers."""

    body: dict[str, Any]
    headers: dict[str, str]


@dataclass(frozen=True)
class StreamAnswer:
    """Events in the format of server-sent events, and their headers. Whoever reads them closes the iterator.

    Attributes:
        dropped: is set when the reader is too slow; nothing more follows then.
    """

    events: AsyncGenerator[bytes, None]
    headers: dict[str, str]
    dropped: asyncio.Event


@dataclass(frozen=True)
class Choice:
    """One answer, or what is new of it.

    Attributes:
        index: its place among the answers of the request.
        finish: OpenAI's finish_reason; None while it goes on.
        refusal: why nothing may be said; "" if something may.
        scores: of the tokens of `text`; None: not asked for, or not shown because the text was redacted.
    """

    index: int
    text: str
    finish: str | None = None
    refusal: str = ""
    scores: Sequence[TokenScore] | None = None


@dataclass(frozen=True)
class AnswerOrigin:
    """What an answer can be traced to; the field `codex_ml` of each answer.

    Attributes:
        model: SHA-256 of the folder of the model; None: another endpoint answers.
        policy: SHA-256 of the file of the policy; None: no policy was applied.
        seed: of the random numbers.
    """

    model: str | None
    policy: str | None
    seed: int | None

    def as_json(self, decision: Decision | None, why: str = "") -> dict[str, Any]:
        """The field `codex_ml`."""
        told = {"model": self.model, "policy": self.policy, "seed": self.seed, "decision": decision}
        return {**told, "why": why} if why else told

    def headers(self) -> dict[str, str]:
        """The same as headers of HTTP."""
        known = {"model": self.model, "policy": self.policy or "none", "seed": self.seed}
        return {f"x-codex-ml-{name}": str(value) for name, value in known.items() if value is not None}


@dataclass(frozen=True)
class Writer:
    """Writes the objects of one request."""

    chat: bool
    model: str
    tokenizer: TextTokenizer | None = None  # for scores
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: Sequence[Choice], usage: dict[str, int], origin: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        kind = "chat.completion" if self.chat else "text_completion"
        listed = [self._chat_choice(one, "message") if self.chat else self._text_choice(one) for one in choices]
        return {**self._head(kind), "choices": listed, "usage": usage, "codex_ml": origin}

    def opening(self, count: int, **more: Any) -> dict[str, Any]:
        """The first event of a stream: who speaks."""
        first = self.chunk([Choice(index, "") for index in range(count)], **more)
        if self.chat:
            for choice in first["choices"]:
                choice["delta"] = {"role": "assistant", "content": ""}
        return first

    def chunk(self, choices: Sequence[Choice], **more: Any) -> dict[str, Any]:
        """An event of a stream."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        listed = [self._chat_choice(one, "delta") if self.chat else self._text_choice(one) for one in choices]
        return {**self._head(kind), "choices": listed, **more}

    def _head(self, kind: str) -> dict[str, Any]:
        id = f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}"
        return {"id": id, "object": kind, "created": self.created, "model": self.model}

    def _text_choice(self, choice: Choice) -> dict[str, Any]:
        scores = None if choice.scores is None else self._text_scores(choice.scores)
        return {"index": choice.index, "text": choice.text, "logprobs": scores, "finish_reason": choice.finish}

    def _chat_choice(self, choice: Choice, name: str) -> dict[str, Any]:
        message: dict[str, Any] = {"content": choice.text} if choice.text or name == "message" else {}
        if name == "message":
            message |= {"role": "assistant", "refusal": choice.refusal or None}
        elif choice.refusal:
            message["refusal"] = choice.refusal
        scores = None if choice.scores is None else {"content": list(map(self._chat_score, choice.scores))}
        return {"index": choice.index, name: message, "logprobs": scores, "finish_reason": choice.finish}

    def _text_scores(self, scores: Sequence[TokenScore]) -> dict[str, Any]:
        return {
            "tokens": [self._spelt(one.token) for one in scores],
            "token_logprobs": [one.logprob for one in scores],
            "top_logprobs": [{self._spelt(token): value for token, value in one.top} for one in scores],
            "text_offset": [one.start for one in scores],
        }

    def _chat_score(self, score: TokenScore) -> dict[str, Any]:
        top = [self._named(token, value) for token, value in score.top]
        return {**self._named(score.token, score.logprob), "top_logprobs": top}

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        spelt = self._spelt(token)
        return {"token": spelt, "logprob": logprob, "bytes": None if "\ufffd" in spelt else list(spelt.encode("utf-8"))}

    def _spelt(self, token: int) -> str:
        assert self.tokenizer is not None
        return self.tokenizer.decode([token])


def usage(prompt: int, new: int) -> dict[str, int]:
    """The field `usage`: numbers of tokens."""
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def event(value: dict[str, Any]) -> bytes:
    """An event of a stream: one line of JSON in ASCII."""
    return f"data: {json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(',', ':'))}\n\n".encode("ascii")


def refused_answer(
    writer: Writer, choices: Sequence[Choice], origin: AnswerOrigin, *, stream: bool, counted: bool
) -> WholeAnswer | StreamAnswer:
    """The answer to a prompt that was refused, with `refusal` of the choices as the reason."""
    traced, headers = origin.as_json("refuse", choices[0].refusal), origin.headers()
    if not stream:
        return WholeAnswer(writer.whole(choices, usage(0, 0), traced), headers)

    async def events() -> AsyncGenerator[bytes, None]:
        yield event(writer.chunk(choices, codex_ml=traced))
        if counted:
            yield event(writer.chunk((), usage=usage(0, 0)))
        yield DONE

    return StreamAnswer(events(), headers, asyncio.Event())
