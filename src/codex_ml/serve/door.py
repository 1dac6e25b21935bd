"""Who may ask, and how much: token, host name, kind and size of a body, number of requests at once.

Used by: endpoint_app.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from codex_ml.serve.api_errors import ApiError, late_body, too_large, too_many

if TYPE_CHECKING:
    from starlette.requests import Request

    from codex_ml.serve.limits import ServeLimits

HOST = re.compile(r"(\[[0-9a-f:.%]+\]|[^:\[\]@]+)(?::[0-9]{1,5})?")  # name or address, and port
LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
BODY_SECONDS = 30.0  # for a body, which holds a place while it comes
LINGER = 2.0  # seconds for which the rest of a refused body is read, so that its sender reads the error


class Door:
    """Checks before any work.

    Args:
        token: what clients must send as `Authorization: Bearer TOKEN`; None: nothing. Then the header Host must name
            this machine, so that no page in a browser reaches the server through a name that leads here.
        host: a further allowed value of that header.
    """

    def __init__(self, token: str | None, host: str, limits: ServeLimits) -> None:
        self._token = None if token is None else token.encode("utf-8")
        self._hosts = LOCAL | {f"[{host}]" if ":" in host else host}
        self._limits = limits
        self._inside = 0

    def check(self, request: Request) -> None:
        """Refuse who may not ask.

        Raises:
            ApiError: 400 for a body with two lengths, 401 without the token, 403 for another host name.
        """
        if "content-length" in request.headers and "transfer-encoding" in request.headers:
            # RFC 9112 section 6.1: a proxy before this server may believe the other one
            message = "give one of the headers Content-Length and Transfer-Encoding"
            raise ApiError(400, message, code="two_lengths", headers={"connection": "close"})
        if self._token is None:
            name = HOST.fullmatch(request.headers.get("host", "").lower())
            if name is None or name[1] not in self._hosts:
                raise ApiError(403, "the header Host does not name this machine", code="wrong_host")
            return
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(token.strip().encode("utf-8", "surrogateescape"), self._token)
        if kind.lower() != "bearer" or not right:
            message = "the token is missing or wrong; send it as `Authorization: Bearer TOKEN`"
            raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for requests.

        Raises:
            ApiError: 429 when none is free.
        """
        if self._inside >= self._limits.most_requests:
            raise too_many()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def body(self, request: Request, deadline: float) -> bytes:
        """Read the body.

        Raises:
            ApiError: 408, 413, or 415 for what is not `application/json` or is compressed.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # which a page in a browser cannot send to another server without its consent
            raise ApiError(415, "the header Content-Type must be application/json", code="wrong_content_type")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise ApiError(415, "the body must not be compressed", code="wrong_content_encoding")
        most = self._limits.max_body
        size, pieces = 0, []
        if int(request.headers.get("content-length", "0")) > most:  # h11 has checked that it is a number
            await self._linger(request)
            raise too_large(most)
        try:
            async with asyncio.timeout_at(min(deadline, asyncio.get_running_loop().time() + BODY_SECONDS)):
                async for piece in request.stream():
                    size += len(piece)
                    if size > most:
                        await self._linger(request)
                        raise too_large(most)
                    pieces.append(piece)
        except TimeoutError:
            raise late_body() from None
        return b"".join(pieces)

    async def _linger(self, request: Request) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                async for _ in request.stream():
                    pass
