"""The application of the endpoint: its paths, and how an answer reaches a client that may leave or read slowly.

Used by: http_server.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from codex_ml.serve.api_answers import StreamAnswer, WholeAnswer
from codex_ml.serve.api_errors import ApiError, failed, too_slow
from codex_ml.serve.delivery import AsciiResponse, Delivery

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from codex_ml.serve.api_counters import Counters
    from codex_ml.serve.door import Door
    from codex_ml.serve.limits import ServeLimits

log = logging.getLogger("codex_ml")
GONE = 499  # as nginx counts a client that left; it is never sent


class Backend(Protocol):
    """What answers: a model of this process, or another endpoint."""

    async def answer(self, data: bytes, *, chat: bool, deadline: float) -> WholeAnswer | StreamAnswer:
        """Answer the body of a request."""
        ...

    async def models(self) -> dict[str, Any]:
        """The body of /v1/models."""
        ...

    def gauges(self) -> Mapping[str, tuple[str, str, float]]:
        """Numbers for /metrics: name -> (type, help, value)."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether requests can be answered."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


class EndpointApp:
    """The paths of the endpoint.

    Args:
        start: makes the backend, in the thread of the running loop.
    """

    def __init__(self, start: Callable[[], Backend], door: Door, limits: ServeLimits, counters: Counters) -> None:
        self._start, self._door, self._limits, self._counters = start, door, limits, counters
        self._backend: Backend | None = None

    def build(self) -> Starlette:
        """The application of ASGI."""
        routes = [
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            Route("/v1/models", self._models),
            Route("/v1/completions", TextEndpoint(self, chat=False), methods=["POST"]),
            Route("/v1/chat/completions", TextEndpoint(self, chat=True), methods=["POST"]),
        ]
        handlers: dict[Any, Any] = {HTTPException: _not_here, ApiError: _refused}
        app = Starlette(routes=routes, exception_handlers=handlers, lifespan=self._living)
        app.router.redirect_slashes = False  # a redirect would repeat the header Host of whoever asks
        return app

    @property
    def backend(self) -> Backend:
        assert self._backend is not None
        return self._backend

    @asynccontextmanager
    async def _living(self, app: Starlette) -> AsyncIterator[None]:
        self._backend = self._start()
        try:
            yield
        finally:
            self._backend.close()

    async def _health(self, request: Request) -> Response:
        healthy = self.backend.healthy
        return AsciiResponse({"status": "ok" if healthy else "failed"}, 200 if healthy else 503)

    async def _metrics(self, request: Request) -> Response:
        self._door.check(request)
        text = self._counters.as_text(self.backend.gauges())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _models(self, request: Request) -> Response:
        self._door.check(request)
        return AsciiResponse(await self.backend.models())

    async def handle(self, request: Request, send: Send, *, chat: bool) -> int:
        """Answer one request for text; return the status.

        Raises:
            ApiError, TimeoutError: before anything was sent.
        """
        deadline = asyncio.get_running_loop().time() + self._limits.timeout
        self._door.check(request)
        with self._door.place():
            data = await self._door.body(request, deadline)
            delivery = Delivery(request.scope, request.receive, send, deadline)
            try:
                why = await delivery.run(self.backend.answer(data, chat=chat, deadline=deadline))
            except TimeoutError:
                raise too_slow(self._limits.timeout) from None
        if why:
            self._counters.dropped(why)
        return GONE if why else 200

    async def respond(self, scope: Scope, receive: Receive, send: Send, *, chat: bool) -> None:
        """Answer one request for text; an error becomes an answer, and a line in the log without its text."""
        begun, status = time.monotonic(), GONE
        request, answer = Request(scope, receive), _BegunAnswer(send)
        try:
            status = await self.handle(request, answer, chat=chat)
        except ApiError as error:
            status = error.status
            await answer.refuse(request, error)
        except ClientDisconnect:
            self._counters.dropped("gone")
        except Exception as error:
            log.error("serve: internal error, please report it: %s", type(error).__name__)
            status = 500
            await answer.refuse(request, failed())
        finally:
            seconds = time.monotonic() - begun
            self._counters.answered(scope["path"], status, seconds)
            log.info("serve: %s %d in %.2f s", scope["path"], status, seconds)


class _BegunAnswer:
    """`send` of ASGI that knows whether an answer has begun; an error can then not be sent any more."""

    def __init__(self, send: Send) -> None:
        self._send, self._begun = send, False

    async def __call__(self, message: Message) -> None:
        self._begun = True
        await self._send(message)

    async def refuse(self, request: Request, error: ApiError) -> None:
        if not self._begun:
            await _refused(request, error)(request.scope, request.receive, self)


class TextEndpoint:
    """A path that answers with text; an application of ASGI, which may send before its answer is complete."""

    def __init__(self, app: EndpointApp, *, chat: bool) -> None:
        self._app, self._chat = app, chat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app.respond(scope, receive, send, chat=self._chat)


def _refused(request: Request, error: Any) -> Response:
    headers = error.headers if request.method == "GET" else {**error.headers, "connection": "close"}
    return AsciiResponse(error.body(), error.status, headers=headers)


def _not_here(request: Request, error: Any) -> Response:
    known = "/v1/models, /v1/completions, /v1/chat/completions, /health, /metrics"
    what = "this path does not allow this method" if error.status_code == 405 else f"no such path; there are {known}"
    return _refused(request, ApiError(error.status_code, what, code="not_found"))
