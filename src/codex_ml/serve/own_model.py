"""Answer requests with the model of this process: screen, encode, write, screen again.

The random keys of answer i of a request depend on the seed of the request and on i only.

Used by: endpoint_app.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codex_ml.serve.api_answers import (
    DONE,
    FILTERED,
    REASONS,
    AnswerOrigin,
    Choice,
    StreamAnswer,
    WholeAnswer,
    Writer,
    event,
    refused_answer,
    usage,
)
from codex_ml.serve.api_errors import ApiError, failed, too_many, too_slow
from codex_ml.serve.api_requests import AskedText, ChatRequest, CompletionRequest, parse_request
from codex_ml.serve.arrivals import Arrivals
from codex_ml.serve.batch_engine import BatchEngine, QueueFull
from codex_ml.serve.engine_rows import Progress, Reports, Wanted
from codex_ml.serve.prompt_encoder import PromptEncoder, Served
from codex_ml.serve.screening import Decided, Screening, stricter
from codex_ml.serve.streamed_choice import StreamedChoice

if TYPE_CHECKING:
    from codex_ml.policy.filter_rules import Decision
    from codex_ml.serve.limits import ServeLimits


@dataclass(frozen=True)
class _Job:
    """A request whose prompts are screened and encoded."""

    request: AskedText
    wanted: list[Wanted]
    prompt_tokens: int
    origin: AnswerOrigin
    writer: Writer
    ends: list[str]  # what the policy reads before the answers: each prompt, or the last message of a chat
    decision: Decision | None
    why: str

    def before(self, number: int) -> str:
        """The text that an answer follows."""
        return self.ends[number // self.request.n]

    @property
    def scored(self) -> bool:
        return any(one.top is not None for one in self.wanted)

    def traced(self, decision: Decision | None, why: str = "") -> dict[str, Any]:
        """The field `codex_ml` with the stricter decision of the prompt and an answer."""
        told = f"the answer: {why}" if why else ""
        return self.origin.as_json(*stricter((self.decision, self.why), (decision, told)))


class LocalModel:
    """The endpoint's own model. Make it in the thread of the running event loop."""

    def __init__(self, served: Served, screening: Screening, limits: ServeLimits) -> None:
        self._served, self._screening, self._limits = served, screening, limits
        self._encoder = PromptEncoder(served)
        self._loop = asyncio.get_running_loop()
        batch, waiting = limits.max_batch, limits.max_queue
        self.engine = BatchEngine(
            served.model, served.tokenizer, max_batch=batch, max_waiting=waiting, deliver=self._deliver
        )

    def _deliver(self, reports: Reports) -> None:
        self._loop.call_soon_threadsafe(_report_all, reports)

    async def models(self) -> dict[str, Any]:
        """The body of /v1/models."""
        model = {"id": self._served.digest, "object": "model", "created": 0, "owned_by": "codex-ml"}
        return {"object": "list", "data": [model]}

    def gauges(self) -> dict[str, tuple[str, str, float]]:
        """Numbers for /metrics: name -> (type, help, value)."""
        counts = self.engine.counts
        return {
            "running_texts": ("gauge", "Texts that are written now", counts.running),
            "waiting_texts": ("gauge", "Texts that wait for a place", counts.waiting),
            "steps_total": ("counter", "Steps of the engine, each with one token per running text", counts.steps),
            "prompt_tokens_total": ("counter", "Tokens of prompts that the model read", counts.prompt_tokens),
            "new_tokens_total": ("counter", "Tokens that the model wrote", counts.new_tokens),
        }

    @property
    def healthy(self) -> bool:
        return self.engine.alive

    def close(self) -> None:
        """End the engine."""
        self.engine.close()

    async def answer(self, data: bytes, *, chat: bool, deadline: float) -> WholeAnswer | StreamAnswer:
        """Answer the body of a request. A cancelled task frees the places of its texts.

        Args:
            deadline: of the answer, on the clock of the event loop. A stream then ends with an error.

        Raises:
            TimeoutError: when the deadline has passed.
            ApiError: for a request that cannot be answered.
        """
        async with asyncio.timeout_at(deadline):
            job = await asyncio.to_thread(self._prepare, ChatRequest if chat else CompletionRequest, data)
        headers = job.origin.headers()
        if job.decision == "refuse":
            return self._refused(job)
        arrivals = Arrivals(self._limits.max_unread * len(job.wanted))
        try:
            arrivals.follow(self.engine.submit(job.wanted, arrivals.add))
        except QueueFull:
            raise too_many() from None
        if job.request.stream:
            return StreamAnswer(self._stream(job, arrivals, deadline), headers, arrivals.overflow)
        async with asyncio.timeout_at(deadline):
            return WholeAnswer(await self._whole(job, arrivals), headers)

    def _prepare(self, kind: type[AskedText], data: bytes) -> _Job:
        request = parse_request(kind, data)
        self._encoder.check_model(request.model)
        if isinstance(request, ChatRequest):
            texts, decision, why = self._screening.prompt([message.text for message in request.messages])
        else:
            assert isinstance(request, CompletionRequest)
            texts, decision, why = self._screening.prompt(request.prompts)
        seed = secrets.randbits(32) if request.seed is None else request.seed
        wanted = [] if decision == "refuse" else self._encoder.wanted(request, texts, seed)
        return _Job(
            request,
            wanted,
            sum(len(one.ids) for one in wanted[:: request.n]),
            AnswerOrigin(self._served.digest, self._screening.digest, seed),
            Writer(isinstance(request, ChatRequest), self._served.digest, self._served.tokenizer),
            texts[-1:] if isinstance(request, ChatRequest) else texts,
            decision,
            f"the prompt: {why}" if why else "",
        )

    def _refused(self, job: _Job) -> WholeAnswer | StreamAnswer:
        request = job.request
        prompts = len(request.prompts) if isinstance(request, CompletionRequest) else 1
        choices = [Choice(index, "", FILTERED, job.why) for index in range(prompts * request.n)]
        counted = request.stream_options.include_usage
        return refused_answer(job.writer, choices, job.origin, stream=request.stream, counted=counted)

    async def _whole(self, job: _Job, arrivals: Arrivals) -> dict[str, Any]:
        ended: dict[int, Progress] = {}
        try:
            while len(ended) < len(job.wanted):
                for number, progress in await arrivals.take():
                    if progress.finished == "error":
                        raise failed()
                    ended[number] = progress
        finally:
            arrivals.cancel()
        screen = self._screening.answer
        numbered = range(len(ended))
        screened = await asyncio.to_thread(lambda: [screen(ended[one].text, job.before(one)) for one in numbered])
        choices: list[Choice] = []
        worst: Decided = (job.decision, "")
        for number, (text, decided, reason) in enumerate(screened):
            progress = ended[number]
            refused = decided == "refuse"
            if decided is not None:
                self._screening.counters.decided("answer", decided)
            shown = job.scored and decided in (None, "allow")  # the tokens of a redacted text spell what it holds
            scores = (
                [one for one in progress.scores if one.start < len(text) or one.end == one.start] if shown else None
            )
            finish = FILTERED if refused else REASONS[str(progress.finished)]
            choices.append(Choice(number, text, finish, reason if refused else "", scores))
            worst = stricter(worst, (decided, reason))
        numbers = usage(job.prompt_tokens, sum(one.tokens for one in ended.values()))
        return job.writer.whole(choices, numbers, job.traced(*worst))

    def _choices(self, job: _Job) -> list[StreamedChoice]:
        gates = (self._screening.gate(job.before(number)) for number in range(len(job.wanted)))
        return [StreamedChoice(number, gate, scored=job.scored) for number, gate in enumerate(gates)]

    async def _stream(self, job: _Job, arrivals: Arrivals, deadline: float) -> AsyncGenerator[bytes, None]:
        """Events until all answers have ended; the reader closes this generator to cancel them."""
        writer, counted = job.writer, job.request.stream_options.include_usage
        none: dict[str, Any] = {"usage": None} if counted else {}
        try:
            answers = await asyncio.to_thread(self._choices, job)
            yield event(writer.opening(len(answers), codex_ml=job.traced(None), **none))
            while not all(one.finished for one in answers):
                events = []
                async with asyncio.timeout_at(deadline):
                    arrived = await arrivals.take()
                for number, progress in arrived:
                    one = answers[number]
                    if progress.finished == "error":
                        raise failed()
                    new = None if one.finished else await one.add(progress)
                    if new is not None:
                        traced = {"codex_ml": job.traced(one.decision, one.why)} if one.finished else {}
                        events.append(event(writer.chunk([new], **traced, **none)))
                        if one.finished and one.decision is not None:
                            self._screening.counters.decided("answer", one.decision)
                    if one.finished:
                        arrivals.cancel_one(number)
                if events:
                    yield b"".join(events)
            if counted:
                yield event(writer.chunk((), usage=usage(job.prompt_tokens, sum(one.tokens for one in answers))))
        except ApiError as error:
            yield event(error.body())
        except TimeoutError:
            yield event(too_slow(self._limits.timeout).body())
        finally:
            arrivals.cancel()
        yield DONE


def _report_all(reports: Reports) -> None:
    for row, progress in reports:
        row.report(progress)
