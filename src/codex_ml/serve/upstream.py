"""The text policy in front of another endpoint: what goes to it and what comes back passes the filter.

Used by: endpoint_app.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codex_ml.core.strict_json import parse_json
from codex_ml.policy.filters import ScreenedText
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
from codex_ml.serve.prompt_ends import PromptEnds
from codex_ml.serve.screening import Screening, stricter
from codex_ml.serve.upstream_client import UpstreamAddress, UpstreamAnswer, UpstreamError, asked
from codex_ml.serve.upstream_stream import MOST_CHOICES, FilteredChunks
from codex_ml.serve.upstream_text import (
    MOST_TEXTS,
    TEXTS,
    TextWalk,
    TooManyTexts,
    joined_parts,
    part_text,
    refuse_unread,
    with_text,
)

if TYPE_CHECKING:
    from codex_ml.policy.filter_rules import Decision
    from codex_ml.serve.limits import ServeLimits

MOST_ANSWER = 16 << 20  # bytes of an answer that is not streamed
MOST_EVENT = 1 << 20  # bytes of one event of a stream
PATHS = {True: "/v1/chat/completions", False: "/v1/completions"}


@dataclass(frozen=True)
class _Asked:
    """A request as it goes on, and what the policy decided about it."""

    chat: bool
    request: dict[str, Any]
    decision: Decision | None
    why: str

    @property
    def ends(self) -> PromptEnds:
        return PromptEnds(self.request, chat=self.chat)

    def traced(self, origin: AnswerOrigin, decision: Decision | None, why: str) -> dict[str, Any]:
        """The field `codex_ml` with the stricter decision of request and answer."""
        asked = self.decision, f"the prompt: {self.why}" if self.why else ""
        return origin.as_json(*stricter(asked, (decision, f"the answer: {why}" if why else "")))


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
                body, _, _ = await self._body(answer, None)
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
            one = await asyncio.to_thread(self._request, data, chat=chat)
            origin = AnswerOrigin(None, self._screening.digest, None)
            if one.decision == "refuse":
                stream, n = one.request.get("stream") is True, one.request.get("n")
                choices = [
                    Choice(i, "", FILTERED, f"the prompt: {one.why}")
                    for i in range(n if isinstance(n, int) and 0 < n <= MOST_CHOICES else 1)
                ]
                return refused_answer(Writer(chat, "upstream"), choices, origin, stream=stream, counted=False)
            sent = json.dumps(one.request, ensure_ascii=True, allow_nan=False).encode("ascii")
            try:
                async with AsyncExitStack() as stack:
                    answer = await stack.enter_async_context(asked(self._address, "POST", PATHS[chat], sent))
                    if answer.status == 200 and answer.kind == "text/event-stream":
                        events = self._events(answer, stack.pop_all(), one, deadline)
                        return StreamAnswer(events, origin.headers(), asyncio.Event())
                    body, decided, why = await self._body(answer, one)
            except UpstreamError as error:
                raise _unreachable(error) from None
        if decided == "refuse":
            choices = [Choice(0, "", FILTERED, f"the answer: {why}")]
            return refused_answer(Writer(chat, "upstream"), choices, origin, stream=False, counted=False)
        return WholeAnswer({**body, "codex_ml": one.traced(origin, decided, why)}, origin.headers())

    def _request(self, data: bytes, *, chat: bool) -> _Asked:
        request = parse_object(data)
        if self._screening.screen is None:
            return _Asked(chat, request, None, "")
        if request.get("stream") and (request.get("logprobs") or request.get("top_logprobs")):
            message = "logprobs of a stream would spell what the filter holds back; ask without stream"
            raise ApiError(400, message, "logprobs", "unsupported")
        refuse_unread(request)
        walk = TextWalk(self._screening.screen.screen_input, self._screening.screen.values)
        cleaned = _walked(walk, request)
        decision, why = walk.decision
        self._screening.counters.decided("prompt", decision)
        return _Asked(chat, cleaned, decision, why)

    async def _body(self, answer: UpstreamAnswer, one: _Asked | None) -> tuple[dict[str, Any], Decision | None, str]:
        """The body of an answer that is not streamed, as it may leave; (body, decision, why).

        Args:
            one: the request for text that it answers; None for another one.
        """
        data = await answer.body(MOST_ANSWER)
        try:
            body = parse_json(data)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise UpstreamError(f"its answer with status {answer.status} is not a JSON object")
        cleaned, decision, why = await asyncio.to_thread(self._answered, body, one)
        if decision is not None:
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

    def _answered(self, body: dict[str, Any], one: _Asked | None) -> tuple[dict[str, Any], Decision | None, str]:
        if self._screening.screen is None:
            return body, None, ""
        walk = TextWalk(self._screening.screen.screen_output, self._screening.screen.values)
        if one is not None:
            choices = body.get("choices")
            if isinstance(choices, list) and len(choices) > MOST_CHOICES:
                raise UpstreamError(f"its answer has more than {MOST_CHOICES} choices")
            self._read_after_prompts(walk, choices, one)
        cleaned = _walked(walk, body)
        return cleaned, *walk.decision

    def _read_after_prompts(self, walk: TextWalk, choices: Any, one: _Asked) -> None:
        """Filter the texts of the answers in their place, each as it follows its prompt."""
        ends = one.ends
        for place, choice in enumerate(choices if isinstance(choices, list) else ()):
            index = choice.get("index") if isinstance(choice, dict) else None
            before = ends.before(index if isinstance(index, int) and index >= 0 else place)
            for holder in (choice, choice.get("message")) if isinstance(choice, dict) else ():
                if isinstance(holder, dict):
                    self._read_texts(walk, holder, before)

    def _read_texts(self, walk: TextWalk, holder: dict[str, Any], before: str) -> None:
        """Filter the texts of one object in their place: strings, and lists of parts, which are also read joined.

        Each is read after the one before it: a value can begin in the reasoning and end in the content.
        """

        def screen(text: str) -> str:
            left, decision, why = self._screening.answer(text, before)
            if decision is not None:
                walk.note(ScreenedText(decision, "", why=why))
            return left

        for name in (*TEXTS, "text"):
            value = holder.get(name)
            if isinstance(value, str):
                holder[name] = screen(value)
                before += holder[name]
            elif isinstance(value, list):
                alone = [part if (text := part_text(part)) is None else with_text(part, screen(text)) for part in value]
                holder[name] = joined_parts(alone, screen)
                before += "".join(part_text(part) or "" for part in holder[name])

    async def _events(
        self, answer: UpstreamAnswer, stack: AsyncExitStack, one: _Asked, deadline: float
    ) -> AsyncGenerator[bytes, None]:
        chunks = FilteredChunks(self._screening, one.ends, chat=one.chat)
        try:
            async with stack:
                reader = _data_of_events(answer)
                while not chunks.ended:
                    async with asyncio.timeout_at(deadline):
                        data = await anext(reader, None)
                    if data is None and not chunks.complete:
                        raise UpstreamError("its stream broke off before the end of its answer")
                    if data is None or data == b"[DONE]":
                        break
                    if (left := await asyncio.to_thread(_chunk, chunks, data)) is not None:
                        yield event(left)
                if (rest := await asyncio.to_thread(chunks.finish)) is not None:
                    yield event(rest)
            traced = one.traced(AnswerOrigin(None, self._screening.digest, None), chunks.decision, chunks.why)
            head = await asyncio.to_thread(chunks.head)
            yield event({**Writer(one.chat, "upstream").chunk((), codex_ml=traced), **head})
            if chunks.decision is not None:
                self._screening.counters.decided("answer", chunks.decision)
        except UpstreamError as error:
            yield event(_unreachable(error).body())
        except TimeoutError:
            yield event(too_slow(self._limits.timeout).body())
        yield DONE


def _chunk(chunks: FilteredChunks, data: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(data)
        if not isinstance(value, dict) or "error" in value:
            raise ValueError("an error")
        return chunks.add(value)
    except (ValueError, RecursionError):
        raise UpstreamError("an event of its stream is an error, or not a chunk in OpenAI's format") from None


def _walked(walk: TextWalk, value: dict[str, Any]) -> dict[str, Any]:
    try:
        cleaned: dict[str, Any] = walk.cleaned(value)
    except RecursionError:
        walk.note(ScreenedText("refuse", "", why="JSON inside JSON is nested too deeply"))
        cleaned = {}
    except TooManyTexts:
        walk.note(ScreenedText("refuse", "", why=f"more than {MOST_TEXTS} different texts in one JSON value"))
        cleaned = {}
    return cleaned


async def _data_of_events(answer: UpstreamAnswer) -> AsyncGenerator[bytes, None]:
    """The data of each server-sent event. The cost is linear in the bytes, however they were cut and whatever they are.

    Raises:
        UpstreamError: for an event, or one line of it, of more than 1 MiB.
    """
    line, lines, size = bytearray(), list[bytes](), 0
    async for piece in answer.pieces:
        *ends, rest = piece.split(b"\n")
        for end in ends:
            whole = bytes(line + end).removesuffix(b"\r")
            line.clear()
            if whole.startswith(b"data:"):
                lines.append(whole[5:].removeprefix(b" "))
                size += len(whole)
            elif not whole and lines:
                yield b"\n".join(lines)
                lines, size = [], 0
            _refuse_size(size)
        line += rest
        _refuse_size(size + len(line))


def _refuse_size(size: int) -> None:
    if size > MOST_EVENT:
        raise UpstreamError(f"an event of its stream has more than {MOST_EVENT} bytes")


def _unreachable(error: UpstreamError) -> ApiError:
    return ApiError(502, f"the other endpoint failed: {error}", code="upstream_failed")
