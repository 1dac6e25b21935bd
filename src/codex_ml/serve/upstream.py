"""The text policy in front of another endpoint: what goes to it and what comes back passes the filter.

Used by: endpoint_app.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from codex_ml.core.strict_json import parse_json
from codex_ml.policy.filters import ScreenedText, TextFilter
from codex_ml.serve.api_answers import (
    DONE,
    FILTERED,
    AnswerOrigin,
    Choice,
    StreamAnswer,
    WholeAnswer,
    Writer,
    event,
    refused_answer,
)
from codex_ml.serve.api_errors import ApiError, too_slow
from codex_ml.serve.api_requests import parse_object
from codex_ml.serve.screening import Screening, worse
from codex_ml.serve.upstream_client import UpstreamAddress, UpstreamAnswer, UpstreamError, asked
from codex_ml.serve.upstream_stream import FilteredChunks
from codex_ml.serve.upstream_text import TextWalk

if TYPE_CHECKING:
    from codex_ml.policy.filter_rules import Decision
    from codex_ml.serve.limits import ServeLimits

MOST_ANSWER = 16 << 20  # bytes of an answer that is not streamed
MOST_EVENT = 1 << 20  # bytes of one event of a stream
PATHS = {True: "/v1/chat/completions", False: "/v1/completions"}


class UpstreamModel:
    """Another endpoint as the backend of this one."""

    healthy = True

    def __init__(self, address: UpstreamAddress, screening: Screening, limits: ServeLimits) -> None:
        self._address, self._screening, self._limits = address, screening, limits

    def gauges(self) -> dict[str, tuple[str, str, float]]:
        """This process counts no tokens."""
        return {}

    def close(self) -> None:
        """Each connection ends with its request."""

    async def models(self) -> dict[str, Any]:
        """The list of the other endpoint."""
        try:
            async with asyncio.timeout(self._limits.timeout), asked(self._address, "GET", "/v1/models", b"") as answer:
                body, _, _ = await self._body(answer)
                return body
        except UpstreamError as error:
            raise _unreachable(error) from None
        except TimeoutError:
            raise too_slow(self._limits.timeout) from None

    async def answer(self, data: bytes, *, chat: bool, deadline: float) -> WholeAnswer | StreamAnswer:
        """Answer the body of a request.

        Raises:
            ApiError: for a request that cannot be filtered, 502 when the other endpoint fails, its status when it
                refuses.
            TimeoutError: when the deadline has passed.
        """
        async with asyncio.timeout_at(deadline):
            request, decision, why = await asyncio.to_thread(self._request, data)
            stream, n = request.get("stream") is True, request.get("n", 1)
            origin = AnswerOrigin(None, self._screening.digest, None)
            if decision == "refuse":
                choices = [
                    Choice(i, "", FILTERED, f"the prompt: {why}")
                    for i in range(n if isinstance(n, int) and 0 < n <= 128 else 1)
                ]
                return refused_answer(Writer(chat, "upstream"), choices, origin, stream=stream, counted=False)
            sent = json.dumps(request, ensure_ascii=True, allow_nan=False).encode("ascii")
            try:
                async with AsyncExitStack() as stack:
                    answer = await stack.enter_async_context(asked(self._address, "POST", PATHS[chat], sent))
                    if answer.status == 200 and answer.kind == "text/event-stream":
                        events = self._events(answer, stack.pop_all(), chat=chat, deadline=deadline)
                        return StreamAnswer(events, origin.headers(), asyncio.Event())
                    body, decided, reason = await self._body(answer)
                    why = f"the answer: {reason}" if reason else why and f"the prompt: {why}"
            except UpstreamError as error:
                raise _unreachable(error) from None
        if decided == "refuse":
            choices = [Choice(0, "", FILTERED, why)]
            return refused_answer(Writer(chat, "upstream"), choices, origin, stream=False, counted=False)
        return WholeAnswer({**body, "codex_ml": origin.as_json(worse(decision, decided), why)}, origin.headers())

    def _request(self, data: bytes) -> tuple[dict[str, Any], Decision | None, str]:
        request = parse_object(data)
        if self._screening.screen is None:
            return request, None, ""
        if request.get("stream") and (request.get("logprobs") or request.get("top_logprobs")):
            message = "logprobs of a stream would spell what the filter holds back; ask without stream"
            raise ApiError(400, message, "logprobs", "unsupported")
        cleaned, decision, why = _walked(self._screening.screen, request, answer=False)
        self._screening.counters.decided("prompt", decision)
        return cleaned, decision, why

    async def _body(self, answer: UpstreamAnswer) -> tuple[dict[str, Any], Decision | None, str]:
        """The body of an answer that is not streamed, as it may leave; (body, decision, why)."""
        data = await answer.body(MOST_ANSWER)
        try:
            body = parse_json(data)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise UpstreamError(f"its answer with status {answer.status} is not a JSON object")
        screen = self._screening.screen
        cleaned, decision, why = body, None, ""
        if screen is not None:
            cleaned, decision, why = await asyncio.to_thread(_walked, screen, body, answer=True)
            self._screening.counters.decided("answer", decision)
        if answer.status != 200:
            error = cleaned.get("error") if decision != "refuse" else None
            said = error.get("message") if isinstance(error, dict) else None
            message = f"the other endpoint refused the request: {str(said)[:500] if said else 'it gave no reason'}"
            raise ApiError(answer.status if 400 <= answer.status < 600 else 502, message, code="upstream_error")
        if decision not in (None, "allow"):
            for choice in cleaned.get("choices") or []:
                if isinstance(choice, dict):
                    choice["logprobs"] = None  # they spell the text as it was
        return cleaned, decision, why

    async def _events(
        self, answer: UpstreamAnswer, stack: AsyncExitStack, *, chat: bool, deadline: float
    ) -> AsyncGenerator[bytes, None]:
        chunks = FilteredChunks(self._screening, chat=chat)
        try:
            async with stack:
                reader = _data_of_events(answer)
                while not chunks.ended:
                    async with asyncio.timeout_at(deadline):
                        data = await anext(reader, None)
                    if data is None or data == b"[DONE]":
                        break
                    if (left := self._chunk(chunks, data)) is not None:
                        yield event(left)
                if (rest := chunks.finish()) is not None:
                    yield event(rest)
            origin = AnswerOrigin(None, self._screening.digest, None)
            traced = origin.as_json(chunks.decision, f"the answer: {chunks.why}" if chunks.why else "")
            yield event(Writer(chat, "upstream").chunk((), codex_ml=traced))
            if chunks.decision is not None:
                self._screening.counters.decided("answer", chunks.decision)
        except UpstreamError as error:
            yield event(_unreachable(error).body())
        except TimeoutError:
            yield event(too_slow(self._limits.timeout).body())
        yield DONE

    def _chunk(self, chunks: FilteredChunks, data: bytes) -> dict[str, Any] | None:
        try:
            value = parse_json(data)
            if not isinstance(value, dict) or "error" in value:
                raise ValueError("an error")
            return chunks.add(value)
        except (ValueError, RecursionError):
            raise UpstreamError("an event of its stream is an error, or not a chunk in OpenAI's format") from None


def _walked(screen: TextFilter, value: dict[str, Any], *, answer: bool) -> tuple[dict[str, Any], Decision, str]:
    walk = TextWalk(screen.screen_output if answer else screen.screen_input)
    try:
        cleaned: dict[str, Any] = walk.cleaned(value)
    except RecursionError:
        walk.note(ScreenedText("refuse", "", why="JSON inside JSON is nested too deeply"))
        cleaned = {}
    return cleaned, *walk.decision


async def _data_of_events(answer: UpstreamAnswer) -> AsyncGenerator[bytes, None]:
    """The data of each server-sent event.

    Raises:
        UpstreamError: for an event of more than 1 MiB.
    """
    waiting, lines = b"", list[bytes]()
    async for piece in answer.pieces:
        waiting += piece
        *complete, waiting = waiting.replace(b"\r\n", b"\n").split(b"\n")
        for line in complete:
            if line.startswith(b"data:"):
                lines.append(line[5:].removeprefix(b" "))
            elif not line and lines:
                yield b"\n".join(lines)
                lines = []
        if len(waiting) + sum(map(len, lines)) > MOST_EVENT:
            raise UpstreamError(f"an event of its stream has more than {MOST_EVENT} bytes")


def _unreachable(error: UpstreamError) -> ApiError:
    return ApiError(502, f"the other endpoint failed: {error}", code="upstream_failed")
