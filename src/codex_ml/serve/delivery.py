"""Bring an answer to a client that may leave at any moment, or read more slowly than the model writes.

Used by: endpoint_app.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from codex_ml.serve.api_answers import StreamAnswer, WholeAnswer
from codex_ml.serve.api_errors import ApiError
from codex_ml.serve.arrivals import UnreadOverflow

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

GRACE = 5.0  # seconds after the deadline in which a client may read the error that ends its stream
ABORT = "codex_ml.abort"  # key of `scope["extensions"]`: a function that closes the connection at once


class AsciiResponse(JSONResponse):
    """JSON in ASCII: another endpoint can send half a character, which UTF-8 cannot hold."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


class Delivery:
    """One request on its connection."""

    _complete = False  # whether the end of the answer is on its way

    def __init__(self, scope: Scope, receive: Receive, send: Send, deadline: float) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._deadline = deadline

    async def run(self, answering: Coroutine[Any, Any, WholeAnswer | StreamAnswer]) -> str:
        """Wait for an answer and send it.

        Returns:
            "" when it was sent, else why not: "gone", "slow" or "timeout". The connection is then closed.

        Raises:
            ApiError, TimeoutError: of the answer, before anything was sent.
        """
        gone, work = asyncio.create_task(self._until_gone()), asyncio.create_task(self._deliver(answering))
        left = self._deadline + GRACE - asyncio.get_running_loop().time()
        why = "timeout"
        try:
            await asyncio.wait({gone, work}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                why = work.result()
            elif gone.done():
                why = "" if self._complete else "gone"
        except (ApiError, TimeoutError):
            why = ""
            raise
        finally:
            await _end(gone, work)
            if why:
                self._scope.get("extensions", {}).get(ABORT, lambda: None)()
        return why

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _deliver(self, answering: Coroutine[Any, Any, WholeAnswer | StreamAnswer]) -> str:
        answer = await answering
        if isinstance(answer, WholeAnswer):
            self._complete = True
            await AsciiResponse(answer.body, headers=answer.headers)(self._scope, self._receive, self._send)
            return ""
        writing = asyncio.create_task(self._write(answer))
        dropped = asyncio.create_task(answer.dropped.wait())
        try:
            await asyncio.wait({writing, dropped}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
            return "" if writing.done() else "slow"
        except UnreadOverflow:
            return "slow"
        finally:
            await _end(writing, dropped)

    async def _write(self, answer: StreamAnswer) -> None:
        headers = {**answer.headers, "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        async with aclosing(answer.events) as events:
            await self._send({"type": "http.response.start", "status": 200, "headers": raw})
            async for event in events:
                await self._send({"type": "http.response.body", "body": event, "more_body": True})
            self._complete = True
            await self._send({"type": "http.response.body", "body": b""})


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
